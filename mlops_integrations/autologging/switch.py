"""``mlops.autolog()``: the same doors, opened without touching the script.

Each framework is recorded through what it offers for that, as far as it does:

* Lightning: entry points, which it asks for callbacks whenever it makes a Trainer or a Fabric. ``MLOPS_AUTOLOG=1`` is
  enough there. Fabric tells a callback of itself in ``setup``; from there on ``fabric.log`` is recorded.
* Transformers: a callback in each new Trainer. Nothing lets others add one, so ``Trainer.__init__`` is wrapped.
* Accelerate: a tracker for ``init_trackers``, which is wrapped likewise.
* Keras: a callback for each ``fit``, which is wrapped, and for ``evaluate`` of a model that was recorded before.

Wrapping (see ``seams``) happens when the framework is imported, and is undone by ``autolog(disable=True)``. The user's
own lists are not changed, and where a door of ours is there already, nothing is added.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from mlops_integrations.autologging import import_hook
from mlops_integrations.config import settings
from mlops_integrations.framework_support import patching
from mlops_integrations.recording import start

logger: Final = logging.getLogger("mlops_integrations")

FRAMEWORKS: Final = ("accelerate", "keras", "lightning", "transformers")

_lock: Final = threading.Lock()
_options: Final[dict[str, dict[str, Any]]] = {}
"""Keywords of ``start_run``, by framework that is on."""

_asked: Final[set[str]] = set()
"""The frameworks that ``autolog()`` was called for, be it to switch them off."""

_models: Final[weakref.WeakKeyDictionary[Any, Any]] = weakref.WeakKeyDictionary()
"""The callbacks of Keras models."""


def autolog(*, disable: bool = False, frameworks: Iterable[str] | None = None, **options: Any) -> None:
    """Record every training of these frameworks from now on, with no other change to the script.

    May be called before or after the frameworks are imported, and again: the last call's keywords count. Each Trainer
    and each model is a run of its own. If a run is open that ``start_run`` has made, it is recorded there instead.

    Args:
        disable: switch it off again; trainings that go on are recorded to their end.
        frameworks: "accelerate", "keras", "lightning", "transformers"; left out, all that are installed.
        options: keywords of ``start_run``, for the runs that are made.

    Raises:
        ValueError: there is no such framework, or a keyword makes no sense.
    """
    chosen = _chosen(frameworks)
    start.check({name: value for name, value in options.items() if value is not None})
    for name in chosen:
        with _lock:  # and not while anything is imported, which waits for other threads that import
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
    """Wrap a framework's methods as soon as it is there."""
    if _SEAMS[name]:
        import_hook.when_imported(_SEAMS[name][0].module, functools.partial(_wrap, name))
    elif not _has_entry_point():
        text = "mlops: Lightning is not recorded by autolog(), for mlops-integrations runs without being installed: %s"
        logger.warning(text, "install it with pip, or give MLOpsCallback() to the Trainer")


def _wrap(name: str) -> None:
    importlib.import_module(f"mlops_integrations.{name}")  # makes us known by name, where there is a register
    for seam in _SEAMS[name] if name in _options else ():
        patching.wrap(getattr(sys.modules[seam.module], seam.owner), seam.method, before=seam.before)


def _switch_off(name: str) -> None:
    """Have its methods be as they were."""
    for seam in _SEAMS[name]:
        import_hook.forget(seam.module)
        owner = getattr(sys.modules.get(seam.module), seam.owner, None)
        if owner is not None:
            patching.unwrap(owner, seam.method, before=seam.before)
    if name == "keras" and _models:
        from mlops_integrations import keras as door

        door.unwatch(_models.values())
        _models.clear()


def _has_entry_point() -> bool:
    """Whether Lightning, if it is there, finds us."""
    if not (_is_installed("lightning") or _is_installed("pytorch_lightning")):
        return True
    group = importlib.metadata.entry_points(group="lightning.pytorch.callbacks_factory")
    return any(entry.value.startswith("mlops_integrations.") for entry in group)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # there is something of that name which was not imported
        return False


# -- Lightning -----------------------------------------------------------------------------------------------------


def _lightning_options() -> dict[str, Any] | None:
    """What ``autolog()`` was given for Lightning; None, if it is not to be recorded."""
    with _lock:
        if "lightning" in _options:
            return _options["lightning"]
        wanted = "lightning" not in _asked and settings.is_true("MLOPS_AUTOLOG")
        return {} if wanted else None


def callback_for_trainer() -> Any:
    """What records a Lightning Trainer, which asks for it by an entry point; None, if it is not to be."""
    options = _lightning_options()
    if options is None:
        return None
    from mlops_integrations import lightning as door

    callback = door.MLOpsCallback(**options)
    callback._said = True  # nobody has asked for this one by name: where another logger is, it gives way untold
    callback._door.borrow()
    return callback


