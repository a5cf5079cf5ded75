"""What a recording waits for and tells, by what the uploader has written down."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.framework_support import lenient_start
from mlops_integrations.journal import cursor
from mlops_integrations.journal.cursor import Cursor, Trouble
from mlops_integrations.journal.lease import Lease
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording.messages import Messages
from mlops_integrations.recording.run import Run

URI = "http://127.0.0.1:9"


@pytest.fixture
def first() -> Run:
    """A run that was recorded, to be delivered by the test's own hand: nobody else gets its lease."""
    recorded = mlops.start_run(tracking_uri=URI, mode="offline")
    recorded.log_metrics({"loss": 1.0})
    recorded.finish()
    assert Lease(recorded.directory, "sync", yields=False).acquire()
    return recorded


def write_down(run: Run, state: Cursor) -> None:
    """As the uploader does."""
    cursor.save(cursor.cursor_path(run.directory, URI), state)


def test_end_that_another_thread_undoes(first: Run) -> None:
    """Who waits for the end waits for what there was at the end, not for what is logged afterwards."""
    run = mlops.start_run(resume=first, tracking_uri=URI)
    recorder = run._recorder
    recorder.end("FINISHED", None)
    write_down(run, Cursor(URI, positions=RunDirectory(run.directory).sizes()))
    run.log_metric("late", 1.0)
    assert run.is_open
    assert recorder.delivery.wait(0.2)
    run.finish(timeout=0.01)


def test_left_over_of_a_resumed_run(first: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What was delivered before this process began does not count for its points."""
    write_down(first, Cursor(URI, run_id="r", points=1_000))
    run = mlops.start_run(resume=first, tracking_uri=URI)
    for step in range(10):
        run.log_metric("loss", 1.0, step=step)
    write_down(first, Cursor(URI, run_id="r", points=1_003))
    assert not run.finish(timeout=0.05)
    assert "3 of 10 points delivered" in caplog.text


def test_stop_of_another_time_ends_no_wait(first: Run) -> None:
    """That delivery had stopped before this process began says nothing; that it stops now ends the wait."""
    write_down(first, Cursor(URI, trouble=Trouble("run deleted", 1, stopped=True)))
    run = mlops.start_run(resume=first, tracking_uri=URI)
    looks = itertools.count()
    assert run._recorder.delivery.wait_until(lambda: next(looks) == 3, 30.0)
    write_down(first, Cursor(URI, trouble=Trouble("run deleted", 2, stopped=True)))
    assert not run._recorder.delivery.wait_until(lambda: next(looks) > 1_000, 30.0)
    assert next(looks) < 1_000
    run.finish(timeout=0.01)


def test_trouble_in_ever_new_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway may put a number of its own into each answer: a few are said, not all."""
    messages = Messages(tmp_path, quiet=False)
    for number in range(50):
        messages.server_news(Cursor(URI, trouble=Trouble(f"HTTP 503: request {number}", 1)))
    assert 1 <= len(caplog.messages) <= 5


def rank_1(first: Run) -> Run:
    """A second process that records into the same run."""
    joined = lenient_start.join({"tracking_uri": URI, "mode": "offline"}, first.uid, first.directory, 1)
    joined.log_metric("rank1/loss", 1.0)
    return joined


@pytest.mark.parametrize("fails", [False, True])
def test_ranks_wait_for_what_they_know(fails: bool) -> None:
    """Rank 1 waits for its own points, rank 0 for the run's status, which may be that of rank 1, and from before."""
    run = mlops.start_run(tracking_uri=URI, mode="offline")
    joined = rank_1(run)
    if fails:
        joined._recorder.end("FAILED", "ValueError: no such digit")
        time.sleep(0.01)  # the clock has to tell them apart
    run._recorder.end("FAILED" if fails else "FINISHED", "exit code 1" if fails else None)
    if not fails:
        time.sleep(0.01)  # as above
        joined._recorder.end("FINISHED", None)
    ended = RunDirectory(run.directory).ending()
    assert ended is not None
    recordings = {recorder.spec.rank: recorder for recorder in (run._recorder, joined._recorder)}
    sizes = RunDirectory(run.directory).sizes()

    write_down(run, Cursor(URI, positions={"journal-0002.jsonl": sizes["journal-0002.jsonl"]}, status="RUNNING"))
    assert {0: False, 1: True} == {rank: known.delivery.is_delivered() for rank, known in recordings.items()}
    delivered = Cursor(URI, positions=sizes, status=ended.status, status_time=ended.time)
    write_down(run, delivered)
    assert {0: True, 1: True} == {rank: known.delivery.is_delivered() for rank, known in recordings.items()}


def test_a_requeued_run_that_was_terminated_waits_for_no_other_status() -> None:
    """What a process says of its end after its job was requeued is not what the server is told."""
    run = mlops.start_run(tracking_uri=URI, mode="offline")
    run._recorder.close("RUNNING", None, timeout=0.0)
    run.log_metric("late", 1.0)
    run._recorder.end("KILLED", "SIGTERM")
    ended = RunDirectory(run.directory).ending()
    assert ended is not None
    sizes = RunDirectory(run.directory).sizes()
    write_down(run, Cursor(URI, positions=sizes, status=ended.status, status_time=ended.time))
    assert "RUNNING" == ended.status
    assert run._recorder.delivery.is_delivered()
