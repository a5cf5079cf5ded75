"""``mlops.autolog()``: the same integrations, added without touching the script.

Each framework is recorded through its own extension point, if it has one:

* Lightning: entry points, which it asks for callbacks whenever it makes a Trainer or a Fabric. ``MLOPS_AUTOLOG=1`` is
  enough there. Fabric passes itself to a callback in ``setup``; from then on ``fabric.log`` is recorded.
* Transformers: a callback in each new Trainer. There is no way to add one, so ``Trainer.__init__`` is wrapped.
* Accelerate: a tracker for ``init_trackers``, which is wrapped for the same reason.
* Keras: a callback for each ``fit``, which is wrapped, and for ``evaluate`` of a model that was recorded before, or
  while a run of the user's is open.

Wrapping (see ``patching``) happens when the framework is imported; ``autolog(disable=True)`` undoes it. The user's
own lists are not changed, and where an integration of ours is there already, nothing is added.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final

from mlops_integrations.autologging import import_hook
from mlops_integrations.config import settings
from mlops_integrations.recording import start

logger: Final = logging.getLogger("mlops_integrations")

FRAMEWORKS: Final = ("accelerate", "keras", "lightning", "transformers")

_lock: Final = threading.Lock()
_options: Final[dict[str, dict[str, Any]]] = {}
"""Keywords of ``start_run`` for each framework that is switched on."""

_asked: Final[set[str]] = set()
"""The frameworks that ``autolog()`` was called for, to switch them on or off."""

AWAITED: Final = {"accelerate": "accelerate.accelerator", "keras": "keras", "transformers": "transformers.trainer"}
"""For each framework, the module whose import is awaited; Lightning calls our entry points instead."""


def autolog(*, disable: bool = False, frameworks: Iterable[str] | None = None, **options: Any) -> None:
    """Record every training of these frameworks from now on, with no other change to the script.

    May be called before or after the frameworks are imported, and again: the last call's keywords count. Each Trainer
    and each model is a run of its own. If a run of ``start_run`` is open, trainings are recorded there instead.

    Args:
        disable: switch it off again; trainings under way are recorded to their end.
        frameworks: "accelerate", "keras", "lightning", "transformers". Default: all that are installed.
        options: keywords of ``start_run``, for the runs that are made.

    Raises:
        ValueError: there is no such framework, or a keyword makes no sense.

    Example:
        mlops_integrations.autolog(experiment_name="digits")
    """
    chosen = _chosen(frameworks)
    start.check({name: value for name, value in options.items() if value is not None})
    for name in chosen:
        with _lock:  # not held during an import, which may wait for other threads that import
            _asked.add(name)
            _options.pop(name, None)
            if not disable:
                _options[name] = dict(options)
        if disable:
            _switch_off(name)
        else:
            _switch_on(name)


def _chosen(frameworks: Iterable[str] | None) -> list[str]:
    if frameworks is None:
        return list(FRAMEWORKS)
    names = [frameworks] if isinstance(frameworks, str) else list(frameworks)
    unknown = [name for name in names if name not in FRAMEWORKS]
    if unknown:
        raise ValueError(f"autolog(frameworks=...): there is no {unknown[0]!r}: {', '.join(map(repr, FRAMEWORKS))}")
    return names


def _switch_on(name: str) -> None:
    """Have a framework's integration wrap its methods as soon as the framework is imported."""
    if name in AWAITED:
        import_hook.when_imported(AWAITED[name], functools.partial(_framework_is_there, name))
    elif not _has_entry_point():
        text = "mlops: Lightning is not recorded by autolog(), for mlops-integrations runs without being installed: %s"
        logger.warning(text, "install it with pip, or give MLOpsCallback() to the Trainer")


def _framework_is_there(name: str) -> None:
    integration = importlib.import_module(f"mlops_integrations.{name}._autolog")
    if name in _options:  # it may be off again by now
        integration.switch_on(_options[name])


def _switch_off(name: str) -> None:
    """Restore the framework's methods."""
    if name in AWAITED:
        import_hook.forget(AWAITED[name])
    integration = sys.modules.get(f"mlops_integrations.{name}._autolog")
    if integration is not None and name in AWAITED:
        integration.switch_off()


def _has_entry_point() -> bool:
    """True if Lightning finds our entry point, or is not installed."""
    if not (_is_installed("lightning") or _is_installed("pytorch_lightning")):
        return True
    group = importlib.metadata.entry_points(group="lightning.pytorch.callbacks_factory")
    return any(entry.value.startswith("mlops_integrations.") for entry in group)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # ``sys.modules`` has a module of that name without a spec
        return False


def lightning_options() -> dict[str, Any] | None:
    """Return the keywords given to ``autolog()`` for Lightning; None if that is not to be recorded."""
    with _lock:
        if "lightning" in _options:
            return _options["lightning"]
        wanted = "lightning" not in _asked and settings.is_true("MLOPS_AUTOLOG")
        return {} if wanted else None
