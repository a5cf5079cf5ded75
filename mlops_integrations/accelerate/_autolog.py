"""Autologging of Accelerate: a tracker for ``init_trackers``, which is wrapped, since nothing lets others add one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from accelerate.accelerator import Accelerator  # the package itself may be in the middle of its import

from mlops_integrations.accelerate._tracker import MLOpsTracker
from mlops_integrations.framework_support import patching

_options: Final[dict[str, Any]] = {}
"""Keywords of ``start_run``."""


def switch_on(options: Mapping[str, Any]) -> None:
    """Record each Accelerator whose trackers are begun from now on, by these keywords of ``start_run``."""
    _options.clear()
    _options.update(options)
    patching.wrap_method(Accelerator, "init_trackers", before=_before_init_trackers)


def switch_off() -> None:
    """Have ``Accelerator.init_trackers`` be as it was."""
    patching.unwrap_method(Accelerator, "init_trackers", before=_before_init_trackers)


def _before_init_trackers(accelerator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add a tracker to those that are about to be begun."""
    trackers = accelerator.log_with
    if not any(isinstance(each, MLOpsTracker) or str(each) == MLOpsTracker.name for each in trackers):
        project = kwargs.get("project_name", args[0] if args else None)
        accelerator.log_with = [*trackers, MLOpsTracker._implicit(project, **_options)]
    return args, kwargs
