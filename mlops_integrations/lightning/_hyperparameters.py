"""Converts hyperparameters of frameworks into a form that is the same in each process that trains with them.

A parameter can't be changed once it is recorded. So a process that resumes a run has to write ``relu`` as ``relu``
again, not as the address of the function in that process. Imports no framework: it uses the attributes of the value.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, Final

_INSTANTIATOR: Final = "_instantiator"
"""An internal entry of LightningCLI, which is not recorded."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN: Final = (str, int, float, bool, type(None))
_DEEPEST: Final = 20
"""Greatest depth of nesting: a container may hold itself."""


def plain(params: object) -> dict[str, Any]:
    """Return hyperparameters by name: those of a mapping, a Namespace or a dataclass; none for None.

    Nested Namespaces and dataclasses become mappings; functions and classes become their names.

    Raises:
        TypeError: they have no names.
    """
    fields = {} if params is None else _fields(params)
    if fields is None:
        raise TypeError(f"hyperparameters are a mapping of names to values, not {type(params).__name__}")
    return {name: _value(value, 1) for name, value in fields.items() if name != _INSTANTIATOR}


def _fields(value: object) -> dict[str, Any] | None:
    """Return the named parts of a value; None if it has none."""
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
            parts.sort(key=str)  # the order of a set differs between processes
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, functools.partial):
        bound = {"function": value.func, **({"args": value.args} if value.args else {}), **value.keywords}
        return {name: _value(part, depth + 1) for name, part in bound.items()}
    name = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(name, str):
        return f"{value.__module__}.{name}" if isinstance(getattr(value, "__module__", None), str) else name
    return _text(value)


def _text(value: object) -> object:
    """Return ``str(value)`` without the address that the default ``repr`` contains."""
    try:
        return _ADDRESS.sub("", str(value))
    except Exception:  # foreign code; the recording of the value reports what is wrong with it
        return value
