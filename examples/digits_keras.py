"""Handwritten digits with Keras, recorded.

    pip install ".[keras]" jax scikit-learn
    python examples/digits_keras.py

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mlops_integrations.keras import MLOpsCallback

BATCH_SIZE = 32


def digits():
    """1,797 images of 8 x 8 pixels: 60 % to train with, 20 % to validate, 20 % that training never sees."""
    images, labels = load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    x_rest, x_test, y_rest, y_test = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=0.25, stratify=y_rest, random_state=0)
    return (x_train, y_train), (x_val, y_val), (x_test, y_test)


def train(callback):
    """Train for ten epochs; returns the accuracy on the test images."""
    keras.utils.set_random_seed(0)
    (x_train, y_train), validation, (x_test, y_test) = digits()
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.002), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        x_train, y_train, validation_data=validation, batch_size=BATCH_SIZE, epochs=10, verbose=2, callbacks=[callback]
    )
    return model.evaluate(x_test, y_test, verbose=0, callbacks=[callback], return_dict=True)["accuracy"]


if __name__ == "__main__":
    callback = MLOpsCallback(experiment_name="digits", run_name="keras")
    accuracy = train(callback)
    print(f"test accuracy: {accuracy:.3f}")
    print(f"run directory: {callback.run.directory}")