class _FabricCallback:
    """Gives a Fabric a logger of ours, unless it has one. Fabric tells of itself in ``setup``."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    def on_after_setup(self, fabric: Any, **_: Any) -> None:
        """A module has been set up; there may be several."""
        from mlops_integrations import lightning as door

        loggers = getattr(fabric, "_loggers", None)  # nothing public takes another one
        if loggers is None or any(isinstance(each, door.MLOpsLogger) for each in loggers):
            return
        ours = door.MLOpsLogger(**self._options)
        ours._door.borrow()
        fabric._loggers = [*loggers, ours]


def callback_for_fabric() -> Any:
    """What records a Fabric, which asks for it by an entry point; None, if it is not to be."""
    options = _lightning_options()
    return None if options is None else _FabricCallback(options)


# -- Transformers --------------------------------------------------------------------------------------------------


def _before_trainer(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add a callback to those of a Trainer that is being made."""
    from mlops_integrations import transformers as door

    given = _bound("transformers", "__init__", trainer, args, kwargs)
    if given is None:
        return args, kwargs
    callbacks = given.arguments.get("callbacks") or []
    reports = getattr(given.arguments.get("args"), "report_to", None) or []
    if "mlops" in reports or any(_is_a(callback, door.MLOpsCallback) for callback in callbacks):
        return args, kwargs
    callback = door.MLOpsCallback(**_options["transformers"])
    callback._is_bare = True  # gives way to another one that is added later
    callback._door.borrow()
    given.arguments["callbacks"] = [*callbacks, callback]
    return given.args[1:], given.kwargs


def _is_a(given: Any, kind: type) -> bool:
    """Whether this is of that class, or is a class of that kind: Trainers take both."""
    return isinstance(given, kind) or (isinstance(given, type) and issubclass(given, kind))


# -- Accelerate ----------------------------------------------------------------------------------------------------


def _before_trackers(accelerator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add a tracker to those that are about to be begun."""
    from mlops_integrations import accelerate as door

    trackers = accelerator.log_with
    if not any(isinstance(each, door.MLOpsTracker) or str(each) == "mlops" for each in trackers):
        project = kwargs.get("project_name", args[0] if args else None)
        tracker = door.MLOpsTracker(project, **_options["accelerate"])
        tracker._door.borrow()
        accelerator.log_with = [*trackers, tracker]
    return args, kwargs


# -- Keras ---------------------------------------------------------------------------------------------------------


def _before_fit(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from mlops_integrations import keras as door

    args, kwargs = _with_callback(door, "fit", model, args, kwargs)
    return door.before_fit(model, args, kwargs)  # which is not called yet where this has made the first callback


def _before_evaluate(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from mlops_integrations import keras as door

    if model not in _models and start.users_run() is None:
        return args, kwargs
    return _with_callback(door, "evaluate", model, args, kwargs)


def _with_callback(door: Any, method: str, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of a call, with a callback of ours among those given unless there is one."""
    given = _bound("keras", method, model, args, kwargs)
    if given is None:
        return args, kwargs
    callbacks = given.arguments.get("callbacks")
    if any(door.ours_among(callbacks)):
        return args, kwargs
    given.arguments["callbacks"] = door.joined(callbacks, _callback_of(door, model))
    return given.args[1:], given.kwargs


def _callback_of(door: Any, model: Any) -> Any:
    """The model's callback: that of before, unless the user has another run open by now, or has ended that one."""
    callback, open_now = _models.get(model), start.users_run()
    if callback is not None and (callback.run is open_now if open_now else callback._door.is_own):
        return callback
    callback = door.MLOpsCallback(**_options["keras"])
    callback.keeps_model = False  # else nothing would ever free the model that it is kept for
    callback._door.borrow()
    _models[model] = callback
    return callback


# -- all -----------------------------------------------------------------------------------------------------------


def _bound(
    name: str, method: str, subject: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments | None:
    """The arguments of a framework's method by their names; None where the call fails for them anyway."""
    seam = _SEAMS[name][0]
    function = getattr(getattr(sys.modules[seam.module], seam.owner), method)
    try:
        return inspect.signature(function).bind_partial(subject, *args, **kwargs)
    except TypeError:
        return None


@dataclass(frozen=True)
class _Seam:
    """A method of a framework's class, and what is called before it."""

    module: str
    owner: str
    method: str
    before: patching.Before


_SEAMS: Final = {
    "accelerate": [_Seam("accelerate.accelerator", "Accelerator", "init_trackers", _before_trackers)],
    "keras": [_Seam("keras", "Model", "fit", _before_fit), _Seam("keras", "Model", "evaluate", _before_evaluate)],
    "lightning": [],
    "transformers": [_Seam("transformers.trainer", "Trainer", "__init__", _before_trainer)],
}
