"""Wraps ``fit`` and ``evaluate`` of Keras' models, since no hook notifies a callback of an exception in them.

Keras' own method is called with its arguments, and its exceptions pass through unchanged.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from keras import Model
from keras.callbacks import CallbackList

from mlops_integrations.framework_support import patching

_lock: Final = threading.Lock()
"""Guards the set below, which threads share."""


class FitListener:
    """Callback that is notified when ``fit`` is called, and when ``fit`` or ``evaluate`` raises."""

    def _is_training(self, model: Any) -> bool:
        raise NotImplementedError

    def _is_testing(self, model: Any) -> bool:
        raise NotImplementedError

    def _fit_is_called(self, model: Any, arguments: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _fit_is_called_without(self) -> None:
        raise NotImplementedError

    def _fit_was_left(self, error: BaseException) -> None:
        raise NotImplementedError

    def _evaluate_was_left(self, error: BaseException) -> None:
        raise NotImplementedError


_callbacks: Final[weakref.WeakSet[FitListener]] = weakref.WeakSet()
"""All callbacks of ours."""


def ours_among(callbacks: Any) -> Iterator[FitListener]:
    """Yield our callbacks among the ``callbacks`` of a call, in any form that Keras takes."""
    if isinstance(callbacks, FitListener):
        yield callbacks
    elif isinstance(callbacks, CallbackList):
        yield from ours_among(callbacks.callbacks)
    elif isinstance(callbacks, (list, tuple)):
        for callback in callbacks:
            yield from ours_among(callback)


def joined(callbacks: Any, callback: Any) -> Any:
    """Return the given callbacks and this one, in a new container."""
    if isinstance(callbacks, CallbackList):
        both = copy.copy(callbacks)
        both.callbacks = [*callbacks.callbacks, callback]
        callback.set_params(callbacks.params)
        return both
    if isinstance(callbacks, (list, tuple)):
        return [*callbacks, callback]
    return [callback] if callbacks is None else [callbacks, callback]


def before_fit(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Tell our callbacks that ``fit`` was called with them; changes nothing."""
    given = patching.bound_arguments(Model.fit, model, args, kwargs)
    if given is None:  # Keras' own error is better
        return args, kwargs
    ours = list(ours_among(given.arguments.get("callbacks")))
    for callback in _known():
        if callback in ours:
            callback._fit_is_called(model, given.arguments)
        elif callback._is_training(model):
            callback._fit_is_called_without()
    return args, kwargs


def _after_failed_fit(model: Any, error: BaseException) -> None:
    for callback in _known():
        if callback._is_training(model):
            callback._fit_was_left(error)


def _after_failed_evaluate(model: Any, error: BaseException) -> None:
    for callback in _known():
        if callback._is_testing(model):
            callback._evaluate_was_left(error)


def _known() -> list[FitListener]:
    with _lock:
        return list(_callbacks)


def watch(callback: FitListener) -> None:
    with _lock:
        _callbacks.add(callback)
    patching.wrap_method(Model, "fit", before=before_fit, failed=_after_failed_fit)
    patching.wrap_method(Model, "evaluate", failed=_after_failed_evaluate)


def unwatch(callbacks: Iterable[FitListener]) -> None:
    """Stop watching these callbacks; restore Keras' methods when none of ours is left."""
    with _lock:
        _callbacks.difference_update(callbacks)
    if not _known():
        patching.unwrap_method(Model, "fit", before=before_fit, failed=_after_failed_fit)
        patching.unwrap_method(Model, "evaluate", failed=_after_failed_evaluate)
