"""Calls in the style of other trackers: recorded, or counted and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import Metrics, Params, Record, Tags
from mlops_integrations.recording.run import Run
from records_read import losses, merged

pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]
Point = tuple[str, float | str, int]
Points = Callable[[Run], list[Point]]


@pytest.mark.parametrize("own", [True, False])
def test_calls_in_the_style_of_mlflows_client(
    read: Read, points: Points, caplog: pytest.LogCaptureFixture, own: bool
) -> None:
    """A run id in front is recognized and said; this run's is recorded, another's is counted as lost."""
    run = mlops.start_run()
    caplog.clear()
    run_id = run.uid if own else "0123456789abcdef0123456789abcdef"
    run.log_metric(run_id, "a", 0.5)
    run.log_metric(run_id, "b", 0.5, 123, 7)
    run.log_metric(run_id, "c", 0.5, timestamp=123, step=8)
    run.log_param(run_id, "p", 1)
    run.set_tag(run_id, "t", "x")
    run.finish()
    records = read(run.directory)
    assert ([("a", 0.5, 0), ("b", 0.5, 7), ("c", 0.5, 8)] if own else []) == points(run)
    assert ({"p": "1"} if own else {}) == merged(records, Params)
    assert ({"t": "x"} if own else {}) == merged(records, Tags)
    if own:
        assert [record.time for record in records if isinstance(record, Metrics)][1:] == [123, 123]
    else:
        assert losses(records) == {"call with the id of another run": 5}
    for call in ("log_metric", "log_param", "set_tag"):
        assert sum(f"run.{call} takes no run id" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("value", [{"value": 0.5}, {"value": 0.5, "step": 3}])
def test_client_style_by_keyword(run: Run, points: Points, value: dict[str, Any]) -> None:
    """``client.log_metric(run_id, "loss", value=0.5)`` is a call in that style too, and no error."""
    run.log_metric(run.uid, "loss", **value)
    assert [("loss", 0.5, value.get("step", 0))] == points(run)


def test_client_style_by_keyword_of_texts(run: Run, read: Read) -> None:
    """So are ``log_param`` and ``set_tag``."""
    run.log_param(run.uid, key="p", value=1)
    run.set_tag(run.uid, key="t", value=1)
    assert (merged(read(run.directory), Params), merged(read(run.directory), Tags)) == ({"p": "1"}, {"t": "1"})


def test_everything_by_keyword(run: Run, read: Read, points: Points, caplog: pytest.LogCaptureFixture) -> None:
    """Ours by their names, with nothing to say about it."""
    caplog.clear()
    run.log_metrics(metrics={"a": 1.0}, step=1, timestamp=5)
    run.log_metric(key="b", value=2.0, step=2, timestamp=6)
    run.log_params(params={"p": 1})
    run.log_param(key="q", value=2)
    run.set_tags(tags={"t": 1})
    run.set_tag(key="u", value=2)
    assert points(run) == [("a", 1.0, 1), ("b", 2.0, 2)]
    assert merged(read(run.directory), Params) == {"p": "1", "q": "2"}
    assert merged(read(run.directory), Tags) == {"t": "1", "u": "2"}
    assert caplog.messages == []


def test_keywords_of_other_trackers(
    run: Run, read: Read, points: Points, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What we do not take is left out and said; it raises nothing, and the rest is recorded."""
    (tmp_path / "f").write_text("x")
    run.log_metrics({"a": 1.0}, step=1, synchronous=False)
    run.log_metrics({"a": 1.0}, 2, None, "model", dataset=None)
    run.log_metric("a", 1.0, step=3, model_id="m")
    run.log_params({"p": 1}, synchronous=True)
    run.log_param("q", 2, synchronous=True)
    run.set_tags({"t": 1}, synchronous=True)
    run.set_tag("u", 2, synchronous=True)
    run.log_artifact("f", "d", run_id="r")
    assert [step for _, _, step in points(run)] == [1, 2, 3]
    assert merged(read(run.directory), Params) == {"p": "1", "q": "2"}
    assert merged(read(run.directory), Tags) == {"t": "1", "u": "2"}
    assert (run.directory / "artifacts" / "d" / "f").exists()
    assert "run.log_metrics does not take synchronous: left out" in caplog.text


@pytest.mark.swallows
@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_metrics([("a", 1.0)]),
        lambda run: run.log_metrics(None),
        lambda run: run.log_params("lr=0.1"),
        lambda run: run.log_params(None),
        lambda run: run.set_tags(5),
        lambda run: run.log_artifact(None),
        lambda run: run.log_metric([], "a", 1.0),
        lambda run: run.log_param({}, "a", 1.0),
    ],
)
def test_calls_that_make_no_sense(
    run: Run, points: Points, caplog: pytest.LogCaptureFixture, call: Callable[[Run], None]
) -> None:
    """They end no training: they are counted and said, and the run goes on."""
    caplog.clear()
    call(run)
    run.log_metric("after", 1.0)
    assert ("after", 1.0, 0) in points(run)
    assert len(caplog.messages) >= 1


def test_control_characters_do_not_reach_the_terminal(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A key may come from a file that a stranger made."""
    run.log_metrics({"\x1b[31mred\nmlops: forged": "no number"})
    run.log_metric("a", 1.0, step="\x1b[31m")  # type: ignore[arg-type]
    run.log_params({"\x1b[31m": 1})
    run.log_params({"\x1b[31m": 2})
    run.log_metrics({"a": 1.0}, **{"\x1b[31m": 1})  # type: ignore[arg-type]
    assert all(message.isprintable() for message in caplog.messages)
