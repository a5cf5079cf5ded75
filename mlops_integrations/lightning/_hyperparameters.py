"""Hyperparameters as frameworks keep them, in a form that reads the same in each process that trains with them.

A parameter can't be changed once it is recorded. So what goes on with a run has to write ``relu`` as ``relu`` again,
and not as the address that a function happens to have in this process. Imports no framework: it asks the value itself.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Final

_INSTANTIATOR: Final = "_instantiator"
"""LightningCLI's note to itself."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN: Final = (str, int, float, bool, type(None))
_DEEPEST: Final = 20
"""No deeper: a container may hold itself."""


def plain(params: object) -> dict[str, Any]:
    """Hyperparameters by name: those of a mapping, a Namespace or a dataclass; none of None.

    Namespaces and dataclasses within become mappings; functions and classes their names.

    Raises:
        TypeError: they have no names.
    """
    fields = {} if params is None else _fields(params)
    if fields is None:
        raise TypeError(f"hyperparameters are a mapping of names to values, not {type(params).__name__}")
    return {name: _value(value, 1) for name, value in fields.items() if name != _INSTANTIATOR}


def _fields(value: object) -> dict[str, Any] | None:
    """The parts of a value that has named ones."""
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, Namespace):
        return dict(vars(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, _PLAIN) or depth > _DEEPEST:
        return value
    fields = _fields(value)
    if fields is not None:
        return {name: _value(part, depth + 1) for name, part in fields.items() if name != _INSTANTIATOR}
    if type(value) in {list, tuple, set, frozenset}:
        parts = [_value(part, depth + 1) for part in value]
        if isinstance(value, (set, frozenset)):
            parts.sort(key=str)  # the order of a set is another one in each process
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, functools.partial):
        bound = {"function": value.func, **({"args": value.args} if value.args else {}), **value.keywords}
        return {name: _value(part, depth + 1) for name, part in bound.items()}
    name = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(name, str):
        return f"{value.__module__}.{name}" if isinstance(getattr(value, "__module__", None), str) else name
    return _text(value)


def _text(value: object) -> object:
    """As it says itself, without the address that objects have that say nothing of themselves."""
    try:
        return _ADDRESS.sub("", str(value))
    except Exception:  # foreign code; whoever records the value says what is wrong with it
        return value
