"""Wraps a method of a framework's class, for events that no hook of that framework reports.

Used where a framework offers nothing else: ``keras.Model.fit`` and ``transformers.Trainer.train`` report their
exceptions to no callback. A wrapped method is called exactly once, its exceptions pass through unchanged (with a
traceback that does not show us, from Python 3.11), and a failure in a hook of ours is reported and does no harm.
A method is wrapped once, however many hooks it has, and is restored when the last hook is removed.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

logger: Final = logging.getLogger("mlops_integrations")

Before: TypeAlias = Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
"""Gets the object, arguments and keywords of a call; returns the arguments and keywords to call with."""

Failed: TypeAlias = Callable[[Any, BaseException], None]
"""Gets the object and the exception that the call raises."""

Done: TypeAlias = Callable[[Any, Any], None]
"""Gets the object and the result of the call."""

_MARK: Final = "_mlops_hooks"
_lock: Final = threading.Lock()


@dataclass(slots=True)
class _Hooks:
    """The hooks around one method."""

    owner: type
    name: str
    inherited: bool
    wrapper: Any = None
    before: list[Before] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)


def wrap_method(
    owner: type, name: str, *, before: Before | None = None, failed: Failed | None = None, done: Done | None = None
) -> None:
    """Add hooks around a method; hooks that it has already are not added again."""
    with _lock:
        hooks = _hooks_of(owner, name) or _wrapped(owner, name)
        if before is not None and before not in hooks.before:
            hooks.before.append(before)
        if failed is not None and failed not in hooks.failed:
            hooks.failed.append(failed)
        if done is not None and done not in hooks.done:
            hooks.done.append(done)


def unwrap_method(
    owner: type, name: str, *, before: Before | None = None, failed: Failed | None = None, done: Done | None = None
) -> None:
    """Remove hooks. Without any left, the original method is restored, unless other code has wrapped it since."""
    with _lock:
        hooks = _hooks_of(owner, name)
        if hooks is None:
            return
        if before in hooks.before:
            hooks.before.remove(before)
        if failed in hooks.failed:
            hooks.failed.remove(failed)
        if done in hooks.done:
            hooks.done.remove(done)
        if hooks.before or hooks.failed or hooks.done or vars(owner)[name] is not hooks.wrapper:
            return
        if hooks.inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, hooks.wrapper.__wrapped__)


def _hooks_of(owner: type, name: str) -> _Hooks | None:
    """Return the hooks of our wrapper around this class's method, even if another wrapper lies above it."""
    function = vars(owner).get(name)
    while function is not None:
        hooks = getattr(function, "__dict__", {}).get(_MARK)
        if isinstance(hooks, _Hooks) and hooks.owner is owner:
            return hooks
        function = getattr(function, "__wrapped__", None)
    return None


def _wrapped(owner: type, name: str) -> _Hooks:
    original = getattr(owner, name)
    hooks = _Hooks(owner, name, inherited=name not in vars(owner))

    @functools.wraps(original)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        for before in hooks.before.copy():
            try:
                args, kwargs = before(self, args, kwargs)
            except Exception as failure:  # whatever it is, it must not end a training
                say_failure(failure)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            for failed in hooks.failed.copy():
                try:
                    failed(self, error)
                except Exception as failure:  # as above
                    say_failure(failure)
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next
            raise
        for done in hooks.done.copy():
            try:
                done(self, result)
            except Exception as failure:  # as above
                say_failure(failure)
        return result

    hooks.wrapper = wrapper
    setattr(wrapper, _MARK, hooks)
    setattr(owner, name, wrapper)
    return hooks


def say_failure(failure: Exception) -> None:
    """Report an internal error where there is no run to count it."""
    logger.warning("mlops: not recorded, training goes on; please report %r", failure)


def bound_arguments(
    method: Callable[..., Any], subject: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> inspect.BoundArguments | None:
    """Return the arguments of a method's call by name; None if they don't fit, so that the call fails anyway."""
    try:
        return inspect.signature(method).bind_partial(subject, *args, **kwargs)
    except TypeError:
        return None
