"""``MLOpsCallback``: adds the logger to a Trainer, and has checkpoints name their run."""

# ruff: noqa: ARG002 - the arguments of hooks are Lightning's own

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from mlops_integrations.framework_support.guard import guarded
from mlops_integrations.framework_support.run_handle import RunHandle, keywords_of_start_run, restored
from mlops_integrations.lightning import _base
from mlops_integrations.lightning._logger import MLOpsLogger
from mlops_integrations.recording.run import Run

logger: Final = logging.getLogger("mlops_integrations")

_KEY: Final = "mlops_integrations"
"""The key under which a checkpoint names its run."""


class MLOpsCallback(_base.Callback):  # type: ignore[misc]  # as above
    """Adds an MLOpsLogger to a Trainer, unless it has one, and makes ``fit(ckpt_path=...)`` go on with the same run.

    With a ``fast_dev_run`` or a barebones Trainer, which switch loggers off, it does nothing.

    Args:
        run: an open run to record into, left open; instead of the keywords of ``start_run`` below.
        logger: the logger to add; instead of everything else.
        log_model: this and all that follow: see MLOpsLogger.
        per_rank: record what each process logs.
        experiment_name: the experiment; created if the server has none.
        experiment_id: instead of the name.
        run_name: Default: the script's name.
        tracking_uri: the server's URI. Default: ``MLFLOW_TRACKING_URI``; without either, recorded locally.
        resume: a run to go on with, whatever a checkpoint says.
        parent: the run that this one belongs to.
        params: recorded beside the hyperparameters.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" (record only) or "disabled". Default: ``MLOPS_MODE``, then "online".
        uploader: "process" or "thread". Default: ``MLOPS_UPLOADER``, then "process".

    Raises:
        TypeError: ``logger`` is not an MLOpsLogger, or ``run`` not a Run.
        ValueError: ``logger`` or ``run`` is given together with an argument that it replaces.

    Example:
        Trainer(max_epochs=10, callbacks=[MLOpsCallback(experiment_name="digits")]).fit(model)
    """

    def __init__(
        self,
        run: Run | None = None,
        *,
        logger: MLOpsLogger | None = None,
        log_model: bool | Literal["all"] = False,
        per_rank: bool = False,
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
        options = keywords_of_start_run(locals()) | {"run": run}
        options |= {"log_model": log_model or None, "per_rank": per_rank or None}
        given = {name: value for name, value in options.items() if value is not None}
        super().__init__()
        if logger is not None and not isinstance(logger, MLOpsLogger):
            raise TypeError(f"logger= takes an MLOpsLogger, not {type(logger).__name__}")
        if logger is not None and given:
            raise ValueError(f"give logger= or what makes one, not both: {', '.join(sorted(given))}")
        self._logger = MLOpsLogger(**given) if logger is None else logger
        self._said = not given
        """True if no warning is due (any more) that another logger is there and the arguments given here are unused."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(restored(state))

    @classmethod
    def _implicit(cls, **options: Any) -> MLOpsCallback:
        """Make the callback for autolog: it prefers the user's open run, and gives way to another logger silently."""
        callback = cls(**options)
        callback._said = True
        callback._handle.borrow()
        return callback

    @property
    def run(self) -> Run:
        """The logger's run."""
        return self._logger.run

    @property
    def _handle(self) -> RunHandle:
        return self._logger._handle

    @guarded
    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Add our logger to the trainer, unless it has one of ours."""
        if _without_loggers(trainer):
            return
        ours = [each for each in trainer.loggers if isinstance(each, MLOpsLogger)]
        if not ours:
            trainer.loggers = [*trainer.loggers, self._logger]
        elif self._logger not in ours:
            self._logger = ours[0]
            if not self._said:
                text = "mlops: this Trainer already has an MLOpsLogger: the arguments of this %s are ignored. %s"
                logger.warning(text, type(self).__name__, "Remove one of the two")
                self._said = True
        if stage == "fit" and trainer.strategy.restore_checkpoint_after_setup:
            self._logger.hold()

    @guarded
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """``fit`` begins; most strategies have read the checkpoint by now."""
        if self._is_at_work(trainer) and not trainer.strategy.restore_checkpoint_after_setup:
            self._logger.begin(trainer)

    @guarded
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Training begins; all strategies have read the checkpoint by now."""
        if self._is_at_work(trainer):
            self._logger.begin(trainer)

    @guarded
    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Store the run's ids in the checkpoint."""
        if self._is_at_work(trainer) and self._logger.records:
            checkpoint[_KEY] = {"uid": self.run.uid, "run_id": self.run.run_id}

    @guarded
    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Resume the run that the checkpoint names. Called in each process, with the same checkpoint."""
        named = checkpoint.get(_KEY)
        if named is None or not self._is_at_work(trainer):
            return
        moved = trainer.strategy.broadcast(self._resumed(named) if self._logger.records else [])
        # Lightning chose where to save before it read the checkpoint: in the directory of another run.
        for saver in trainer.checkpoint_callbacks:
            saver.dirpath = _moved(getattr(saver, "dirpath", None), moved)

    def _resumed(self, named: Mapping[str, Any]) -> list[tuple[str, str]]:
        try:
            return self._logger.resume(named["uid"], named.get("run_id"))
        except Exception as error:  # the other processes wait for the result
            self._handle.swallow(error)
            return []

    @guarded
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Finalize our logger if the trainer does not: it failed before (or in a process where) it got the logger."""
        if not self._is_at_work(trainer) and not _without_loggers(trainer):
            ours = [each for each in trainer.loggers if isinstance(each, MLOpsLogger)]
            if not ours:
                self._logger.finalize("failed")

    def _is_at_work(self, trainer: Any) -> bool:
        return any(each is self._logger for each in trainer.loggers)


def _without_loggers(trainer: Any) -> bool:
    return bool(trainer.fast_dev_run or trainer.barebones)


def _moved(path: Any, moved: list[tuple[str, str]]) -> Any:
    """Return a path with its moved directory replaced; any other path as it is."""
    for before, after in moved:
        if path is not None and Path(path).is_relative_to(before):
            return str(Path(after) / Path(path).relative_to(before))
    return path
