"""Autologging of Accelerate: wraps ``init_trackers`` to add a tracker, since there is no other way to add one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from accelerate.accelerator import Accelerator  # the package itself may be in the middle of its import

from mlops_integrations.accelerate._tracker import MLOpsTracker
from mlops_integrations.framework_support import patching

_options: Final[dict[str, Any]] = {}
"""Keywords of ``start_run``."""


def switch_on(options: Mapping[str, Any]) -> None:
    """Record each Accelerator that calls ``init_trackers`` from now on, with these keywords of ``start_run``."""
    _options.clear()
    _options.update(options)
    patching.wrap_method(Accelerator, "init_trackers", before=_before_init_trackers)


def switch_off() -> None:
    """Restore ``Accelerator.init_trackers``."""
    patching.unwrap_method(Accelerator, "init_trackers", before=_before_init_trackers)


def _before_init_trackers(accelerator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add our tracker to those that are about to start, unless it is among them."""
    trackers = accelerator.log_with
    if not any(isinstance(each, MLOpsTracker) or str(each) == MLOpsTracker.name for each in trackers):
        project = kwargs.get("project_name", args[0] if args else None)
        accelerator.log_with = [*trackers, MLOpsTracker._implicit(project, **_options)]
    return args, kwargs
