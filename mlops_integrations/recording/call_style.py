"""The arguments of calls about one key, ours or in the style of ``MlflowClient``, whose first argument is a run id.

``run.log_metric(run_id, "loss", 0.5)`` is a common way to call what other loggers give out as ``experiment``. It is
recognized, so that it is neither an error in the middle of a training nor lost unsaid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

METRIC: Final = ("key", "value", "step", "timestamp")
TEXT: Final = ("key", "value")
_CLIENTS: Final = ("run_id", "key", "value", "timestamp", "step")


def arguments(names: tuple[str, ...], given: tuple[object, ...], named: Mapping[str, object]) -> dict[str, Any]:
    """The call's arguments by name; "run_id" is among them if it is in that style, "extra" if there are too many."""
    order = _CLIENTS if _begins_with_a_run_id(names, given, named) else names
    bound: dict[str, Any] = dict(zip(order, given, strict=False))
    if len(given) > len(order):
        bound["extra"] = given[len(order) :]
    return bound | dict(named)


def _begins_with_a_run_id(names: tuple[str, ...], given: tuple[object, ...], named: Mapping[str, object]) -> bool:
    by_name = ("key" in named) + ("value" in named)
    if "run_id" in named or len(given) + by_name < len(TEXT) + 1:
        return False
    # Of a metric, the third may be the step: then the second is its value, and no text.
    return names is TEXT or by_name > 0 or isinstance(given[1], str)
