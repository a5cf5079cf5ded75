"""Autologging of Lightning: the callbacks that our entry points add to each new Trainer and Fabric."""

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
    """Adds a logger of ours to a Fabric, unless it has one. Fabric passes itself to the callback in ``setup``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options

    def on_after_setup(self, fabric: Any, **_: Any) -> None:
        """Add the logger after a module has been set up; there may be several modules."""
        loggers = getattr(fabric, "_loggers", None)  # the public API can't add one
        if loggers is not None and not any(isinstance(each, MLOpsLogger) for each in loggers):
            fabric._loggers = [*loggers, MLOpsLogger._implicit(**self._options)]
