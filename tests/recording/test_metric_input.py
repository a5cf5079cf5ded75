"""What is kept of metrics: values, steps and times of any kind; and what is left out, and said."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import Header, Metrics, Record, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording.run import Run
from records_read import losses

pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]
Point = tuple[str, float | str, int]
Points = Callable[[Run], list[Point]]


def test_metrics(run: Run, read: Read) -> None:
    """Every key of a call stands in one record, with the call's step and time."""
    before = time.time_ns() // 1_000_000
    run.log_metrics({"train/loss": 0.3, "точность": 1, "損失": True}, step=7)
    run.log_metrics({"nan": float("nan"), "inf": float("inf"), "low": float("-inf")}, step=-(2**63), timestamp=123)
    run.log_metric("lr", 0.1, 2**63 - 1, 456)
    first, second, third = (record for record in read(run.directory) if isinstance(record, Metrics))
    assert first.values == [("train/loss", 0.3, 7), ("точность", 1.0, 7), ("損失", 1.0, 7)]
    assert before <= first.time <= time.time_ns() // 1_000_000
    assert (
        Metrics(123, [("nan", "NaN", -(2**63)), ("inf", "Infinity", -(2**63)), ("low", "-Infinity", -(2**63))])
        == second
    )
    assert Metrics(456, [("lr", 0.1, 2**63 - 1)]) == third


def test_step_left_out(run: Run, points: Points) -> None:
    """One past the key's last step, from 0, each key for itself."""
    run.log_metric("a", 0.0)
    run.log_metric("a", 1.0)
    run.log_metrics({"a": 2.0, "b": 0.0})
    run.log_metric("b", 1.0, step=10)
    run.log_metrics({"a": 3.0, "b": 2.0})
    run.log_metric("top", 1.0, step=2**63 - 1)
    run.log_metric("top", 2.0)
    steps = [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 10),
        ("a", 3),
        ("b", 11),
        ("top", 2**63 - 1),
        ("top", 2**63 - 1),
    ]
    assert steps == [(key, step) for key, _, step in points(run)]


@pytest.mark.parametrize(
    ("step", "kept", "said"),
    [
        (2.0, 2, ""),
        (1.5, 1, "rounded down"),
        (True, 1, ""),
        ("5", 0, "step '5'"),
        (2**63, 0, "64 bits"),
        (float("nan"), 0, "step nan"),
    ],
)
def test_steps_of_other_kinds(
    run: Run, points: Points, caplog: pytest.LogCaptureFixture, step: Any, kept: int, said: str
) -> None:
    """What is no integer becomes one, or the next step; and that is said once."""
    caplog.clear()
    run.log_metric("a", 1.0, step=step)
    run.log_metric("b", 1.0, step=step)
    assert [("a", 1.0, kept), ("b", 1.0, kept)] == points(run)
    assert (1 if said else 0) == len(caplog.messages)
    assert said in caplog.text


@pytest.mark.parametrize("timestamp", [-1, "yesterday", float("nan"), 2**63])
def test_time_that_is_none(run: Run, read: Read, caplog: pytest.LogCaptureFixture, timestamp: Any) -> None:
    """The present time is taken, and that is said."""
    run.log_metric("a", 1.0, timestamp=timestamp)
    record = read(run.directory)[2]
    assert isinstance(record, Metrics)
    assert abs(record.time / 1000 - time.time()) < 60
    assert "the present time is taken" in caplog.text


