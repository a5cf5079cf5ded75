"""The Keras door: ``model.fit(..., callbacks=[MLOpsCallback(experiment_name="digits")])``.

Records each epoch of ``fit`` by Keras' own names (``loss``, ``accuracy``, ``val_loss``, ``learning_rate``), on request
each batch (``batch/loss``), and ``evaluate`` (``test_loss``). Keras tells its callbacks nothing when ``fit`` raises:
that the exit of the process tells, or the ``with`` block of a run that was given as ``run=``.
"""

# ruff: noqa: ARG002 - the arguments of hooks are Keras' own

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from mlops_integrations.door import Door, guarded, keywords_of_start_run
from mlops_integrations.run import Run

try:
    from keras import ops
    from keras.callbacks import Callback
except ModuleNotFoundError as error:
    if error.name != "keras":  # Keras is there, and says itself what it lacks
        raise
    raise ImportError('Keras is not installed: pip install "mlops-integrations[keras]"') from None

_counting: Final = threading.Lock()
"""Guards the number of batches, of which Keras tells in several threads at once. Not a callback's own: those pickle."""


class MLOpsCallback(Callback):  # type: ignore[misc]  # Keras has no types
    """Records what ``fit`` and ``evaluate`` tell their callbacks. One callback is one run, however often it is used.

    Args:
        run: an open run to record into, left open; instead of the keywords below.
        log_every_batch: record every training batch too. Keras gives the means since the epoch's begin.
        experiment_name: this and all that follow: see ``start_run``.
        experiment_id: instead of the name.
        run_name: left out, the script's name.
        tracking_uri: left out, ``MLFLOW_TRACKING_URI``; without it, recorded locally.
        resume: a run to go on with.
        parent: the run that this one belongs to.
        params: recorded beside those of the first ``fit``; Keras does not tell the batch size, so name it here.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" or "disabled".
        uploader: "process" or "thread".

    Raises:
        ValueError: ``run`` and keywords are both given, or one makes no sense.
    """

    async_safe: Final = True  # else Keras waits for the device after every batch

    def __init__(
        self,
        run: Run | None = None,
        *,
        log_every_batch: bool = False,
        experiment_name: str | None = None,
        experiment_id: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        resume: Run | str | None = None,
        parent: Run | str | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        directory: str | os.PathLike[str] | None = None,
        mode: str | None = None,
        uploader: str | None = None,
    ) -> None:
        options = keywords_of_start_run(locals())
        super().__init__()
        self._door = Door(run, options)
        self._log_every_batch = log_every_batch
        self._described = False
        self._fitting = False
        self._apart = False
        self._epochs = 0
        self._batches = 0
        self._first_batch = 0

    @property
    def run(self) -> Run:
        """The run; opened now if it was not yet."""
        return self._door.run

    def set_params(self, params: dict[str, Any]) -> None:
        """Keras prepares ``fit``, ``evaluate`` or ``predict``, but not the validation within ``fit``."""
        super().set_params(params)
        self._apart = True

    @guarded
    def on_train_begin(self, logs: Mapping[str, object] | None = None) -> None:
        """``fit`` begins; it may be another one, or the same again after it was interrupted."""
        self._fitting, self._apart = True, False
        self._door.began()
        if not self._described:
            self._described = True
            self.run.log_params(_params(self.model, self.params))

    @guarded
    def on_epoch_begin(self, epoch: int, logs: Mapping[str, object] | None = None) -> None:
        """Number the batches on from here."""
        self._door.began()  # again, if a callback has called ``evaluate`` in between
        self._first_batch = self._batches

    @guarded
    def on_train_batch_end(self, batch: int, logs: Mapping[str, object] | None = None) -> None:
        """Record a batch, if asked to; in any thread, in any order."""
        if self._log_every_batch and logs:
            step = self._first_batch + batch
            self.run.log_metrics({f"batch/{key}": value for key, value in logs.items()}, step)
            with _counting:
                self._batches = max(self._batches, step + 1)

    @guarded
    def on_epoch_end(self, epoch: int, logs: Mapping[str, object] | None = None) -> None:
        """Record an epoch by Keras' own number; a second ``fit``, counting from 0 again, goes on after the first."""
        step = max(epoch, self._epochs)
        self._epochs = step + 1
        self.run.log_metrics(logs or {}, step)
        if "learning_rate" not in (logs or {}):
            self.run.log_metrics(_learning_rate(self.model), step)

    @guarded
    def on_train_end(self, logs: Mapping[str, object] | None = None) -> None:
        """``fit`` has come to its end."""
        self._fitting = False
        self._door.ended()

    @guarded
    def on_test_begin(self, logs: Mapping[str, object] | None = None) -> None:
        """``evaluate`` begins, or the validation within ``fit``."""
        if self._apart or not self._fitting:
            self._door.began()

    @guarded
    def on_test_end(self, logs: Mapping[str, object] | None = None) -> None:
        """Record ``evaluate`` at the last epoch; the validation's values come with the epoch."""
        if self._apart or not self._fitting:
            self.run.log_metrics(
                {f"test_{key}": value for key, value in (logs or {}).items()}, max(self._epochs - 1, 0)
            )
            self._door.ended()
        self._apart = False

    def on_predict_end(self, logs: Mapping[str, object] | None = None) -> None:
        """Nothing to record."""
        self._apart = False


def _params(model: Any, fit: Mapping[str, object]) -> dict[str, object]:
    """The parameters of a training: of ``fit``, of the optimizer, the loss."""
    optimizer = model.optimizer
    config = {} if optimizer is None else {**optimizer.get_config(), "name": type(optimizer).__name__}
    params = {"epochs": fit.get("epochs"), "steps_per_epoch": fit.get("steps"), "loss": _name(model.loss)}
    params |= {f"optimizer/{key}": value for key, value in config.items()}
    return {key: value for key, value in params.items() if value is not None}


def _name(loss: Any) -> Any:
    if isinstance(loss, Mapping):
        return {key: _name(value) for key, value in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [_name(value) for value in loss]
    return loss if loss is None or isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def _learning_rate(model: Any) -> dict[str, float]:
    rate = getattr(model.optimizer, "learning_rate", None)
    return {} if rate is None else {"learning_rate": float(ops.convert_to_numpy(rate))}
