"""Compiles search conditions into a dialect's search language. Pure."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from typing import Any, Final

from mlops_integrations.entities import Clause, MetricClause
from mlops_integrations.errors import NotSupportedByServer

_PLAIN: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def as_filter(clauses: Sequence[Clause]) -> str:
    """Return the filter string for servers from 0.9 on.

    Raises:
        ValueError: a name or value can't be written in that language.
        NotSupportedByServer: a comparator has no counterpart there.
    """
    return " and ".join(_condition(clause) for clause in clauses)


def as_anded_expressions(clauses: Sequence[Clause]) -> list[dict[str, object]]:
    """Return the expressions for the 2018 preview. Servers of that time accept ``=``, not the ``==`` of their document.

    Raises:
        ValueError: a number is not finite.
        NotSupportedByServer: no server of that time accepts the comparator.
    """
    return [_expression(clause) for clause in clauses]


def _condition(clause: Clause) -> str:
    comparator = _comparator(clause)
    if isinstance(clause, MetricClause):
        return f"metrics.{_name(clause.key)} {comparator} {_finite(clause.value)!r}"
    return f"params.{_name(clause.key)} {comparator} {_quoted(clause.value)}"


def _expression(clause: Clause) -> dict[str, object]:
    comparator = _comparator(clause)
    if isinstance(clause, MetricClause):
        condition = {"comparator": comparator, "value": _finite(clause.value)}
        return {"metric": {"key": clause.key, "float": condition}}
    return {"parameter": {"key": clause.key, "string": {"comparator": comparator, "value": _text(clause.value)}}}


def _comparator(clause: Clause) -> str:
    if clause.comparator == "~":
        raise NotSupportedByServer("comparator '~' stands in the 2018 document, but no server takes it: use == or !=")
    return "=" if clause.comparator == "==" else clause.comparator


def _finite(value: Any) -> float:
    if not isinstance(value, numbers.Real):
        raise ValueError(f"a metric is compared with a number, not with {value!r}")  # noqa: TRY004
    if not math.isfinite(value):
        raise ValueError(f"a metric can't be compared with {value}")
    return float(value)


def _name(key: str) -> str:
    if "`" in key:
        raise ValueError(f"{key!r} can't be searched for: it holds a backtick")
    return key if _PLAIN.fullmatch(key) else f"`{key}`"  # releases up to 1.2 take backticks as part of the name


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a parameter is compared with a text, not with {value!r}")  # noqa: TRY004
    return value


def _quoted(value: str) -> str:
    for quote in ("'", '"'):
        if quote not in _text(value):
            return f"{quote}{value}{quote}"
    raise ValueError(f"{value!r} can't be searched for: it holds both kinds of quotes")
