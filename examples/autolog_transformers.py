"""Handwritten digits with the Trainer of Hugging Face Transformers; one line switches the tracking on.

    pip install ".[transformers]" scikit-learn
    python examples/autolog_transformers.py

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from transformers import Trainer, TrainingArguments, set_seed

import mlops_integrations as mlops

mlops.autolog(experiment_name="digits", run_name="autolog-transformers")


class Classifier(torch.nn.Module):
    """A small network that gives its loss, as the Trainer wants it."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

    def forward(self, images, labels=None):
        scores = self.network(images)
        return {"loss": torch.nn.functional.cross_entropy(scores, labels), "logits": scores}


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}


if __name__ == "__main__":
    set_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images.astype("float32") / 16)
    examples = [{"images": image, "labels": int(label)} for image, label in zip(images, labels, strict=True)]
    train, test = train_test_split(examples, random_state=0)
    arguments = TrainingArguments(
        "autolog_transformers_output",
        num_train_epochs=10,
        per_device_train_batch_size=32,
        learning_rate=0.005,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(Classifier(), arguments, train_dataset=train, eval_dataset=test, compute_metrics=accuracy)
    trainer.train()
    print(f"test accuracy: {trainer.evaluate()['eval_accuracy']:.3f}")
