"""Handwritten digits with the Trainer of Hugging Face Transformers, recorded.

    pip install ".[transformers]" scikit-learn
    python examples/digits_transformers.py

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from mlops_integrations.transformers import MLOpsCallback


def digits():
    """1,797 images of 8 x 8 pixels: 60 % to train with, 20 % to validate, 20 % that training never sees."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype("float32") / 16
    x_rest, x_test, y_rest, y_test = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=0.25, stratify=y_rest, random_state=0)
    parts = ((x_train, y_train), (x_val, y_val), (x_test, y_test))
    return [
        [{"pixel_values": torch.from_numpy(x), "labels": int(y)} for x, y in zip(*part, strict=True)] for part in parts
    ]


def small_transformer():
    """A vision transformer of some 20,000 parameters, which sees an image as 16 patches."""
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=10,
        initializer_range=0.1,
    )
    return ViTForImageClassification(config)


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}


if __name__ == "__main__":
    set_seed(0)
    torch.set_num_threads(1)  # the matrices are small
    train, validation, test = digits()
    callback = MLOpsCallback(experiment_name="digits", run_name="transformers")
    arguments = TrainingArguments(
        "digits_transformers_output",
        num_train_epochs=10,
        per_device_train_batch_size=32,
        learning_rate=0.005,
        warmup_steps=20,
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=5,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        small_transformer(),
        arguments,
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    trainer.train()
    tested = trainer.predict(test).metrics
    print(f"test accuracy: {tested['test_accuracy']:.3f}")
    print(f"run directory: {callback.run.directory}")
