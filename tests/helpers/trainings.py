"""Each integration in a small real training: what differs between them, so that one test can ask the same of all.

A training says what its loss was (``losses``) and what was learned (``learned``), whether it is recorded or not. Before
each loss is told to the framework, ``inside`` is called with the number of losses so far; what it gives is logged too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import mlops_integrations as mlops

STEPS = 4

Inside = Callable[[int], Mapping[str, object]]


def nothing(_: int) -> Mapping[str, object]:
    """Log nothing else."""
    return {}


class Training:
    """A framework's training of four steps; can be repeated. Recorded by what ``way`` names, or not at all."""

    framework = ""
    loss = "train/loss"
    """The name by which the loss is recorded."""
    params: ClassVar[Mapping[str, str]] = {}
    """Some of those that are recorded unasked."""

    def __init__(self, way: str, integration: Any, inside: Inside, root: Path) -> None:
        self.way = way
        self.given = [] if integration is None else [integration]
        self._inside = inside
        self.root = root
        self.losses: list[tuple[int, float]] = []
        self.prepare()

    def prepare(self) -> None:
        """Make the model, and what trains it."""
        raise NotImplementedError

    def train(self) -> None:
        """Train four steps, or four more."""
        raise NotImplementedError

    def learned(self) -> list[float]:
        """The model's weights."""
        raise NotImplementedError

    def recorders(self) -> list[Any]:
        """Where the framework keeps what records."""
        raise NotImplementedError

    def become_rank_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the framework take this process for another one than the first; RANK is set already."""

    @property
    def integration(self) -> Any:
        """What records: what was given, or what the framework was made to have."""
        return next(each for each in self.recorders() if type(each).__module__.startswith("mlops_integrations"))

    def tell(self, step: int, loss: float) -> Mapping[str, object]:
        """The next loss is there; what is to be logged beside it."""
        more = self._inside(len(self.losses))
        self.losses.append((step, loss))
        return more


class LightningTraining(Training):
    framework = "lightning"
    params: ClassVar[Mapping[str, str]] = {"learning_rate": "0.1"}

    def prepare(self) -> None:
        classifier = pytest.importorskip("lightning_classifier")
        import torch

        training = self

        class Module(classifier.Classifier):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                loss = super().training_step(batch, batch_idx)
                more = training.tell(self.global_step, loss.item())
                for logger in self.loggers if more else ():
                    logger.log_metrics(more, self.global_step)
                return loss

        torch.manual_seed(0)
        self.model, self.batches = Module(), classifier.batches()
        logger = self.given if self.way == "logger" else False
        callbacks = self.given if self.way == "callback" else None
        self.trainer = classifier.trainer(logger, epochs=1, callbacks=callbacks, limit_train_batches=STEPS)

    def train(self) -> None:
        self.trainer.fit_loop.max_epochs = self.trainer.current_epoch + 1
        self.trainer.fit(self.model, self.batches)

    def learned(self) -> list[float]:
        return [number for weights in self.model.parameters() for number in weights.flatten().tolist()]

    def recorders(self) -> list[Any]:
        return [*self.given, *self.trainer.callbacks]

    def become_rank_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from lightning.pytorch.utilities import rank_zero_only

        monkeypatch.setattr(rank_zero_only, "rank", 1)


class TransformersTraining(Training):
    framework = "transformers"
    params: ClassVar[Mapping[str, str]] = {"max_steps": "4", "per_device_train_batch_size": "4"}

    def prepare(self) -> None:
        for package in ("torch", "transformers", "accelerate"):
            pytest.importorskip(package)
        import torch

        import tiny_trainer

        training = self

        class Trainer(tiny_trainer.Trainer):
            def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
                more = training.tell(self.state.global_step, logs["loss"]) if "loss" in logs else {}
                super().log({**logs, **more}, *args, **kwargs)

        torch.manual_seed(0)
        callbacks = self.given if self.way == "callback" else []
        report_to = "mlops" if self.way == "report_to" else "none"
        self.trainer = tiny_trainer.trainer(
            self.root.parent, *callbacks, kind=Trainer, report_to=report_to, run_name="baseline"
        )

    def train(self) -> None:
        self.trainer.train()

    def learned(self) -> list[float]:
        return [number for weights in self.trainer.model.parameters() for number in weights.flatten().tolist()]

    def recorders(self) -> list[Any]:
        return list(self.trainer.callback_handler.callbacks)

    def become_rank_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from accelerate import PartialState

        monkeypatch.setitem(PartialState._shared_state, "process_index", 1)


class KerasTraining(Training):
    framework = "keras"
    loss = "loss"
    params: ClassVar[Mapping[str, str]] = {"epochs": "4", "optimizer/name": "SGD"}

    def prepare(self) -> None:
        pytest.importorskip("jax")
        keras = pytest.importorskip("keras")
        training = self

        class Telling(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                logs.update(training.tell(training.epochs_before + epoch, logs["loss"]))

        keras.utils.set_random_seed(0)
        self.model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        self.model.compile("sgd", "mse", run_eagerly=True)
        self.epochs_before = 0
        self.callbacks = [Telling(), *self.given]

    def train(self) -> None:
        import numpy as np

        data, targets = np.ones((8, 4)), np.ones((8, 1))
        self.model.fit(data, targets, epochs=STEPS, batch_size=8, verbose=0, callbacks=self.callbacks)
        self.epochs_before += STEPS

    def learned(self) -> list[float]:
        return [float(number) for weights in self.model.get_weights() for number in weights.flatten()]

    def recorders(self) -> list[Any]:
        from mlops_integrations.keras import _autolog

        return [*self.given, *_autolog._models.values()]  # Keras itself keeps no callbacks


class AccelerateTraining(Training):
    framework = "accelerate"
    params: ClassVar[Mapping[str, str]] = {"lr": "0.1"}

    def prepare(self) -> None:
        torch = pytest.importorskip("torch")
        accelerate = pytest.importorskip("accelerate")
        torch.manual_seed(0)
        self.accelerator = accelerate.Accelerator(cpu=True, log_with=self.given)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=16 // STEPS)
        self.model, self.optimizer, self.data = self.accelerator.prepare(model, optimizer, data)
        self.is_begun = False

    def train(self) -> None:
        if not self.is_begun:
            self.is_begun = True
            self.accelerator.init_trackers("digits", config=dict(self.params))
        for step, batch in enumerate(self.data, len(self.losses)):
            loss = self.model(batch).square().mean()
            self.accelerator.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            more = self.tell(step, loss.item())
            self.accelerator.log({"train/loss": loss.detach(), **more}, step=step)
            for tracker in self.recorders()[:1]:  # the Accelerator asks only on the main process; users may elsewhere
                tracker.log({"direct": 0.5}, step=step)
        self.accelerator.end_training()

    def learned(self) -> list[float]:
        return [number for weights in self.model.parameters() for number in weights.flatten().tolist()]

    def recorders(self) -> list[Any]:
        return [*self.given, *self.accelerator.trackers]

    def become_rank_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from accelerate import DistributedType, PartialState

        state = {"process_index": 1, "num_processes": 2, "distributed_type": DistributedType.MULTI_CPU}
        for name, value in state.items():
            monkeypatch.setitem(PartialState._shared_state, name, value)


ENVIRONMENT = {
    "experiment_name": "MLFLOW_EXPERIMENT_NAME",
    "tracking_uri": "MLFLOW_TRACKING_URI",
    "mode": "MLOPS_MODE",
    "uploader": "MLOPS_UPLOADER",
}
"""What says so to an integration that is given no arguments."""


@dataclass(frozen=True)
class Route:
    """One way to have trainings of one framework recorded."""

    kind: type[Training]
    way: str
    class_name: str = ""
    """Of what the user makes; nothing, where it is made for him."""

    @property
    def made_by_hand(self) -> bool:
        """Whether the user holds it before anything is trained."""
        return bool(self.class_name)

    def make(self, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any]) -> Any:
        """The callback, logger or tracker, as the user makes it; None, where he only asks for it."""
        pytest.importorskip(self.kind.framework)
        if self.made_by_hand:
            module = importlib.import_module(f"mlops_integrations.{self.kind.framework}")
            return getattr(module, self.class_name)(**options)
        if self.way == "report_to":
            importlib.import_module("mlops_integrations.transformers")
            for name in options.keys() & ENVIRONMENT.keys():
                monkeypatch.setenv(ENVIRONMENT[name], options[name])
        elif self.way == "autolog":
            self._skip_if_lightning_does_not_find_us()
            mlops.autolog(frameworks=[self.kind.framework], **options)
        return None

    def _skip_if_lightning_does_not_find_us(self) -> None:
        found = importlib.metadata.entry_points(group="lightning.pytorch.callbacks_factory")
        if self.kind is LightningTraining and not any("mlops_integrations" in entry.value for entry in found):
            pytest.skip("the package is not installed: Lightning finds no entry point of it")


ROUTES = {
    "lightning logger": Route(LightningTraining, "logger", "MLOpsLogger"),
    "lightning callback": Route(LightningTraining, "callback", "MLOpsCallback"),
    "lightning autolog": Route(LightningTraining, "autolog"),
    "transformers callback": Route(TransformersTraining, "callback", "MLOpsCallback"),
    "transformers report_to": Route(TransformersTraining, "report_to"),
    "transformers autolog": Route(TransformersTraining, "autolog"),
    "keras callback": Route(KerasTraining, "callback", "MLOpsCallback"),
    "keras autolog": Route(KerasTraining, "autolog"),
    "accelerate tracker": Route(AccelerateTraining, "tracker", "MLOpsTracker"),
    "accelerate autolog": Route(AccelerateTraining, "autolog"),
}
