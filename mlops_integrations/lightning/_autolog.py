"""Autologging of Lightning: what its entry points give to each new Trainer and Fabric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlops_integrations.lightning._callback import MLOpsCallback
from mlops_integrations.lightning._logger import MLOpsLogger


def trainer_callback(options: Mapping[str, Any]) -> MLOpsCallback:
    """The callback that records a Trainer.

    Args:
        options: keywords of ``start_run``.
    """
    return MLOpsCallback._implicit(**options)


def fabric_callback(options: Mapping[str, Any]) -> _FabricCallback:
    """The callback that records a Fabric.

    Args:
        options: keywords of ``start_run``.
    """
    return _FabricCallback(options)


class _FabricCallback:
    """Gives a Fabric a logger of ours, unless it has one. Fabric tells of itself in ``setup``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def on_after_setup(self, fabric: Any, **_: Any) -> None:
        """A module has been set up; there may be several."""
        loggers = getattr(fabric, "_loggers", None)  # nothing public takes another one
        if loggers is not None and not any(isinstance(each, MLOpsLogger) for each in loggers):
            fabric._loggers = [*loggers, MLOpsLogger._implicit(**self._options)]
