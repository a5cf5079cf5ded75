"""Lightning: ``Trainer(logger=MLOpsLogger(experiment_name="digits"))``.

``MLOpsLogger`` records the metrics of modules, by their names and Lightning's steps, hyperparameters, on request
checkpoints, and how the training ended: a Logger is notified of exceptions, Ctrl-C and SIGTERM too. ``MLOpsCallback``
adds such a logger to a Trainer, and has checkpoints name their run, so that ``fit(ckpt_path=...)`` resumes it.

The classes work with ``lightning``, ``pytorch_lightning``, or both: see ``_base``.
"""

# ruff: noqa: ARG002 - the arguments of hooks are Lightning's own

from __future__ import annotations

import copy
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from mlops_integrations.framework_support import lenient_start
from mlops_integrations.framework_support.guard import guarded, hook
from mlops_integrations.framework_support.run_handle import RunHandle, keywords_of_start_run, restored
from mlops_integrations.lightning import _base, _checkpoints, _hyperparameters
from mlops_integrations.lightning._checkpoints import CheckpointRecorder
from mlops_integrations.recording.run import Run
from mlops_integrations.recording.run_setup import new_uid

logger: Final = logging.getLogger("mlops_integrations")


_hook: Final = hook(lambda self, *_, **__: self.records)


