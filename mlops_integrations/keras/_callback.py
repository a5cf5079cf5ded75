"""Keras: ``model.fit(..., callbacks=[MLOpsCallback(experiment_name="digits")])``.

Records each epoch of ``fit`` by Keras' own names (``loss``, ``accuracy``, ``val_loss``, ``learning_rate``), on request
each batch (``batch/loss``), ``evaluate`` (``test_loss``), the parameters of ``compile`` and ``fit``, and the model's
summary as the artifact ``model_summary.txt``.

Keras does not report to its callbacks when ``fit`` or ``evaluate`` raises, nor the batch size. So these methods of
``keras.Model`` are wrapped, once, when the first callback is made: Keras' own method is called with its arguments, and
our callbacks in that call are notified of an exception, which makes the run FAILED. After Ctrl-C and ``sys.exit`` the
run stays open, since some users stop a training that way and go on: the end of the process, or of the notebook's cell,
decides.

If several processes train together (``RANK`` is set), only rank 0 records.
"""

# ruff: noqa: ARG002 - the arguments of hooks are Keras' own

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from keras import ops
from keras.callbacks import Callback

from mlops_integrations.config import launch
from mlops_integrations.framework_support.guard import guarded
from mlops_integrations.framework_support.run_handle import RunHandle, keywords_of_start_run, restored
from mlops_integrations.journal import ending
from mlops_integrations.keras import _model, _patches
from mlops_integrations.keras._patches import FitListener
from mlops_integrations.recording.run import Run

_lock: Final = threading.Lock()
"""Guards the batch count: Keras may call a callback from several threads. Not an attribute: callbacks are pickled."""


