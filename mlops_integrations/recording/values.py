"""Converts logged values into the journal's types. Imports no numeric library: it uses the value's own methods."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import structs

from mlops_integrations.journal.records import (
    Artifact,
    End,
    Header,
    Losses,
    Metrics,
    Params,
    Points,
    Record,
    RunSpec,
    Tags,
    Value,
    not_handled,
    spell,
)

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
_DEEPEST: Final = 20
_spec_decoder: Final = msgspec.json.Decoder(RunSpec)  # made once: see ``journal.cursor``


class NotANumberError(ValueError):
    """The value has no meaning as a metric; the text says why."""


def number(value: object) -> Value:
    """Return a finite float, or the word for NaN or an infinity.

    Takes Python numbers, booleans (1.0, 0.0), NumPy scalars, and arrays and tensors of one element.

    Raises:
        NotANumberError: it is none of these.
    """
    try:
        return spell(_as_float(value))
    except NotANumberError:
        raise
    except OverflowError:
        raise NotANumberError("too large for a float of 64 bits") from None
    except Exception as error:  # the value is foreign code: whatever it raises, it is no number
        raise NotANumberError(f"{type(value).__name__}: {error}") from None


def _as_float(value: object) -> float:
    if isinstance(value, (str, bytes, bytearray)) or value is None:
        raise NotANumberError(type(value).__name__)
    item = getattr(value, "item", None)
    if callable(item):
        value = item()
    if isinstance(value, complex) or (not hasattr(value, "__float__") and not hasattr(value, "__index__")):
        raise NotANumberError(type(value).__name__)
    return float(value)  # type: ignore[arg-type]


def step_number(step: object) -> tuple[int, bool]:
    """Return a step as an integer of 64 bits, and whether it was a whole number.

    Raises:
        NotANumberError: it is not a finite number, or does not fit.
    """
    exact = True
    try:
        whole = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        value = number(step)
        if isinstance(value, str):
            raise NotANumberError(f"step {value}") from None
        whole = int(value // 1)
        exact = whole == value
    if not INT64_MIN <= whole <= INT64_MAX:
        raise NotANumberError("step out of the range of 64 bits")
    return whole, exact


def texts(params: Mapping[Any, object], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Each parameter as text, nested mappings flattened with ``/``; an empty mapping stays as ``{}``."""
    for key, value in params.items():
        name = f"{prefix}{text(key)}"
        if isinstance(value, Mapping) and value and depth < _DEEPEST:
            yield from texts(value, f"{name}/", depth + 1)
        else:
            yield name, text(value)


def text(value: object) -> str:
    """``str(value)`` in well-formed Unicode; a value that can't be printed is named by its type."""
    try:
        plain = str.__str__(str(value))
    except Exception as error:  # foreign code: a parameter is never worth a training
        plain = f"<{type(value).__name__}: {error.__class__.__name__} in str()>"
    try:
        plain.encode()
    except UnicodeEncodeError:
        return plain.encode(errors="backslashreplace").decode()
    return plain


def well_formed(record: Record | Points) -> Record | Points:  # noqa: RET503 - the last case does not return
    """Return the same record with text that can be written: lone surrogates are escaped."""
    match record:
        case Metrics():
            return Metrics(record.time, [(text(key), value, step) for key, value, step in record.values])
        case Points():
            return Points(record.time, record.step, {text(key): value for key, value in record.values.items()})
        case Params() | Tags():
            return type(record)(record.time, {text(key): text(value) for key, value in record.values.items()})
        case Artifact():
            return Artifact(record.time, text(record.file), text(record.path), record.size)
        case Header() | RunSpec() | Losses() | End():  # their texts are ours, or were made well-formed
            return record
        case _:
            not_handled(record)


def well_formed_spec(spec: RunSpec) -> RunSpec:
    """Do the same for a run's description: file names are bytes, and a script's need not be Unicode.

    Raises:
        ValueError: a field is not of its type.
    """
    formed = {name: text(value) for name, value in structs.asdict(spec).items() if isinstance(value, str)}
    # Checks the types: a value of another type would be written, but could not be read again.
    return _spec_decoder.decode(msgspec.json.encode(structs.replace(spec, **formed)))
