"""Handwritten digits in two processes that torchrun starts, recorded as one run.

    pip install ".[lightning]" scikit-learn
    torchrun --nproc-per-node=2 examples/torchrun_lightning.py

With per_rank=True each process records what it logs: rank 0 as train/loss, rank 1 as rank1/train/loss. Without it the
process of rank 0 records, and the others touch neither files nor the network.

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import lightning
from digits_lightning import DigitsClassifier, digits

from mlops_integrations.lightning import MLOpsLogger

if __name__ == "__main__":
    lightning.seed_everything(0)
    train, validation, _ = digits()
    logger = MLOpsLogger(experiment_name="digits", run_name="torchrun", per_rank=True)
    trainer = lightning.Trainer(
        max_epochs=4,
        logger=logger,
        strategy="ddp",
        devices=2,
        accelerator="cpu",
        log_every_n_steps=5,
        enable_progress_bar=False,
    )
    trainer.fit(DigitsClassifier(), train, validation)
    if trainer.is_global_zero:
        print(f"run directory: {logger.run.directory}")
