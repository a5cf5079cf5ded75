"""Handwritten digits by a configuration: LightningCLI, with the logger named in YAML.

    pip install ".[lightning]" "jsonargparse[signatures]" scikit-learn
    python examples/lightning_cli.py fit --config examples/lightning_cli.yaml
    python examples/lightning_cli.py fit --config examples/lightning_cli.yaml --model.hidden=128

Each is a run with its own directory, where its config.yaml and its checkpoints lie. To go on with one of them:

    python examples/lightning_cli.py fit --config examples/lightning_cli.yaml --trainer.max_epochs=8 --ckpt_path=PATH

Without MLFLOW_TRACKING_URI the runs are recorded in ./mlops_runs; with it, they go to that server too.
"""

import lightning
from digits_lightning import DigitsClassifier, digits
from lightning.pytorch.cli import LightningCLI


class Digits(lightning.LightningDataModule):
    """The images, and the size of their batches."""

    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.save_hyperparameters()
        self.train, self.validation, self.test = digits(batch_size)

    def train_dataloader(self):
        return self.train

    def val_dataloader(self):
        return self.validation

    def test_dataloader(self):
        return self.test


class Classifier(DigitsClassifier):
    """The same network; the command line takes its options from the types."""

    def __init__(self, hidden: int = 64, dropout: float = 0.2, learning_rate: float = 0.002):
        super().__init__(hidden, dropout, learning_rate)


if __name__ == "__main__":
    LightningCLI(Classifier, Digits, seed_everything_default=0)
