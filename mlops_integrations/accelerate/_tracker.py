"""Accelerate: ``Accelerator(log_with=MLOpsTracker(experiment_name="digits"))``.

Where accelerate has a register of trackers (1.15 has, 1.3 has not), ``Accelerator(log_with="mlops")`` works too, once
this module is imported; then the project name of ``init_trackers`` is the experiment's name, as with accelerate's own
MLflow tracker. A tracker that the script makes does not get that name. Only the main process records.

``end_training()`` ends the run. Accelerate reports no other end, and many scripts omit that call; without it the run
ends as its process does: FINISHED, FAILED or KILLED.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from mlops_integrations.config import launch, settings
from mlops_integrations.framework_support.guard import guarded
from mlops_integrations.framework_support.run_handle import RunHandle, keywords_of_start_run, restored
from mlops_integrations.recording.run import Run
from mlops_integrations.recording.start import start_run

try:
    from accelerate import tracking
    from accelerate.tracking import GeneralTracker, on_main_process
except ModuleNotFoundError as error:
    if error.name != "accelerate":  # accelerate is installed, and its own error says what is missing
        raise
    raise ImportError("accelerate is not installed: pip install accelerate") from None


class MLOpsTracker(GeneralTracker):  # type: ignore[misc]  # our type checks run without accelerate
    """Records the values of ``accelerator.log`` and the configuration of ``init_trackers``. One tracker is one run.

    Args:
        project_name: the experiment's name, where neither a keyword nor the environment gives one; it comes from
            ``init_trackers`` if the tracker is chosen by its name.
        run: an open run to record into, left open; instead of the keywords below.
        experiment_name: this and all that follow: see ``start_run``.
        experiment_id: instead of the name.
        run_name: Default: the script's name.
        tracking_uri: the server's URI. Default: ``MLFLOW_TRACKING_URI``; without either, recorded locally.
        resume: a run to go on with.
        parent: the run that this one belongs to.
        params: recorded beside the configuration.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" (record only) or "disabled". Default: ``MLOPS_MODE``, then "online".
        uploader: "process" or "thread". Default: ``MLOPS_UPLOADER``, then "process".

    Raises:
        TypeError: ``run`` is not a Run.
        ValueError: ``run`` and keywords are both given, or one makes no sense.

    Example:
        accelerator = Accelerator(log_with=MLOpsTracker(experiment_name="digits"))
        accelerator.init_trackers("digits", config={"lr": 0.1})
        accelerator.log({"loss": 0.5}, step=1)
        accelerator.end_training()
    """

    name: Final = "mlops"
    requires_logging_directory: Final = False
    main_process_only: Final = True

    def __init__(
        self,
        project_name: str | None = None,
        *,
        run: Run | None = None,
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
        self._handle = RunHandle(run, options)
        known = settings.from_arguments(experiment_name=experiment_name, experiment_id=experiment_id)
        if known.experiment_name is None and known.experiment_id is None:
            self._handle.keep(experiment_name=project_name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(restored(state))

    @classmethod
    def _implicit(cls, project_name: str | None, **options: Any) -> MLOpsTracker:
        """Make the tracker for autolog: it prefers the user's open run."""
        tracker = cls(project_name, **options)
        tracker._handle.borrow()
        return tracker

    @property
    def run(self) -> Run:
        """The run, opened now if it was not yet; in other processes than the main one, a run that records nothing."""
        return self._handle.run if launch.rank() == 0 else start_run(mode="disabled")

    @property
    def tracker(self) -> Run:
        """The run, as ``accelerator.get_tracker("mlops", unwrap=True)`` gives it."""
        return self.run

    @on_main_process  # type: ignore[untyped-decorator]
    @guarded
    def start(self) -> None:
        """Begin the run in ``init_trackers``. Older versions of accelerate do not call this: the first record does."""
        self._handle.run  # noqa: B018 - opens it

    @on_main_process  # type: ignore[untyped-decorator]
    @guarded
    def store_init_configuration(self, values: Mapping[str, object]) -> None:
        """Record the configuration of ``init_trackers`` as parameters."""
        self._handle.run.log_params(values)

    @on_main_process  # type: ignore[untyped-decorator]
    @guarded
    def log(self, values: Mapping[str, object], step: int | None = None, **_: Any) -> None:
        """Record numbers, and tensors of one element; without a step, each key has its own count."""
        self._handle.run.log_metrics(values, step)

    @on_main_process  # type: ignore[untyped-decorator]
    @guarded
    def finish(self) -> None:
        """End the run in ``end_training``, without waiting."""
        self._handle.ended()


def _register() -> None:
    register = getattr(tracking, "register_tracker_class", None)
    if register is not None:
        register(MLOpsTracker)


_register()
