"""Decorators for hooks: an internal error is counted and reported, and does not reach the training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Hook = TypeVar("Hook", bound=Callable[..., None])


def guarded(method: Hook) -> Hook:
    """Decorator for a framework's hook: an internal error is counted and reported, and does not reach the training.

    For methods of classes that keep their RunHandle in ``_handle``.
    """

    @functools.wraps(method)
    def wrapper(self: Any, *args: object, **kwargs: object) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # whatever it is, it must not end a training
            if not hasattr(self, "_handle"):
                raise TypeError(f"{method.__qualname__} was called for the class: give an instance, with ()") from None
            self._handle.swallow(error)

    return cast("Hook", wrapper)


def hook(records: Callable[..., bool]) -> Callable[[Hook], Hook]:
    """Return a decorator for a guarded hook that does its work only in processes that record.

    Args:
        records: returns whether this process records; called with the arguments of the hook, ``self`` first.
    """

    def decorate(method: Hook) -> Hook:
        @functools.wraps(method)
        def gated(self: Any, *args: Any, **kwargs: Any) -> None:
            if records(self, *args, **kwargs):
                method(self, *args, **kwargs)

        return cast("Hook", guarded(gated))

    return decorate
