"""Handwritten digits with PyTorch Lightning, recorded.

    pip install ".[lightning]" scikit-learn
    python examples/digits_lightning.py

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

from mlops_integrations.lightning import MLOpsLogger


class DigitsClassifier(lightning.LightningModule):
    """A small network. What it logs, and what it was made with, is recorded."""

    def __init__(self, hidden=64, dropout=0.2, learning_rate=0.002):
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.network = torch.nn.Sequential(
            torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(hidden, 10)
        )

    def training_step(self, batch):
        return self.evaluated(batch, "train")

    def validation_step(self, batch):
        self.evaluated(batch, "val")

    def test_step(self, batch):
        self.evaluated(batch, "test")

    def evaluated(self, batch, stage):
        images, labels = batch
        scores = self.network(images)
        loss = torch.nn.functional.cross_entropy(scores, labels)
        accuracy = (scores.argmax(dim=1) == labels).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy})
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def digits(batch_size=32):
    """1,797 images of 8 x 8 pixels: 60 % to train with, 20 % to validate, 20 % that training never sees."""
    images, labels = load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    x_rest, x_test, y_rest, y_test = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=0.25, stratify=y_rest, random_state=0)
    parts = ((x_train, y_train), (x_val, y_val), (x_test, y_test))
    datasets = [TensorDataset(torch.from_numpy(x), torch.from_numpy(y)) for x, y in parts]
    return [DataLoader(dataset, batch_size, shuffle=dataset is datasets[0]) for dataset in datasets]


if __name__ == "__main__":
    lightning.seed_everything(0)
    train, validation, test = digits()
    logger = MLOpsLogger(experiment_name="digits", run_name="lightning", params={"batch_size": 32})
    trainer = lightning.Trainer(
        max_epochs=10, logger=logger, log_every_n_steps=5, accelerator="cpu", enable_progress_bar=False
    )
    model = DigitsClassifier()
    trainer.fit(model, train, validation)
    (tested,) = trainer.test(model, test, verbose=False)
    print(f"test accuracy: {tested['test/accuracy']:.3f}")
    print(f"run directory: {logger.run.directory}")
