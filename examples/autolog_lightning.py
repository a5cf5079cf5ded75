"""Handwritten digits with PyTorch Lightning, in a script that knows nothing of tracking.

    pip install ".[lightning]" scikit-learn
    MLOPS_AUTOLOG=1 python examples/autolog_lightning.py

Or, in the script: ``import mlops_integrations as mlops; mlops.autolog(experiment_name="digits")``.
Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset


class DigitsClassifier(lightning.LightningModule):
    """A small network. What it logs, and what it was made with, is recorded."""

    def __init__(self, hidden=64, learning_rate=0.002):
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.network = torch.nn.Sequential(torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10))

    def training_step(self, batch):
        return self.evaluated(batch, "train")

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


if __name__ == "__main__":
    lightning.seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(images.astype("float32") / 16, labels, random_state=0)
    train = TensorDataset(torch.from_numpy(x_train), torch.from_numpy(y_train))
    test = TensorDataset(torch.from_numpy(x_test), torch.from_numpy(y_test))
    trainer = lightning.Trainer(
        max_epochs=10, logger=False, log_every_n_steps=5, accelerator="cpu", enable_progress_bar=False
    )
    model = DigitsClassifier()
    trainer.fit(model, DataLoader(train, batch_size=32, shuffle=True))
    (tested,) = trainer.test(model, DataLoader(test, batch_size=32), verbose=False)
    print(f"test accuracy: {tested['test/accuracy']:.3f}")
