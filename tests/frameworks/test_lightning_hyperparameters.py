"""Hyperparameters of any kind, written so that another process writes them alike."""

from __future__ import annotations

import enum
import functools
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any

import pytest

from mlops_integrations.lightning._hyperparameters import plain


def relu(value: float) -> float:
    """Some function."""
    return max(value, 0.0)


class Silent:
    """Says nothing of itself but its address."""


class Broken:
    """Fails at saying anything."""

    def __str__(self) -> str:
        raise ValueError


class Colour(enum.Enum):
    """Some choice."""

    RED = 1


@dataclass
class Schedule:
    """A user's options."""

    warmup: int = 5
    shape: Any = relu
    inner: dict[str, Any] = field(default_factory=lambda: {"_instantiator": "x", "power": 2})


@pytest.mark.parametrize("given", [{"a": 1, "b": {"c": 2}}, Namespace(a=1, b=Namespace(c=2))])
def test_containers(given: object) -> None:
    """Mappings and Namespaces are alike, at any depth."""
    assert {"a": 1, "b": {"c": 2}} == plain(given)


def test_none() -> None:
    """Lightning may have none to tell."""
    assert {} == plain(None)


def test_what_has_no_names() -> None:
    """A number is no set of hyperparameters."""
    with pytest.raises(TypeError, match="mapping of names to values, not int"):
        plain(5)


def test_dataclasses() -> None:
    """Their fields are parameters, by themselves or within; what LightningCLI notes for itself is none."""
    expected = {"warmup": 5, "shape": f"{__name__}.relu", "inner": {"power": 2}}
    assert expected == plain(Schedule())
    assert {"schedule": expected} == plain({"schedule": Schedule(), "_instantiator": "x"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        ("relu", "relu"),
        (None, None),
        (relu, f"{__name__}.relu"),
        (Silent, f"{__name__}.Silent"),
        (len, "builtins.len"),
        (Silent(), f"<{__name__}.Silent object>"),
        (Colour.RED, "Colour.RED"),
        ([1, relu], [1, f"{__name__}.relu"]),
        ((1, Silent), (1, f"{__name__}.Silent")),
        ({"b", "a"}, ["a", "b"]),
        (functools.partial(relu, value=2), {"function": f"{__name__}.relu", "value": 2}),
        (functools.partial(relu, 2), {"function": f"{__name__}.relu", "args": (2,)}),
    ],
)
def test_values(value: object, expected: object) -> None:
    """What has a name is written by it; no address is, which is another one in the next process."""
    assert {"option": expected} == plain({"option": value})


def test_a_value_that_fails_is_handed_on() -> None:
    """Whoever records it says so."""
    broken = Broken()
    assert {"option": broken} == plain({"option": broken})


def test_a_container_that_holds_itself() -> None:
    """It ends."""
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert "again" in plain(endless)


def test_the_given_is_not_changed() -> None:
    """It is the user's."""
    given = {"inner": {"shape": relu}, "_instantiator": "x"}
    plain(given)
    assert {"inner": {"shape": relu}, "_instantiator": "x"} == given
