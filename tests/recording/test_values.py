"""What users hand in becomes what the journal keeps, or is refused by name; foreign code never gets through."""

from __future__ import annotations

import math
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from mlops_integrations.recording import values
from mlops_integrations.recording.values import NotANumberError

INT64_MAX, INT64_MIN = 2**63 - 1, -(2**63)


class Tensor:
    """As tensors of every framework: one element comes out as a Python number."""

    def __init__(self, content: object) -> None:
        self.content = content

    def item(self) -> object:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


class Float:
    """Has ``__float__`` only."""

    def __float__(self) -> float:
        return 0.25


class Index:
    """Has ``__index__`` only."""

    def __index__(self) -> int:
        return 7


class Hostile:
    """Every look at it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError("str")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, 0.1),
        (3, 3.0),
        (-(2**70), -(2.0**70)),
        (True, 1.0),
        (False, 0.0),
        (Decimal("0.1"), 0.1),
        (Decimal("NaN"), "NaN"),
        (Fraction(1, 4), 0.25),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (Float(), 0.25),
        (Index(), 7.0),
        (Tensor(0.5), 0.5),
        (Tensor(True), 1.0),
        (Tensor(math.nan), "NaN"),
    ],
)
def test_numbers(value: object, expected: float | str) -> None:
    """Whatever is a number is kept as a float of 64 bits, or by the word for what is not finite."""
    found = values.number(value)
    assert expected == found
    assert type(expected) is type(found)


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        b"0.5",
        bytearray(b"1"),
        None,
        1j,
        [0.5],
        (1,),
        {"a": 1},
        object(),
        10**400,
        Decimal("sNaN"),
        Tensor("0.5"),
        Tensor(None),
        Tensor(1j),
        Tensor([1.0, 2.0]),
        Tensor(RuntimeError("on another device")),
        Tensor(10**400),
        Hostile(),
        float,
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_numbers(value: object) -> None:
    """What is no number is refused, by one error that names it, whatever the value itself raises."""
    with pytest.raises(NotANumberError) as raised:
        values.number(value)
    assert str(raised.value)


def test_interruption_is_no_refusal() -> None:
    """Ctrl-C in the middle of a value's own code is passed on."""

    class Slow:
        def item(self) -> float:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        values.number(Slow())


def test_numpy_numbers() -> None:
    """NumPy's scalars and arrays of one element, of every kind, are numbers."""
    np = pytest.importorskip("numpy")
    kinds = [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64, np.uint64, np.bool_]
    for kind in kinds:
        for value in (kind(1), np.array(1, kind), np.array([1], kind), np.ones((1, 1, 1), kind)):
            assert values.number(value) == 1.0
            assert type(values.number(value)) is float
    assert values.number(np.float32(0.1)) == 0.10000000149011612
    assert [values.number(np.float32("nan")), values.number(np.array([np.inf]))] == ["NaN", "Infinity"]


def test_numpy_no_numbers() -> None:
    """Arrays of more or fewer elements than one are none, nor are texts, dates and complex numbers."""
    np = pytest.importorskip("numpy")
    for value in (
        np.array([1.0, 2.0]),
        np.array([]),
        np.str_("0.5"),
        np.array("0.5"),
        np.complex128(1j),
        np.datetime64("2026-01-01"),
        np.array([None]),
    ):
        with pytest.raises(NotANumberError):
            values.number(value)


@given(st.floats())
def test_every_float(value: float) -> None:
    """Finite floats are kept exactly; the rest has a word each."""
    found = values.number(value)
    if math.isfinite(value):
        assert value.hex() == float(found).hex()
    else:
        assert isinstance(found, str)
        assert repr(value) == repr(float(found))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, (0, True)),
        (-5, (-5, True)),
        (INT64_MAX, (INT64_MAX, True)),
        (INT64_MIN, (INT64_MIN, True)),
        (True, (1, True)),
        (2.0, (2, True)),
        (1.5, (1, False)),
        (-0.5, (-1, False)),
        (Index(), (7, True)),
        (Decimal("2.25"), (2, False)),
        (Tensor(3), (3, True)),
    ],
)
def test_steps(step: object, expected: tuple[int, bool]) -> None:
    """A step is an integer of 64 bits; what lies between is rounded down, and told."""
    assert expected == values.step_number(step)


@pytest.mark.parametrize(
    "step",
    [INT64_MAX + 1, INT64_MIN - 1, 2.0**63, 1e300, math.nan, math.inf, -math.inf, "1", None, [1], 1j, Hostile()],
    ids=lambda step: type(step).__name__,
)
def test_no_steps(step: object) -> None:
    """What no server can take as a step is refused."""
    with pytest.raises(NotANumberError):
        values.step_number(step)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {}),
        ({"lr": 0.1, "n": None, "on": True}, {"lr": "0.1", "n": "None", "on": "True"}),
        ({"path": PurePosixPath("a/b")}, {"path": "a/b"}),
        ({"a": {"b": {"c": 1}, "d": 2}}, {"a/b/c": "1", "a/d": "2"}),
        ({"a": {}, "b": []}, {"a": "{}", "b": "[]"}),
        ({1: {None: "x"}, ("t",): 2}, {"1/None": "x", "('t',)": "2"}),
        ({"o": OrderedDict(x=1), "m": MappingProxyType({"y": 2})}, {"o/x": "1", "m/y": "2"}),
        ({"list": [{"a": 1}]}, {"list": "[{'a': 1}]"}),
        ({"\ud800": "\udfff"}, {"\\ud800": "\\udfff"}),
    ],
)  # fmt: skip
def test_params_as_texts(params: dict[Any, object], expected: dict[str, str]) -> None:
    """Any value by ``str``, nested mappings flattened with a slash, an empty one kept."""
    assert expected == dict(values.texts(params))


def test_mapping_within_itself() -> None:
    """It ends."""
    params: dict[str, Any] = {"lr": 0.1}
    params["self"] = params
    found = dict(values.texts(params))
    assert found["lr"] == "0.1"
    assert len(found) < 100


def test_text_of_what_can_not_be_printed() -> None:
    """It is named by its type."""
    assert "Hostile" in values.text(Hostile())


class Text(str):
    """A text that insists on being itself."""

    def __str__(self) -> str:
        return self


def test_text_is_plain() -> None:
    """Subclasses of ``str`` become plain text, which is all that the journal can hold."""
    np = pytest.importorskip("numpy")
    assert [str, str] == [type(values.text(text)) for text in (np.str_("a"), Text("b"))]


@given(st.text(st.characters()))
def test_every_text_can_be_written(text: str) -> None:
    """Well-formed text is left as it is; half surrogate pairs are spelled out."""
    found = values.text(text)
    found.encode()
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert text == found