def test_what_is_no_number(read: Read, points: Points, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, counted, and said once of each key; the rest of the call is kept."""
    run = mlops.start_run()
    run.log_metrics({"text": "x", "loss": 0.5, "none": None, "pair": [1, 2]}, step=1)
    run.log_metric("text", object())
    run.finish()
    assert points(run) == [("loss", 0.5, 1)]
    assert losses(read(run.directory)) == {"metric that is no number": 4}
    said = [message for message in caplog.messages if message.startswith("mlops: not kept: metric that is no number")]
    assert [message.partition("(")[2].partition(":")[0] for message in said] == ["text", "none", "pair"]
    assert caplog.messages[-1] == "mlops: not kept in all: 4 x metric that is no number"


def test_many_things_that_are_no_numbers(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Only the first few keys are named: a mistake in a large loop does not fill the terminal."""
    run.log_metrics({f"key{i}": None for i in range(100)})
    assert sum("no number" in message for message in caplog.messages) == 5


def test_losses_are_counted_once(read: Read) -> None:
    """Each journal file counts its own losses, so that a re-opened run does not count them again."""
    run = mlops.start_run()
    run.log_metric("a", None)
    run.finish()
    run.log_metric("a", 1.0)
    run.finish()
    assert losses(read(run.directory)) == {"metric that is no number": 1}


def test_what_is_logged_after_the_end_does_not_change_how_it_ended(
    python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A run that FAILED, re-opened by a late log call and left open, is FAILED with its reason."""
    done = python(
        "import mlops_integrations as mlops\n"
        "try:\n"
        "    with mlops.start_run(uploader='thread') as run:\n"
        "        raise ValueError('boom')\n"
        "except ValueError:\n"
        "    run.log_metric('late', 1)\n"
        "print(run.directory)\n"
    )
    assert done.returncode == 0, done.stderr
    ended = RunDirectory(Path(done.stdout.strip())).ending()
    assert ended is not None
    assert (ended.status, ended.reason) == ("FAILED", "ValueError: boom")


@pytest.mark.parametrize("call", ["log_metrics", "log_params", "set_tags"])
def test_no_mapping(run: Run, read: Read, caplog: pytest.LogCaptureFixture, call: str) -> None:
    """A list in place of a mapping is a wrong argument: counted, said with what would be right, never raised."""
    getattr(run, call)([("a", 1)])
    assert caplog.messages[-1] == (
        f"mlops: not kept: wrong argument ({call} takes a mapping of names to values, not list)"
    )


@pytest.mark.parametrize("name", ["params", "tags"])
def test_start_with_no_mapping(name: str) -> None:
    """At construction a wrong argument is an error."""
    with pytest.raises(ValueError, match=f"{name}= takes a mapping"):
        mlops.start_run(**{name: [1]})


def test_call_with_nothing_to_keep(run: Run, read: Read) -> None:
    """It writes no record."""
    run.log_metrics({})
    run.log_metrics({"a": "x"})
    run.log_params({})
    run.set_tags({})
    assert [Header, RunSpec] == [type(record) for record in read(run.directory)]


def test_keys_that_are_no_text(run: Run, points: Points) -> None:
    """They are kept by ``str``; half surrogate pairs are spelled out."""
    run.log_metrics({1: 1.0, ("a", 2): 2.0}, step=0)  # type: ignore[dict-item]
    run.log_metrics({"bad\ud800": 3.0, "good": 4.0}, step=0)
    assert points(run) == [("1", 1.0, 0), ("('a', 2)", 2.0, 0), ("bad\\ud800", 3.0, 0), ("good", 4.0, 0)]


def test_numpy_values(run: Run, points: Points) -> None:
    """NumPy's numbers are values, its integers steps and its texts names."""
    np = pytest.importorskip("numpy")
    run.log_metrics({np.str_("a"): np.float32(0.5), "b": np.array([2])}, step=np.int64(3))
    run.log_params({np.str_("p"): np.str_("v")})
    assert points(run) == [("a", 0.5, 3), ("b", 2.0, 3)]


def test_a_step_is_not_given_out_again_to_another_thread(
    run: Run, points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that was taken is not noted once more, when another thread has taken the following ones meanwhile."""
    taken = run._metric_input
    next_step = taken.next_step

    def overtaken(key: str) -> int:
        step = next_step(key)
        next_step(key)
        return step

    with monkeypatch.context() as beside:
        beside.setattr(taken, "next_step", overtaken)
        run.log_metric("loss", 1.0)
    run.log_metric("loss", 1.0)
    assert [0, 2] == [step for _, _, step in points(run)]


def test_threads_log_at_the_same_time(run: Run, points: Points) -> None:
    """Every point is there, each thread's in its order, and next steps are given out once."""
    barrier = threading.Barrier(4)

    def log(number: int) -> None:
        barrier.wait(10)
        for step in range(200):
            run.log_metrics({f"thread {number}": step, "more": 0.0}, step=step)
            run.log_metric("shared", 1.0)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = points(run)
    for number in range(4):
        assert list(range(200)) == [step for key, _, step in found if key == f"thread {number}"]
    assert list(range(800)) == sorted(step for key, _, step in found if key == "shared")


def test_large_call(run: Run, points: Points) -> None:
    """Ten thousand keys in one call are kept like one."""
    run.log_metrics({f"key {number}": number for number in range(10_000)}, step=1)
    assert [(f"key {number}", float(number), 1) for number in range(10_000)] == points(run)
