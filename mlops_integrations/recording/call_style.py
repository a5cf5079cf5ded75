"""The arguments of calls about one key, ours or in the style of ``MlflowClient``, whose first argument is a run id.

``run.log_metric(run_id, "loss", 0.5)`` is a common way to call what other loggers give out as ``experiment``. It is
recognized, so that it is neither an error in the middle of a training nor lost unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mlops_integrations.recording import values
from mlops_integrations.recording.recorder import Recorder

METRIC: Final = ("key", "value", "step", "timestamp")
TEXT: Final = ("key", "value")
_CLIENTS: Final = ("run_id", "key", "value", "timestamp", "step")
_FOREIGN_CALL: Final = "call with the id of another run"


def arguments(names: tuple[str, ...], given: tuple[object, ...], named: Mapping[str, object]) -> dict[str, Any]:
    """The call's arguments by name; "run_id" is among them if it is in that style, "extra" if there are too many."""
    order = _CLIENTS if _begins_with_a_run_id(names, given, named) else names
    bound: dict[str, Any] = dict(zip(order, given, strict=False))
    if len(given) > len(order):
        bound["extra"] = given[len(order) :]
    return bound | dict(named)


def understood(
    recorder: Recorder,
    call: str,
    given: tuple[object, ...],
    named: Mapping[str, object],
    own_ids: Callable[[], set[str | None]],
) -> tuple[str, Any, tuple[object, ...], dict[str, Any]] | None:
    """Key, value, surplus and further arguments of a call; None, counted and said, where it can't be recorded.

    Args:
        recorder: the run's.
        call: the method's name.
        given: its positional arguments.
        named: its keywords.
        own_ids: gives the ids that are this run's, asked for only where the call has one.
    """
    bound = arguments(METRIC if call == "log_metric" else TEXT, given, named)
    if "run_id" in bound and not _is_ours(recorder, call, bound.pop("run_id") in own_ids()):
        return None
    if "key" not in bound or "value" not in bound:
        recorder.lose("call without a key and a value", 1, call)
        return None
    return values.text(bound.pop("key")), bound.pop("value"), bound.pop("extra", ()), bound


def lose_no_mapping(recorder: Recorder, call: str, value: object) -> None:
    """Count and say a call that was given no mapping."""
    detail = f"{call} takes a mapping of names to values, not {type(value).__name__}"
    recorder.lose("wrong argument", 1, detail, about=call)


def say_left_out(recorder: Recorder, call: str, extra: tuple[object, ...], unknown: Mapping[str, object]) -> None:
    """Say once which arguments of a call are of other trackers, and left out."""
    names = ", ".join([*(repr(value)[:50] for value in extra), *unknown])
    recorder.messages.once(call, "run.%s does not take %s: left out, the rest is recorded", call, names)


def _is_ours(recorder: Recorder, call: str, ours: bool) -> bool:
    """Said once: a call that begins with a run id. If it is not this run's, it counts as lost."""
    what = "It is this run's, the call is recorded" if ours else "It is another run's, the call is not recorded"
    text = "run.%s takes no run id, unlike MlflowClient's: leave it out. %s"
    recorder.messages.once(f"{call} {ours}", text, call, what)
    if not ours:
        recorder.lose(_FOREIGN_CALL, 1)
    return ours


def _begins_with_a_run_id(names: tuple[str, ...], given: tuple[object, ...], named: Mapping[str, object]) -> bool:
    by_name = ("key" in named) + ("value" in named)
    if "run_id" in named or len(given) + by_name < len(TEXT) + 1:
        return False
    # Of a metric, the third may be the step: then the second is its value, and no text.
    return names is TEXT or by_name > 0 or isinstance(given[1], str)
