"""Training metrics, recorded crash-safe and delivered to any MLflow-compatible tracking server.

``import mlops_integrations as mlops``: ``mlops.start_run``, ``mlops.active_run``, ``mlops.Run``, ``mlops.autolog``,
``mlops.TrackingClient``, ``mlops.entities``, ``mlops.errors``.
The integrations are packages of their own, imported by name: ``mlops_integrations.keras`` and so on.
Nothing is imported before it is used: neither a framework nor ``requests``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__path__ = [*__path__, f"{__path__[0]}/old_names"]  # where classes were when earlier versions pickled them

if TYPE_CHECKING:
    from mlops_integrations import entities, errors
    from mlops_integrations.autologging.switch import autolog as autolog
    from mlops_integrations.client import TrackingClient
    from mlops_integrations.recording.active_runs import active_run
    from mlops_integrations.recording.run import Run
    from mlops_integrations.recording.start import start_run

    __version__: str

__all__ = ["Run", "TrackingClient", "__version__", "active_run", "autolog", "entities", "errors", "start_run"]

_HOMES = {
    "Run": ("recording.run", "Run"),
    "__version__": ("version", "VERSION"),
    "active_run": ("recording.active_runs", "active_run"),
    "autolog": ("autologging.switch", "autolog"),
    "TrackingClient": ("client", "TrackingClient"),
    "entities": ("entities", None),
    "errors": ("errors", None),
    "start_run": ("recording.start", "start_run"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, attribute = _HOMES[name]
    module = importlib.import_module(f"{__name__}.{module_name}")
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
