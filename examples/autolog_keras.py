"""Handwritten digits with Keras, in a script that knows nothing of tracking but the line that switches it on.

    pip install ".[keras]" jax scikit-learn
    python examples/autolog_keras.py

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mlops_integrations as mlops

mlops.autolog(experiment_name="digits", run_name="autolog-keras")

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(images.astype("float32") / 16, labels, random_state=0)
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer=keras.optimizers.Adam(0.002), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train, validation_split=0.2, epochs=10, verbose=2)
accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
print(f"test accuracy: {accuracy:.3f}")
