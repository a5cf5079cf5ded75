"""The Lightning door: ``Trainer(logger=MLOpsLogger(experiment_name="digits"))``.

Records what modules log, by their names and Lightning's steps, their hyperparameters, and how the training ended: a
Logger is told of exceptions, Ctrl-C and SIGTERM too. Works with ``lightning`` and with ``pytorch_lightning``.
"""

# ruff: noqa: ARG002 - the arguments of hooks are Lightning's own

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from mlops_integrations import settings
from mlops_integrations.door import Door, guarded, keywords_of_start_run
from mlops_integrations.run import Run

try:
    from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
    from lightning.pytorch.utilities.rank_zero import rank_zero_only
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "lightning":  # Lightning is there, and says itself what it lacks
        raise
    try:
        from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
        from pytorch_lightning.utilities.rank_zero import rank_zero_only
    except ModuleNotFoundError as other:
        if (other.name or "").partition(".")[0] != "pytorch_lightning":
            raise
        raise ImportError('Lightning is not installed: pip install "mlops-integrations[lightning]"') from None

Hook = TypeVar("Hook", bound=Callable[..., None])


def _hook(method: Hook) -> Hook:
    return cast("Hook", rank_zero_only(guarded(method)))


class MLOpsLogger(Logger):  # type: ignore[misc]  # our type checks run without Lightning
    """Records a Trainer's metrics and hyperparameters. One logger is one run: ``fit``, then ``test``, is one run.

    Checkpoints go into the run directory, unless ``ModelCheckpoint(dirpath=...)`` says otherwise.

    Args:
        run: an open run to record into, left open; instead of the keywords below.
        experiment_name: this and all that follow: see ``start_run``.
        experiment_id: instead of the name.
        run_name: left out, the script's name.
        tracking_uri: left out, ``MLFLOW_TRACKING_URI``; without it, recorded locally.
        resume: a run to go on with.
        parent: the run that this one belongs to.
        params: recorded beside the hyperparameters.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" or "disabled".
        uploader: "process" or "thread".

    Raises:
        ValueError: ``run`` and keywords are both given, or one makes no sense.
    """

    def __init__(
        self,
        run: Run | None = None,
        *,
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

    @property
    def run(self) -> Run:
        """The run; opened now if it was not yet."""
        return self._door.run

    @property
    @rank_zero_experiment  # type: ignore[untyped-decorator]
    def experiment(self) -> Run:
        """The run; on another rank than zero, something that does nothing."""
        return self.run

    @property
    def name(self) -> str | None:
        """The run's name. This, ``version`` and ``save_dir`` are None or vague on ranks that Lightning does not ask."""
        return self.run.name if rank_zero_only.rank == 0 else None

    @property
    def version(self) -> str | None:
        """Our own id of the run."""
        return self.run.uid if rank_zero_only.rank == 0 else None

    @property
    def save_dir(self) -> str:
        """The run directory, where checkpoints and configurations go."""
        return str(self.run.directory if rank_zero_only.rank == 0 else settings.default_root())

    @_hook
    def log_metrics(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Record values at Lightning's step."""
        self.run.log_metrics(metrics, step)

    @_hook
    def log_hyperparams(self, params: Mapping[str, object] | Namespace | None, *args: Any, **kwargs: Any) -> None:
        """Record hyperparameters; those that are known already are no news."""
        given = dict(vars(params) if isinstance(params, Namespace) else params or {})
        given.pop("_instantiator", None)  # LightningCLI's own
        self.run.log_params(given)

    @_hook
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """``fit``, ``validate``, ``test`` or ``predict`` begins. The graph itself is not recorded."""
        self._door.began()

    def save(self) -> None:
        """Nothing: Lightning calls this after every step, and everything is on disk already."""

    @_hook
    def finalize(self, status: str) -> None:
        """``fit``, ``validate``, ``test`` or ``predict`` has ended, which need not be the run's end."""
        error = sys.exc_info()[1]  # Lightning calls this while it handles what has ended the training
        if status == "finished":  # SLURM takes the job back into its queue, to go on with it later
            self.run.set_tag("mlops.requeued", "true")
            return
        self._door.began()  # unless it has: what ends before its begin was told re-opens the run to say so
        if status == "success":
            self._door.ended()
        elif error is None:
            self._door.ended("FAILED")
        elif type(error).__name__ == "SIGTERMException":  # of either package; the process will exit with code 0
            self._door.ended("KILLED", "SIGTERM")
        else:
            self._door.failed(error)
