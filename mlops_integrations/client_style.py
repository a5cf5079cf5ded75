"""Calls in the style of ``MlflowClient``, whose first argument is a run id: recognized, so that none is lost unsaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ClientCall(NamedTuple):
    """What a ``log_metric(run_id, key, value, timestamp, step)`` says."""

    run_id: object
    key: str
    value: object
    step: object
    timestamp: object


def metric_call(
    run_id: object, key: object, rest: tuple[object, ...], named: Mapping[str, object]
) -> ClientCall | None:
    """The call, if it is one in that style: its second argument is a name, its third the value."""
    if not isinstance(key, str) or not (rest or "value" in named):
        return None
    value, timestamp, step = (*rest, None, None, None)[:3]
    return ClientCall(
        run_id,
        key,
        named.get("value", value),
        named.get("step", step),
        named.get("timestamp", timestamp),
    )