class MLOpsLogger(_base.Logger):  # type: ignore[misc]  # our type checks run without Lightning
    """Records a Trainer's metrics and hyperparameters. One logger is one run: ``fit``, then ``test``, is one run.

    Checkpoints go into the run directory, unless ``ModelCheckpoint(dirpath=...)`` says otherwise.

    Args:
        run: an open run to record into, left open; instead of the keywords of ``start_run`` below.
        log_model: record checkpoints as artifacts, below "checkpoints". "all": each one when it is saved; True: those
            that are left at the end of ``fit``. Tags ``mlops.checkpoints.best``, ``.latest``, ``.scores`` tell which.
        per_rank: record what each process logs, not just rank 0; names from rank n are prefixed "rank{n}/".
        experiment_name: this and all that follow: see ``start_run``.
        experiment_id: instead of the name.
        run_name: Default: the script's name.
        tracking_uri: the server's URI. Default: ``MLFLOW_TRACKING_URI``; without either, recorded locally.
        resume: a run to go on with.
        parent: the run that this one belongs to.
        params: recorded beside the hyperparameters.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" (record only) or "disabled". Default: ``MLOPS_MODE``, then "online".
        uploader: "process" or "thread". Default: ``MLOPS_UPLOADER``, then "process".

    Raises:
        TypeError: ``run`` is not a Run.
        ValueError: ``run`` and keywords of ``start_run`` are both given, or a value makes no sense.

    Example:
        Trainer(max_epochs=10, logger=MLOpsLogger(experiment_name="digits", log_model=True)).fit(model)
    """

    def __init__(
        self,
        run: Run | None = None,
        *,
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
        options = keywords_of_start_run(locals())
        super().__init__()
        if log_model not in (False, True, "all"):
            raise ValueError(f'log_model={log_model!r}: use False, True or "all"')
        self._handle = RunHandle(run, options)
        self._fits = False
        self._failure: tuple[str, str | None] | None = None
        self._log_model = log_model
        self._per_rank = per_rank
        self._shared = False
        self._nowhere: Run | None = None
        self._held: list[dict[str, Any]] | None = None
        """Hyperparameters that came before it is known which run they belong to."""
        self._checkpoints = CheckpointRecorder()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_checkpoints": copy.copy(self._checkpoints)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(_checkpoints.with_recorder(restored(state)))

    @classmethod
    def _implicit(cls, **options: Any) -> MLOpsLogger:
        """Make the logger for autolog: it prefers the user's open run."""
        made = cls(**options)
        made._handle.borrow()
        return made

    @property
    def records(self) -> bool:
        """True if this process records: rank 0, and with ``per_rank`` the others once they train."""
        return _base.rank() == 0 or self._shared

    @property
    def run(self) -> Run:
        """The run, which begins with its first record; in a process that does not record, a disabled run."""
        return self._handle.prepared if self.records else self._no_run()

    @property
    def experiment(self) -> Run:
        """The run; on ranks above 0 a disabled one, so that values logged through it are recorded once."""
        return self.run if _base.rank() == 0 else self._no_run()

    @property
    def name(self) -> str | None:
        """The run's name; None in processes that do not record. Part of the path of checkpoints, as is ``version``."""
        return self.run.name if self.records else None

    @property
    def version(self) -> str | None:
        """Our own id of the run."""
        return self.run.uid if self.records else None

    @property
    def save_dir(self) -> str:
        """The run directory, where checkpoints and configurations go."""
        return str(self.run.directory)

    @property
    def log_dir(self) -> str:
        """The run directory, as ``save_dir``."""
        return self.save_dir

    @_hook
    def log_metrics(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Record values at Lightning's step."""
        rank = _base.rank()
        named = {f"rank{rank}/{name}": value for name, value in metrics.items()} if rank else metrics
        self._handle.run.log_metrics(named, step)

    @_hook
    def log_hyperparams(self, params: Mapping[str, object] | Namespace | None, *args: Any, **kwargs: Any) -> None:
        """Record hyperparameters; those that are recorded already are ignored."""
        if _base.rank() == 0:
            given = _hyperparameters.plain(params)
            if self._held is None:
                self._handle.run.log_params(given)
            else:
                self._held.append(given)

    @guarded
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """``fit``, ``validate``, ``test`` or ``predict`` begins. The graph itself is not recorded."""
        if self._held is None:
            self.begin(getattr(model, "trainer", None))

    def save(self) -> None:
        """Do nothing: Lightning calls this after every step, and everything is on disk already."""

    @_hook
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """A ModelCheckpoint has saved: record it now (``log_model="all"``), or at the end."""
        if self._log_model is not False:
            self._checkpoints.saved(checkpoint_callback)
        if self._log_model == "all":
            self._checkpoints.record(self._handle.run)

    @_hook
    def finalize(self, status: str) -> None:
        """``fit``, ``validate``, ``test`` or ``predict`` has ended, which need not be the run's end."""
        error = sys.exc_info()[1]  # Lightning calls this while it handles the exception that ended the training
        if status == "finished":  # SLURM takes the job back into its queue, to go on with it later
            self._handle.requeued()
            return
        self._release()
        self._handle.began()  # if it has not: a failure before the begin re-opens the run to record it
        self._checkpoints.record(self._handle.run)
        outcome = _base.ending_of(status, error)
        if self._fits:
            self._failure = outcome if outcome[0] == "FAILED" else None
        elif outcome[0] == "FINISHED" and self._failure is not None:
            outcome = self._failure  # a successful test does not change a failed training
        self._handle.ended(*outcome)

    # -- for the callback -----------------------------------------------------------------------------------------

    def begin(self, trainer: Any) -> None:
        """Begin the run; called in every process of this trainer."""
        if self._per_rank and not self._shared:
            self._shared = True
            self._handle.share(_base.rank(), trainer.strategy.broadcast)
        if self.records:
            self._fits = getattr(getattr(trainer, "state", None), "fn", None) == "fit"
            self._release()
            self._handle.began()

    def hold(self) -> None:
        """Keep hyperparameters until the run begins: a checkpoint that is read later may name the run to resume."""
        self._held = self._held or []

    def resume(self, uid: str, run_id: str | None) -> list[tuple[str, str]]:
        """Resume this run, if none has begun; return pairs of old and new paths, the longer ones first."""
        before = self._places()
        self._handle.resume(uid, run_id)
        return [pair for pair in zip(before, self._places(), strict=True) if pair[0] != pair[1]]

    def _places(self) -> list[str]:
        """Return the directories of this run's files from Lightning: that of checkpoints, and that of all else."""
        return [str(Path(self.save_dir, str(self.name), str(self.version))), self.save_dir]

    def _no_run(self) -> Run:
        if self._nowhere is None:
            self._nowhere = lenient_start.prepare({"mode": "disabled"}, new_uid())
        return self._nowhere

    def _release(self) -> None:
        held, self._held = self._held, None
        for params in held or ():
            self._handle.run.log_params(params)
