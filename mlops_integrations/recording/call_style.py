"""Arguments of one-key calls, in our style or that of ``MlflowClient``, whose first argument is a run id.

``run.log_metric(run_id, "loss", 0.5)`` is a common call on the ``experiment`` of other loggers. It is recognized, so
that it neither raises in the middle of a training nor is lost without a message.
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
    """Return the arguments by name: with "run_id" if the call is in that style, with "extra" if there are too many."""
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
    """Return key, value, surplus and further arguments of a call; None, with a message, if it can't be recorded.

    Args:
        recorder: the run's.
        call: the method's name.
        given: its positional arguments.
        named: its keywords.
        own_ids: returns this run's ids; called only if the call has a run id.
    """
    bound = arguments(METRIC if call == "log_metric" else TEXT, given, named)
    if "run_id" in bound and not _is_ours(recorder, call, bound.pop("run_id") in own_ids()):
        return None
    if "key" not in bound or "value" not in bound:
        recorder.lose("call without a key and a value", 1, call)
        return None
    return values.text(bound.pop("key")), bound.pop("value"), bound.pop("extra", ()), bound


def lose_no_mapping(recorder: Recorder, call: str, value: object) -> None:
    """Count and report a call whose argument is not a mapping."""
    detail = f"{call} takes a mapping of names to values, not {type(value).__name__}"
    recorder.lose("wrong argument", 1, detail, about=call)


def say_left_out(recorder: Recorder, call: str, extra: tuple[object, ...], unknown: Mapping[str, object]) -> None:
    """Report once which arguments of a call are ignored, as only other trackers take them."""
    names = ", ".join([*(repr(value)[:50] for value in extra), *unknown])
    recorder.messages.once(call, "run.%s does not take %s: left out, the rest is recorded", call, names)


def _is_ours(recorder: Recorder, call: str, ours: bool) -> bool:
    """Report once that a call begins with a run id; if it is not this run's, the call counts as lost."""
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
    # The third argument of a metric may be the step: then the second is the value, not a text.
    return names is TEXT or by_name > 0 or isinstance(given[1], str)
