"""A small Lightning module on real images, and the Trainer that trains it: what several test files train."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset, TensorDataset

IMAGES, LABELS = load_digits(return_X_y=True)
DATA = TensorDataset(torch.from_numpy(IMAGES[:128].astype("float32") / 16), torch.from_numpy(LABELS[:128]))
BATCHES = 8


class Classifier(lightning.LightningModule):
    """A small network that remembers what it logged, and fails where it is told to."""

    def __init__(self, learning_rate: float = 0.1, options: object = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(64, 10)
        self.logged: list[tuple[int, float]] = []
        self.error: BaseException | None = None
        self.fails_in = "training"

    def loss(self, batch: Any) -> Any:
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.layer(images), labels)

    def fail(self, where: str) -> None:
        if self.error is not None and where == self.fails_in:
            raise self.error

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.logged.append((self.global_step, loss.item()))
        self.log("train/loss", loss)
        if batch_idx == 4:
            self.fail("training")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.fail("test")
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)


def trainer(logger: Any, epochs: int = 2, **options: Any) -> Any:
    """A Trainer that logs every step and prints nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return lightning.Trainer(
        max_epochs=epochs, logger=logger, log_every_n_steps=1, accelerator="cpu", **{**quiet, **options}
    )


def batches() -> Any:
    """The images in their order."""
    return DataLoader(DATA, batch_size=16)


class Chatty(Dataset):  # type: ignore[type-arg]
    """A user's data set that logs while it loads."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        self.logger.log_metrics({"worker": 1.0}, index)
        self.logger.experiment.log_metrics({"worker": 1.0}, index)
        self.logger.run.log_metrics({"worker": 1.0}, index)
        return torch.zeros(64), torch.tensor(0)
