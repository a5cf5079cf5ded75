"""The uploader, against a server that does as it is told: every record arrives, once, whatever goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from msgspec import structs

from fake_mlflow import FakeMlflow, FakeRun
from mlops_integrations.backends.protocol import Backend, Kind, Outcome
from mlops_integrations.backends.registry import open_backend
from mlops_integrations.config.settings import Access
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.records import End, Header, Metrics, RunSpec, Tags
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.pacing import DENIED_BACKOFF, Pacer
from mlops_integrations.upload.server_calls import (
    GaveUpError,
    InterruptedUploadError,
    ServerCalls,
    StoppedByServerError,
    UploadContext,
)
from mlops_integrations.upload.uploader import Result, Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses

Make = Callable[..., Uploader]
Record = Callable[..., JournalWriter]


class Clock(Protocol):
    """Time that passes only when somebody sleeps."""

    now: float

    def __call__(self) -> float:
        """The present time."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


def expected(points: int, key: str = "loss") -> set[tuple[str, float, int, int]]:
    """What the server is to hold of so many recorded points."""
    return {(key, float(step), 1_000 + step, step) for step in range(points)}


def test_a_drain_delivers_and_closes(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """All of an ended run arrives, its status with the time of its end; a second drain sends nothing of it again."""
    record(2_500)

    assert uploader().drain() == Result(delivered=True, closed=True)

    run = server.run("baseline")
    assert run.metrics == expected(2_500)
    assert (run.params, run.tags["team"]) == ({"lr": "0.1"}, "vision")
    assert (run.status, run.end_time) == ("FINISHED", 9_000)
    assert server.requests.count("runs/log-batch") == 1 + 1 + 3
    before = len(server.requests)
    assert uploader().drain() == Result(delivered=True, closed=True)
    assert len(server.requests) == before


FAILURE = pytest.mark.parametrize(
    ("status", "code"), [(500, "INTERNAL_ERROR"), (400, "BAD_REQUEST")], ids=["internal error", "no connection left"]
)
"""What MLflow answers when something of its own fails, and when its database does."""


class Crash(BaseException):
    """The uploader's process dies here."""


class CrashingBackend:
    """Forwards calls to a backend, until the given one: there the process dies, before or after the call is done."""

    def __init__(self, backend: Backend, at_call: int, *, after: bool) -> None:
        self._backend = backend
        self._left = at_call
        self._after = after

    def __getattr__(self, name: str) -> object:
        attribute = getattr(self._backend, name)
        if not callable(attribute) or name in {"name_fault", "run_url"}:
            return attribute

        def call(*arguments: object, **options: object) -> object:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Crash
            outcome = attribute(*arguments, **options)
            if self._left == 0:
                raise Crash
            return outcome

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_a_death_at_any_server_call_costs_nothing(
    run: RunDirectory, uploader: Make, record: Record, tmp_path: Path, after: bool
) -> None:
    """Killed at its first, second, ... server call: the next uploader brings the same end, with one run."""
    record(2_100)
    for number in range(1, 100):
        for path in tmp_path.glob("cursor-*"):
            path.unlink()
        with FakeMlflow() as server:
            backend = CrashingBackend(open_backend(server.uri, Access(timeout=5.0)), number, after=after)
            died = False
            writers = WriterProcesses(run)
            try:
                Uploader(run, backend, server.uri, writers, UploadContext()).drain()  # type: ignore[arg-type]
            except Crash:
                died = True
            writers.close()

            assert uploader(server).drain() == Result(delivered=True, closed=True)

            made = [known for known in server.runs.values() if not known.deleted]
            assert [(known.metrics, known.status) for known in made] == [(expected(2_100), "FINISHED")]
        if not died:
            assert number > 8
            return
    pytest.fail("it never got through")


def test_each_destination_has_its_own_cursor(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """Delivered to one server, a run is delivered to another from its beginning."""
    record(100)
    uploader().drain()
    with FakeMlflow() as other:
        uploader(other).drain()

        assert other.run("baseline").metrics == server.run("baseline").metrics == expected(100)


def test_a_busy_server_is_asked_again(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """After answers of 503 the same batch is sent again, and it arrives once."""
    record(100)
    server.answer_next("runs/log-batch", 503, times=4)

    uploader().drain()

    assert server.run("baseline").metrics == expected(100)
    assert server.requests.count("runs/log-batch") == 4 + 3


MAINTENANCE = {"status": "maintenance"}
WRAPPED = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "try again"}
"""What gateways answer with 200 in a server's place."""


@pytest.mark.parametrize("body", [MAINTENANCE, WRAPPED], ids=["a word of its own", "an error in a 200"])
@pytest.mark.parametrize(
    "call", ["experiments/get-by-name", "runs/create", "runs/search", "runs/log-batch", "runs/update"]
)
@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
def test_a_success_that_is_not_the_servers_acknowledges_nothing(
    server: FakeMlflow, uploader: Make, record: Record, clock: Clock, call: str, body: dict[str, str], done: bool
) -> None:
    """Whether the server has seen the request or not: it is looked up, sent again if need be, and arrives once."""
    record(1_500)
    server.answer_next("runs/create", 503, times=int(call == "runs/search"))
    server.answer_next(call, 200, times=3, body=body, done=done)
    troubles = set()
    delivering = uploader()

    def stop() -> bool:
        if delivering.state.trouble is not None:
            troubles.add(delivering.state.trouble.message)
        return False

    delivering._calls._context.stop = stop
    assert delivering.drain() == Result(delivered=True, closed=True)

    (run,) = server.runs.values()
    assert (run.metrics, run.status) == (expected(1_500), "FINISHED")
    assert (run.params, run.tags["team"]) == ({"lr": "0.1"}, "vision")
    told = [text for text in troubles if f"HTTP 200, but no answer to {call}" in text]
    assert told
    assert all(next(iter(body.values())) in text for text in told)
    assert delivering.state.trouble is None


@pytest.mark.parametrize("call", ["runs/log-batch", "runs/update", "runs/create", "experiments/create"])
def test_a_gateway_that_never_passes_an_answer_on(
    server: FakeMlflow, uploader: Make, record: Record, call: str
) -> None:
    """What such a call has done is seen by looking, so nothing is sent twice, and the run is delivered."""
    record(1_500)
    server.answer_next(call, 200, times=1_000, body=MAINTENANCE, done=True)

    assert uploader().drain() == Result(delivered=True, closed=True)

    (run,) = server.runs.values()
    assert (run.metrics, run.status) == (expected(1_500), "FINISHED")
    # Parameters, tags, and two batches of metrics.
    assert server.requests.count(call) == (4 if call == "runs/log-batch" else 1)


def test_patience_ends_although_the_looks_for_a_batch_are_answered(
    server: FakeMlflow, uploader: Make, record: Record
) -> None:
    """A server that answers every question and does no write is given up; the trouble stays said meanwhile."""
    record(10)
    server.answer_next("runs/log-batch", 200, times=1_000, body=MAINTENANCE)
    delivering = uploader(patience=60.0)

    with pytest.raises(GaveUpError, match="maintenance"):
        delivering.drain()

    assert delivering.state.trouble is not None
    assert delivering.state.points == 0


def test_a_refusal_of_the_credentials_keeps_everything(
    server: FakeMlflow, uploader: Make, record: Record, run: RunDirectory
) -> None:
    """On 401 nothing is set aside: it is tried again slowly, with the trouble written down meanwhile."""
    record(100)
    server.answer_next("runs/log-batch", 401, times=8)
    troubles = set()
    delivering = uploader()

    def stop() -> bool:
        if delivering.state.trouble is not None:
            troubles.add(delivering.state.trouble.message)
        return False

    delivering._calls._context.stop = stop
    delivering.drain()

    assert troubles == {"HTTP 401: {}"}
    assert delivering.state.trouble is None
    assert server.run("baseline").metrics == expected(100)
    assert not run.refused.exists()


def test_one_culprit_is_found_with_few_requests(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """Of a refused batch only the culprit is set aside, at the cost of about two requests for each halving."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    for step in range(1_000):
        key = "poison" if step == 617 else "loss"
        journal.append(Metrics(1_000 + step, [(key, float(step), step)]))
    journal.finish(End(9_000, "FINISHED"))
    server.refuse_metric("poison")

    delivering = uploader()
    delivering.drain()

    assert server.run("baseline").metrics == expected(1_000) - {("loss", 617.0, 1_617, 617)}
    (line,) = run.refused.read_text().splitlines()
    assert json.loads(line)["metric"] == {"key": "poison", "value": 617.0, "timestamp": 1_617, "step": 617}
    assert delivering.state.refused == {"INVALID_PARAMETER_VALUE": 1}
    assert delivering.state.points == 999
    assert server.requests.count("runs/log-batch") <= 1 + 2 * 10


@FAILURE
def test_a_record_at_which_the_server_fails_each_time_does_not_hold_up_the_rest(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec, status: int, code: str
) -> None:
    """A request that ends in a failure of the server each time, while others do not, is poison like a refused one."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    for step in range(100):
        journal.append(Metrics(1_000 + step, [("poison" if step == 61 else "loss", float(step), step)]))
    journal.finish(End(9_000, "FINISHED"))
    server.refuse_metric("poison", status, code)

    delivering = uploader()

    assert delivering.drain() == Result(delivered=True, closed=True)
    assert server.run("baseline").metrics == expected(100) - {("loss", 61.0, 1_061, 61)}
    assert delivering.state.refused == {code: 1}


@FAILURE
def test_a_server_that_fails_at_everything_is_no_proof_of_poison(
    server: FakeMlflow, uploader: Make, record: Record, run: RunDirectory, status: int, code: str
) -> None:
    """While the server fails at other writes too, nothing is set aside."""
    record(100)
    server.answer_next("runs/log-batch", status, times=8, body={"error_code": code})
    server.answer_next("runs/update", status, times=8, body={"error_code": code})

    uploader().drain()

    assert server.run("baseline").metrics == expected(100)
    assert not run.refused.exists()


def test_a_deleted_run_is_no_poison(server: FakeMlflow, uploader: Make, record: Record, run: RunDirectory) -> None:
    """A run deleted on the server stops the delivery with nothing set aside; the trouble says what to do."""
    record(10, end=False).close()
    uploader().drain()
    server.run("baseline").deleted = True
    record(10, key="late")

    with pytest.raises(StoppedByServerError, match="deleted on the server"):
        uploader().drain()

    assert not run.refused.exists()
    state = uploader().state
    assert state.stopped
    assert state.points == 10


def test_a_run_that_is_deleted_while_a_culprit_is_looked_for(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """Its refusals are no proof against what was halved at that moment: nothing is set aside, and nothing lost."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    for step in range(64):
        journal.append(Metrics(1_000 + step, [("poison" if step == 10 else "loss", float(step), step)]))
    journal.finish(End(9_000, "FINISHED"))
    server.refuse_metric("poison")
    delivering = uploader()
    halving = len([1 for _ in ("params", "whole", "half", "quarter")])

    def stop() -> bool:
        if server.requests.count("runs/log-batch") == halving:
            server.run("baseline").deleted = True
        return False

    delivering._calls._context.stop = stop
    with pytest.raises(StoppedByServerError, match="deleted on the server"):
        delivering.drain()
    assert not run.refused.exists()
    (made,) = server.runs.values()
    made.deleted = False

    uploader().drain()

    assert server.run("baseline").metrics == expected(64) - {("loss", 10.0, 1_010, 10)}
    assert 1 == len(run.refused.read_text().splitlines())


def test_why_a_run_ended_is_told_however_ill_the_server_is(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """The reason is a record like others: internal errors, while other writes are done, do not make it go missing."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    journal.finish(End(9_000, "FAILED", "ValueError: no"))
    server.answer_next("runs/log-batch", 500, times=6, body={"error_code": "INTERNAL_ERROR"})

    assert uploader().drain() == Result(delivered=True, closed=True)

    made = server.run("baseline")
    assert ("FAILED", "ValueError: no") == (made.status, made.tags["mlops.exit.reason"])


def test_texts_over_the_limit_are_cut_and_counted(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """A tag longer than the server keeps arrives cut, and that is counted."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    journal.append(Tags(1, {"long": "x" * 9_000}))
    journal.finish(End(9_000, "FINISHED"))

    delivering = uploader()
    delivering.drain()

    assert server.run("baseline").tags["long"] == "x" * 8_000
    assert delivering.state.shortened == 1


def test_first_records_go_at_once_and_later_ones_wait(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """A follower sends what comes first without a pause; what comes then waits until the pause is over."""
    journal = record(1, end=False)
    sent: list[int] = []
    delivering = uploader()

    def stop() -> bool:
        made = list(server.runs.values())
        points = len(made[0].metrics) if made else 0
        if points == 1 and not sent:
            sent.append(server.requests.count("runs/log-batch"))
            journal.append(Metrics(1_001, [("loss", 1.0, 1)]))
        return points == 2

    delivering._calls._context.stop = stop
    clock = delivering._calls.now
    with pytest.raises(InterruptedUploadError):
        delivering.follow()
    journal.close()

    assert server.run("baseline").metrics == expected(2)
    assert clock() - 1_000.0 >= 0.4  # the shortest pause, with its jitter, on the test's clock


def test_somebody_who_waits_ends_the_pause(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """A flush (which wakes the uploader) is not kept waiting by the pause."""
    journal = record(1, end=False)
    woken = [0]
    delivering = uploader(wake_time=lambda: woken[0])
    delivering._pacer.observe(3.0, full=False)  # a slow server: its pause would be 27 s

    def stop() -> bool:
        made = list(server.runs.values())
        points = len(made[0].metrics) if made else 0
        if points == 1 and not woken[0]:
            journal.append(Metrics(1_001, [("loss", 1.0, 1)]))
            woken[0] = 1
        return points == 2

    delivering._calls._context.stop = stop
    clock = delivering._calls.now
    with pytest.raises(InterruptedUploadError):
        delivering.follow()
    journal.close()

    assert clock() - 1_000.0 < 5.0


def test_somebody_who_came_before_the_uploader_is_not_kept_waiting(
    server: FakeMlflow, uploader: Make, record: Record
) -> None:
    """A flush that was asked for while the uploader was still coming up counts as one asked for now."""
    record(1, end=False).close()
    delivering = uploader(wake_time=lambda: 123)

    assert delivering._calls.woken()
    assert not delivering._calls.woken()


def test_a_drain_ends_where_the_journal_ended_when_it_began(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """A run that logs as fast as it is drained does not keep a drain from ending."""
    journal = record(1_500, end=False)
    steps = iter(range(1_500, 1_000_000))
    delivering = uploader()

    def grow(_: object) -> None:
        for _number in range(1_000):
            step = next(steps)
            journal.append(Metrics(1_000 + step, [("loss", float(step), step)]))

    delivering._on_progress = grow

    assert delivering.drain() == Result(delivered=True, closed=False)

    journal.close()
    assert expected(1_500) <= server.run("baseline").metrics
    assert server.run("baseline").status == "RUNNING"


def test_a_run_that_goes_on_is_running_again(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """An ended and closed run that gets another journal file is RUNNING until that one has ended too."""
    record(5)
    uploader().drain()
    journal = record(5, key="again", end=False)
    assert server.run("baseline").status == "FINISHED"

    assert uploader().drain() == Result(delivered=True, closed=False)
    assert server.run("baseline").status == "RUNNING"

    journal.finish(End(9_500, "FAILED", "ValueError: late"))
    assert uploader().drain() == Result(delivered=True, closed=True)
    run = server.run("baseline")
    assert (run.status, run.end_time, run.tags["mlops.exit.reason"]) == ("FAILED", 9_500, "ValueError: late")
    assert run.metrics == expected(5) | expected(5, "again")


def test_why_a_run_ended_before_is_not_why_it_ends_now(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """A run of the server that was killed, say, and goes on from another directory: its old reason does not stay."""
    server.experiments["fake"] = "1"
    server.runs["abc"] = FakeRun("abc", "1", "baseline", 1, "KILLED", tags={"mlops.exit.reason": "SIGKILL"})
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake", resume_run_id="abc"))
    journal.append(Metrics(1_000, [("loss", 0.0, 0)]))
    journal.finish(End(9_000, "FINISHED"))

    uploader().drain()

    made = server.run("baseline")
    assert ("FINISHED", "") == (made.status, made.tags["mlops.exit.reason"])


def test_half_a_line_of_a_dead_writer_does_not_hold_up_the_end(
    server: FakeMlflow, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """What a writer left half written when it died is counted, and the run is closed all the same."""
    dead = structs.replace(header.writer, start_time="long ago")
    journal = JournalWriter(
        run.path, structs.replace(header, writer=dead), structs.replace(spec, experiment_name="fake")
    )
    journal.append(Metrics(1_000, [("loss", 0.0, 0)]))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'00000000 {"type":"metr')

    delivering = uploader()

    assert delivering.drain() == Result(delivered=True, closed=True)
    assert delivering.state.bad_lines == 1
    assert delivering.state.covers(run.sizes())
    made = server.run("baseline")
    assert (made.status, made.tags["mlops.exit.reason"]) == ("FAILED", "process disappeared")


def test_patience_ends_although_the_looks_for_the_run_are_answered(
    server: FakeMlflow, uploader: Make, record: Record
) -> None:
    """A server that never creates the run, but answers every search for it, does not keep a drain for ever."""
    record(1)
    server.answer_next("runs/create", 500, times=1_000)
    delivering = uploader(patience=60.0)

    with pytest.raises(GaveUpError, match="creating the run"):
        delivering.drain()

    assert delivering.state.trouble is not None
    assert "creating the run" in delivering.state.trouble.message


def test_credentials_that_are_refused_for_days(clock: Clock, tmp_path: Path) -> None:
    """However many attempts have failed, the next one comes, after the longest pause."""
    asking = ServerCalls(
        Cursor("http://host"),
        tmp_path / "cursor.json",
        Pacer(Random(0)),
        UploadContext(clock=clock, sleep=clock.sleep, rng=Random(0)),
    )
    began = clock.now

    asking.back_off(5_000, Outcome(Kind.DENIED, message="HTTP 401"))

    assert DENIED_BACKOFF - 1.0 <= clock.now - began <= 100.0


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b'{"destination":"htt'], ids=["empty", "zeros", "torn"])
def test_damaged_cursor_makes_no_second_run(
    server: FakeMlflow, uploader: Make, record: Record, tmp_path: Path, content: bytes
) -> None:
    """A cursor that a power failure has spoilt: the run is looked for, and delivered into again."""
    record(10)
    uploader().drain()
    (path,) = tmp_path.glob("cursor-*")
    path.write_bytes(content)

    assert uploader().drain() == Result(delivered=True, closed=True)

    assert server.requests.count("runs/create") == 1
    assert server.run("baseline").metrics == expected(10)


def test_bad_last_line_is_passed_over(server: FakeMlflow, uploader: Make, record: Record, run: RunDirectory) -> None:
    """A damaged line at the end of a journal file counts as delivered, and as damaged, once."""
    journal = record(5, end=False)
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b"damaged\n")
    record(5, key="again")

    delivering = uploader()

    assert delivering.drain() == Result(delivered=True, closed=False)
    assert delivering.state.covers(run.sizes())
    assert delivering.state.bad_lines == 1
    assert server.run("baseline").metrics == expected(5) | expected(5, "again")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_read_journals_are_closed(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """However often a run is re-opened while it is followed, few of its files are open."""
    first = record(1, end=False, key="key 0")
    opened = 1
    most = 0
    delivering = uploader()

    def stop() -> bool:
        nonlocal opened, most
        made = list(server.runs.values())
        if made and len(made[0].metrics) == opened:
            files = [fd for fd in Path("/proc/self/fd").iterdir() if str(os.path.realpath(fd)).endswith(".jsonl")]
            most = max(most, len(files))
            record(1, key=f"key {opened}")
            opened += 1
        return opened == 9

    delivering._calls._context.stop = stop
    with pytest.raises(InterruptedUploadError):
        delivering.follow()
    first.close()

    assert most <= 3  # the first one's writer, the newest, and one before it


def test_storage_that_can_not_sync(
    server: FakeMlflow, uploader: Make, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without ``fsync`` all is delivered."""

    def fail(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    record(10)

    assert uploader().drain() == Result(delivered=True, closed=True)
    assert server.run("baseline").metrics == expected(10)


def test_trouble_of_another_time_is_dated_anew(server: FakeMlflow, uploader: Make, record: Record) -> None:
    """That delivery had stopped once says nothing about this attempt: its trouble begins now, and stops nothing."""
    record(10, end=False).close()
    before = uploader()
    before.drain()
    before._calls.write_trouble("run deleted", stopped=True)
    stopped = before.state.trouble
    record(10, key="late")
    server.answer_next("runs/log-batch", 503)
    delivering = uploader()
    delivering.state.trouble = structs.replace(stopped, since=1)
    troubles = []

    def stop() -> bool:
        troubles.append(delivering.state.trouble)
        return False

    delivering._calls._context.stop = stop
    delivering.drain()

    found = [trouble for trouble in troubles if trouble is not None]
    assert found
    assert not any(trouble.stopped or trouble.since == 1 for trouble in found)


def test_a_run_of_more_files_than_may_be_open(
    python: Callable[..., subprocess.CompletedProcess[str]], server: FakeMlflow, record: Record, tmp_path: Path
) -> None:
    """A run that was re-opened often, and is read for the first time, needs no descriptor for each of its files."""
    for number in range(150):
        record(1, key=f"loss{number}")
    done = python(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mlops_integrations.backends.registry import open_backend\n"
        "from mlops_integrations.journal.rundir import RunDirectory\n"
        "from mlops_integrations.config.settings import Access\n"
        "from mlops_integrations.upload.server_calls import UploadContext\n"
        "from mlops_integrations.upload.uploader import Uploader\n"
        "from mlops_integrations.upload.writer_processes import WriterProcesses\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "run = RunDirectory(Path(sys.argv[1]))\n"
        "backend = open_backend(sys.argv[2], Access())\n"
        "print(Uploader(run, backend, sys.argv[2], WriterProcesses(run), UploadContext()).drain())\n",
        str(tmp_path),
        server.uri,
    )
    assert "Result(delivered=True, closed=True)\n" == done.stdout, done.stderr
    assert 150 == len(server.run("baseline").metrics)
