"""Real training loops that log each step: steps per second and step times with us, with each peer, with none.

``nox -s bench -- loops`` runs all of it; every training is a process of its own. Tiny models, so that what logging
costs shows at its worst.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import alone, save
from benchmarks.trackers import quietly

STEPS: Final = 1_500
WARM: Final = 200
"""Steps at the beginning that are not counted."""
ROUNDS: Final = 2
SLOW_STEPS: Final = 400
SLOW: Final = ("MLflow",)

NONE, CHEAPEST = "none", "cheapest local"
OURS: Final = {"here": "process", "here, thread": "thread", "here, no server": "offline"}
LOOPS: Final = {
    "Lightning": [NONE, CHEAPEST, *OURS, "MLflow", "W&B offline", "TensorBoard"],
    "Trainer": [NONE, *OURS, "MLflow", "W&B offline", "TensorBoard", "Trackio"],
    "Keras": [NONE, CHEAPEST, *OURS, "MLflow"],  # W&B's callback wants TensorFlow
}


class Stopwatch:
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def step(self, *_: object, **__: object) -> None:
        """A step has ended."""
        self.ends.append(time.perf_counter())

    def figures(self) -> dict[str, float]:
        """Of the steps after the first ones."""
        ends = self.ends[WARM:]
        times = sorted(end - begin for begin, end in itertools.pairwise(ends))
        return {
            "steps/s": len(times) / (ends[-1] - ends[0]),
            "p50 ms": 1e3 * times[len(times) // 2],
            "p99 ms": 1e3 * times[len(times) * 99 // 100],
        }


def our_settings(name: str, uri: str) -> dict[str, Any]:
    """Keywords of our integrations."""
    kind = OURS[name]
    if kind == "offline":
        return {"mode": "offline"}
    return {"tracking_uri": uri, "uploader": kind, "experiment_name": "bench"}


def lightning(name: str, steps: int, directory: Path, uri: str) -> Stopwatch:
    """``Trainer.fit`` of one linear layer."""
    import lightning as pl
    import torch
    from lightning.pytorch import loggers

    watch = Stopwatch()

    class Model(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(32, 2)

        def training_step(self, batch: torch.Tensor) -> torch.Tensor:
            loss = self.layer(batch).pow(2).mean()
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            watch.step()

    def ours() -> Any:
        from mlops_integrations.lightning import MLOpsLogger

        return MLOpsLogger(**our_settings(name, uri))

    made: dict[str, Callable[[], Any]] = {
        NONE: lambda: False,
        CHEAPEST: lambda: loggers.CSVLogger(str(directory)),
        "MLflow": lambda: loggers.MLFlowLogger("bench", tracking_uri=uri),
        "W&B offline": lambda: loggers.WandbLogger(project="bench", offline=True, save_dir=str(directory)),
        "TensorBoard": lambda: loggers.TensorBoardLogger(str(directory)),
    }
    trainer = pl.Trainer(
        max_steps=steps,
        logger=made.get(name, ours)(),
        log_every_n_steps=1,
        callbacks=[Watch()],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.randn(steps, 32), batch_size=1))
    return watch


def transformers(name: str, steps: int, directory: Path, uri: str) -> Stopwatch:
    """``Trainer.train`` of one linear layer; its own list of logs is always kept."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    watch = Stopwatch()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(32, 2)

        def forward(self, values: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.layer(values).pow(2).mean()}

    class Watch(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            watch.step()

    os.environ.update(MLFLOW_TRACKING_URI=uri, MLFLOW_EXPERIMENT_NAME="bench", HF_MLFLOW_LOG_ARTIFACTS="0")
    os.environ["TRACKIO_DIR"] = str(directory)
    names = {"MLflow": "mlflow", "W&B offline": "wandb", "TensorBoard": "tensorboard", "Trackio": "trackio"}
    callbacks: list[Any] = [Watch()]
    if name in OURS:
        from mlops_integrations.transformers import MLOpsCallback

        callbacks.append(MLOpsCallback(**our_settings(name, uri)))
    arguments = TrainingArguments(
        output_dir=str(directory / "out"),
        max_steps=steps,
        per_device_train_batch_size=1,
        logging_steps=1,
        report_to=names.get(name, "none"),
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
    )
    data = [{"values": torch.randn(32)} for _ in range(100)]
    Trainer(model=Model(), args=arguments, train_dataset=data, callbacks=callbacks).train()
    return watch


def keras(name: str, steps: int, _directory: Path, uri: str) -> Stopwatch:
    """``fit`` of one dense layer on JAX, logging each batch."""
    import keras as framework
    import numpy as np

    watch = Stopwatch()
    callbacks: list[Any] = []
    if name in OURS:
        from mlops_integrations.keras import MLOpsCallback

        callbacks.append(MLOpsCallback(log_every_batch=True, **our_settings(name, uri)))
    elif name == CHEAPEST:
        kept: list[dict[str, float]] = []

        def keep(_: int, logs: dict[str, Any]) -> None:
            kept.append({key: float(value) for key, value in logs.items()})

        callbacks.append(framework.callbacks.LambdaCallback(on_train_batch_end=keep))
    elif name == "MLflow":
        import mlflow

        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("bench")
        callbacks.append(mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1))
    callbacks.append(framework.callbacks.LambdaCallback(on_train_batch_end=watch.step))
    model = framework.Sequential([framework.layers.Input((32,)), framework.layers.Dense(2)])
    model.compile(optimizer="sgd", loss="mse")
    data = np.random.default_rng(0).normal(size=(steps, 32)).astype("float32")
    model.fit(data, data[:, :2], batch_size=1, epochs=1, verbose=0, shuffle=False, callbacks=callbacks)
    return watch


TRAININGS: Final = {"Lightning": lightning, "Trainer": transformers, "Keras": keras}


def one(loop: str, name: str, uri: str) -> dict[str, float]:
    """One training in this process."""
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        os.chdir(temporary)
        os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", MLOPS_DIR=temporary)
        steps = SLOW_STEPS if name in SLOW else STEPS
        with quietly():
            return TRAININGS[loop](name, steps + WARM, Path(temporary), uri).figures()


def main() -> None:
    """Everything."""
    from real_mlflow import MlflowServer

    found: dict[str, dict[str, dict[str, list[float]]]] = {loop: {} for loop in LOOPS}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        server = MlflowServer(Path(temporary), "--workers", "4")
        server.start()
        try:
            for _ in range(ROUNDS):
                for loop, names in LOOPS.items():
                    for name in names:
                        figures = alone("benchmarks.loops", loop, name, server.uri, env={"KERAS_BACKEND": "jax"})
                        rows = found[loop].setdefault(name, {})
                        for key, value in figures.items():
                            rows.setdefault(key, []).append(value)
        finally:
            server.stop()
    medians = {
        loop: {name: {key: statistics.median(values) for key, values in rows.items()} for name, rows in names.items()}
        for loop, names in found.items()
    }
    save("loops", medians)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(*sys.argv[1:4])))
    else:
        main()