class MLOpsCallback(Callback, FitListener):  # type: ignore[misc]  # Keras has no types
    """Records ``fit`` and ``evaluate``. One callback is one run, however often it is used.

    Args:
        run: an open run to record into, left open; instead of the keywords below.
        log_every_batch: record every training batch too. Keras passes the means since the epoch's begin.
        experiment_name: this and all that follow: see ``start_run``.
        experiment_id: instead of the name.
        run_name: Default: the script's name.
        tracking_uri: the server's URI. Default: ``MLFLOW_TRACKING_URI``; without either, recorded locally.
        resume: a run to go on with.
        parent: the run that this one belongs to.
        params: recorded beside those of the first ``fit``.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" (record only) or "disabled". Default: ``MLOPS_MODE``, then "online".
        uploader: "process" or "thread". Default: ``MLOPS_UPLOADER``, then "process".

    Raises:
        TypeError: ``run`` is not a Run.
        ValueError: ``run`` and keywords are both given, or one makes no sense.

    Example:
        model.fit(x, y, callbacks=[MLOpsCallback(experiment_name="digits")])
    """

    async_safe: Final = True  # else Keras waits for the device after every batch
    _keeps_model = True
    """True if it still refers to the model when ``fit`` has ended, as Keras' callbacks do."""

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
        mode: Literal["online", "offline", "disabled"] | None = None,
        uploader: Literal["process", "thread"] | None = None,
    ) -> None:
        options = keywords_of_start_run(locals())
        super().__init__()
        if run is None and launch.rank() > 0:
            options["mode"] = "disabled"
        self._handle = RunHandle(run, options)
        self._given_params = frozenset(params or ())
        self._log_every_batch = log_every_batch
        self._of_fit: dict[str, object] = {}
        """The parameters of the ``fit`` that was called last."""
        self._described = False
        self._summarized = False
        self._trained: weakref.ref[Any] | None = None
        """The model that ``fit`` was called for last."""
        self._called = False
        self._failure: tuple[str, str | None] | None = None
        """Status and reason of a ``fit`` that raised an exception: a later ``evaluate`` does not change them."""
        self._fitting = False
        self._testing = False
        self._apart = False
        self._epochs = 0
        self._batches = 0
        self._first_batch = 0
        self._at_once = 1
        """Number of batches that Keras trains between two calls of the callback."""
        self._steps: int | None = None
        """Number of batches in an epoch, if Keras knows it."""
        _patches.watch(self)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_trained": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(restored(state))
        _patches.watch(self)

    @classmethod
    def _implicit(cls, **options: Any) -> MLOpsCallback:
        """Make the callback for autolog: it prefers the user's open run, and does not keep its model alive."""
        callback = cls(**options)
        callback._keeps_model = False
        callback._handle.borrow()
        return callback

    @property
    def run(self) -> Run:
        """The run; opened now if it was not yet."""
        return self._handle.run

    # -- calls and exceptions of fit and evaluate -----------------------------------------------------------------

    def _is_training(self, model: Any) -> bool:
        """True if the last ``fit`` of this model was called with this callback."""
        return self._called and self._trained is not None and self._trained() is model

    def _is_testing(self, model: Any) -> bool:
        """True while ``model.evaluate`` runs with this callback."""
        return self._testing and self._model is model

    @guarded
    def _fit_is_called(self, model: Any, arguments: Mapping[str, Any]) -> None:
        """Called when ``fit`` was called with this callback; an exception from here on is one of the training."""
        self.set_model(model)
        self._trained = weakref.ref(model)
        self._called, self._fitting, self._apart, self._failure = True, True, False, None
        self._handle.began()
        self._of_fit = _model.of_fit(arguments)

    @guarded
    def _fit_was_left(self, error: BaseException) -> None:
        """Called when ``fit`` has raised an exception."""
        self._called = self._fitting = self._testing = self._apart = False
        self._release()
        self._handle.began()  # if it has ended: another callback may raise after ours was told of the end
        self._handle.left(error)
        if isinstance(error, Exception):
            self._failure = ending.of_exception(error)

    def _fit_is_called_without(self) -> None:
        """Called when the model that this callback was used with is trained again, without it."""
        self._called = False

    @guarded
    def _evaluate_was_left(self, error: BaseException) -> None:
        """Called when ``evaluate`` has raised. Inside ``fit`` the error may be caught; if not, ``fit`` raises it."""
        self._testing = self._apart = False
        if not self._fitting:
            self._release()
            self._handle.left(error)

    # -- Keras' hooks ---------------------------------------------------------------------------------------------

    def set_params(self, params: dict[str, Any]) -> None:
        """Called by Keras before ``fit``, ``evaluate`` or ``predict``, but not before the validation within ``fit``."""
        super().set_params(params)
        self._apart = True

    @guarded
    def on_train_begin(self, logs: Mapping[str, object] | None = None) -> None:
        """``fit`` begins; it may be a further one, or the same again after it was interrupted."""
        self._trained = weakref.ref(self._model)
        self._called, self._fitting, self._apart = True, True, False
        self._handle.began()
        self._at_once = int(getattr(self._model, "steps_per_execution", None) or 1)
        told = getattr(self, "params", None) or {}  # not yet set in old versions
        self._steps = told.get("steps")
        if not self._described:
            self._described = True
            params = {"epochs": told.get("epochs"), "steps_per_epoch": told.get("steps"), **self._of_fit}
            params |= _model.of_model(self.model, _learning_rate(self.model))
            fresh = {key: value for key, value in params.items() if value is not None and key not in self._given_params}
            self.run.log_params(fresh)
        self._summarize()

    @guarded
    def on_epoch_begin(self, epoch: int, logs: Mapping[str, object] | None = None) -> None:
        """Number the epoch's batches on from the last one."""
        self._handle.began()  # again, if it was ended in between
        self._first_batch = self._batches

    @guarded
    def on_train_batch_end(self, batch: int, logs: Mapping[str, object] | None = None) -> None:
        """Record a batch, if asked to; in any thread, in any order."""
        if self._log_every_batch and logs:
            step = self._first_batch + self._last_of(batch)
            self.run.log_metrics({f"batch/{key}": value for key, value in logs.items()}, step)
            with _lock:
                self._batches = max(self._batches, step + 1)

    @guarded
    def on_epoch_end(self, epoch: int, logs: Mapping[str, object] | None = None) -> None:
        """Record an epoch at Keras' own number; a second ``fit``, counting from 0 again, continues after the first."""
        step = max(epoch, self._epochs)
        self._epochs = step + 1
        self.run.log_metrics(logs or {}, step)
        rate = _learning_rate(self.model)
        if "learning_rate" not in (logs or {}) and rate is not None:
            self.run.log_metrics({"learning_rate": rate}, step)
        self._summarize()

    @guarded
    def on_train_end(self, logs: Mapping[str, object] | None = None) -> None:
        """``fit`` has ended."""
        self._fitting = False
        self._release()
        self._handle.ended()

    @guarded
    def on_test_begin(self, logs: Mapping[str, object] | None = None) -> None:
        """``evaluate`` begins, or the validation within ``fit``."""
        if self._apart or not self._fitting:
            self._testing = True
            self._handle.began()

    @guarded
    def on_test_end(self, logs: Mapping[str, object] | None = None) -> None:
        """Record ``evaluate`` at the last epoch; the validation's values come with the epoch."""
        if self._apart or not self._fitting:
            self.run.log_metrics(
                {f"test_{key}": value for key, value in (logs or {}).items()}, max(self._epochs - 1, 0)
            )
            if not self._fitting:
                self._release()
                self._handle.ended(*(self._failure or ()))
        self._testing = self._apart = False

    def on_predict_end(self, logs: Mapping[str, object] | None = None) -> None:
        """Nothing to record."""
        self._apart = False

    # -- inside ---------------------------------------------------------------------------------------------------

    def _release(self) -> None:
        if not self._keeps_model:
            self.set_model(None)

    def _last_of(self, batch: int) -> int:
        """Return the last of the batches that were trained at once; some versions of Keras report the first of them."""
        if self._at_once > 1 and batch % self._at_once == 0:
            batch += self._at_once - 1
        return min(batch, self._steps - 1) if self._steps else batch

    def _summarize(self) -> None:
        """Keep the model's summary as soon as there is one: some models are built by their first batch."""
        if self._summarized or not self._model.built:
            return
        self._summarized = True
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "model_summary.txt")
            path.write_text(_model.summary(self._model), encoding="utf-8")
            self.run.log_artifact(path)


def _learning_rate(model: Any) -> float | None:
    """Return the current learning rate in the digits of its own precision: 0.002, not 0.0020000000949949026."""
    rate = getattr(model.optimizer, "learning_rate", None)
    return None if rate is None else float(str(ops.convert_to_numpy(rate)[()]))
