"""Autologging of Keras: adds a callback to each ``fit``, and to each ``evaluate`` that has a run to record into.

That is the run of a model that was recorded before, or an open run of the user's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from keras import Model

from mlops_integrations.framework_support import patching
from mlops_integrations.keras import _patches
from mlops_integrations.keras._callback import MLOpsCallback
from mlops_integrations.recording import active_runs

_options: Final[dict[str, Any]] = {}
"""Keywords of ``start_run``."""

_models: Final[weakref.WeakKeyDictionary[Any, MLOpsCallback]] = weakref.WeakKeyDictionary()
"""The callback of each recorded model."""


def switch_on(options: Mapping[str, Any]) -> None:
    """Record each model that is trained from now on, with these keywords of ``start_run``."""
    _options.clear()
    _options.update(options)
    patching.wrap_method(Model, "fit", before=_before_fit)
    patching.wrap_method(Model, "evaluate", before=_before_evaluate)


def switch_off() -> None:
    """Restore ``fit`` and ``evaluate``, unless the user has callbacks of ours."""
    patching.unwrap_method(Model, "fit", before=_before_fit)
    patching.unwrap_method(Model, "evaluate", before=_before_evaluate)
    _patches.unwatch(_models.values())
    _models.clear()


def _before_fit(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    args, kwargs = _with_callback(Model.fit, model, args, kwargs)
    return _patches.before_fit(model, args, kwargs)  # not yet a hook of this call, if the first callback is new


def _before_evaluate(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if model not in _models and active_runs.users_run() is None:
        return args, kwargs
    return _with_callback(Model.evaluate, model, args, kwargs)


def _with_callback(method: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the arguments of a call, with a callback of ours added unless there is one."""
    given = patching.bound_arguments(method, model, args, kwargs)
    if given is None:
        return args, kwargs
    callbacks = given.arguments.get("callbacks")
    if any(_patches.ours_among(callbacks)):
        return args, kwargs
    given.arguments["callbacks"] = _patches.joined(callbacks, _callback_of(model))
    return given.args[1:], given.kwargs


def _callback_of(model: Any) -> MLOpsCallback:
    """Return the model's callback: the earlier one, unless the user has opened another run since, or ended that one."""
    callback, open_now = _models.get(model), active_runs.users_run()
    if callback is None or not (callback.run is open_now if open_now else callback._handle.is_own):
        callback = _models[model] = MLOpsCallback._implicit(**_options)
    return callback
