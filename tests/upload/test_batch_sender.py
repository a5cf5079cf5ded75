"""Each write has a name: the same each time that it is asked for, by whichever uploader, and another for any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from fake_mlflow import FakeMlflow
from mlops_integrations.backends.oracle.backend import OracleBackend
from mlops_integrations.backends.protocol import Batch, Kind, Outcome
from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access
from mlops_integrations.journal import cursor
from mlops_integrations.journal.cursor import Cursor, Sending
from mlops_integrations.journal.records import Header, Metrics, Params, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.batch_sender import idempotency_token
from mlops_integrations.upload.server_calls import UploadContext
from mlops_integrations.upload.uploader import Result, Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses

Record = Callable[..., JournalWriter]
Write = tuple[str, str, Any]
"""What is asked for, its name, its content."""


class Crash(BaseException):
    """The uploader's process dies here."""


class Remembering:
    """A backend that writes down what is asked of it, and does as it is told after a batch has been sent."""

    def __init__(self, server: FakeMlflow) -> None:
        self._backend = OracleBackend(server.uri, Transport(Access(timeout=5.0)))
        self.writes: list[Write] = []
        self.compared: list[Batch] = []
        self.after_send: Callable[[Outcome[None]], Outcome[None]] = lambda outcome: outcome
        self.there: Callable[[Batch], Batch] = lambda batch: batch

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._backend, name)
        if name not in {"open_experiment", "create_run", "update_run", "delete_run"}:
            return attribute

        def call(*arguments: Any) -> Any:
            self.writes.append((name, arguments[-1], arguments[:-1]))
            return attribute(*arguments)

        return call

    def send(self, run_id: str, batch: Batch, token: str) -> Outcome[None]:
        """Send, then what the test wants."""
        self.writes.append(("send", token, batch))
        return self.after_send(self._backend.send(run_id, batch, token))

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """What the test says."""
        self.compared.append(batch)
        return Outcome(Kind.OK, self.there(batch))

    def sent(self) -> list[Write]:
        """The batches with metrics."""
        return [write for write in self.writes if write[0] == "send" and write[2].metrics]


@pytest.fixture
def backend(server: FakeMlflow) -> Remembering:
    """A server that knows writes by their names."""
    return Remembering(server)


@pytest.fixture
def uploader(run: RunDirectory, server: FakeMlflow, clock: Any) -> Iterator[Callable[[Remembering], Uploader]]:
    """Makes an uploader to such a server."""
    watched: list[WriterProcesses] = []

    def make(backend: Remembering) -> Uploader:
        watched.append(WriterProcesses(run))
        context = UploadContext(clock=clock, sleep=clock.sleep)
        return Uploader(run, backend, server.uri, watched[-1], context)  # type: ignore[arg-type]

    yield make
    for writers in watched:
        writers.close()


Make = Callable[[Remembering], Uploader]


def fails_once(kind: Outcome[None]) -> Callable[[Outcome[None]], Outcome[None]]:
    """The first batch with metrics is done, and answered so."""
    left = [kind]

    def after(outcome: Outcome[None]) -> Outcome[None]:
        return left.pop() if left else outcome

    return after


def test_every_attempt_has_the_same_name(backend: Remembering, uploader: Make, record: Record) -> None:
    """A write that is asked for again is the same write; its name is 64 characters long; others have other names."""
    record(2_500)
    backend.after_send = fails_once(Outcome(Kind.RETRY, message="down", ambiguous=True))

    assert uploader(backend).drain() == Result(delivered=True, closed=True)

    names = [name for _, name, _ in backend.writes]
    assert names[0] != names[1]
    assert [len(set(names)), len(names)] == [len(names) - 1, len(names)]
    assert {len(name) for name in names} == {64}
    assert backend.compared == []


def test_after_a_death_the_same_names(
    backend: Remembering, uploader: Make, record: Record, header: Header, spec: RunSpec, run: RunDirectory
) -> None:
    """Killed between sending and saving: the same batch goes out by the same name, whatever has come since."""
    journal = record(300, end=False)

    def die(_outcome: Outcome[None]) -> Outcome[None]:
        raise Crash

    backend.after_send = lambda outcome: outcome if not backend.sent() else die(outcome)
    with pytest.raises(Crash):
        uploader(backend).drain()
    for step in range(300, 500):
        journal.append(Metrics(1_000 + step, [("loss", float(step), step)]))
    backend.after_send = lambda outcome: outcome

    assert uploader(backend).drain() == Result(delivered=True, closed=False)

    first, again, rest = backend.sent()
    assert first == again
    assert len(first[2].metrics) == 300
    assert (rest[1] != first[1], len(rest[2].metrics)) == (True, 200)
    assert backend.compared == []
    (state,) = cursor.load_all(run.path)
    assert (state.points, state.sending, state.doubled) == (500, None, 0)
    journal.close()


def test_names_grow_old(
    backend: Remembering, uploader: Make, record: Record, run: RunDirectory, server: FakeMlflow
) -> None:
    """A day later the server has forgotten them: what it shows is not sent again; the rest is, and counted."""
    record(300)

    def die(_outcome: Outcome[None]) -> Outcome[None]:
        raise Crash

    backend.after_send = lambda outcome: outcome if not backend.sent() else die(outcome)
    with pytest.raises(Crash):
        uploader(backend).drain()
    path = cursor.cursor_path(run.path, server.uri)
    state = cursor.load(path)
    assert state is not None
    assert state.sending is not None
    state.sending = Sending(state.sending.positions, state.sending.since - 24 * 3600 * 1000)
    cursor.save(path, state)
    backend.after_send = lambda outcome: outcome
    backend.there = lambda batch: replace(batch, metrics=batch.metrics[:100])

    uploader(backend).drain()

    first, again = backend.sent()
    assert [len(batch.metrics) for batch in backend.compared] == [300]
    assert (len(again[2].metrics), again[1] != first[1]) == (100, True)
    (state,) = cursor.load_all(run.path)
    assert (state.points, state.doubled, state.sending) == (300, 100, None)


def test_after_a_death_without_names(backend: Remembering, uploader: Make, record: Record) -> None:
    """A server that knows none is asked what it has of the whole chunk, though a part that went before was answered."""
    backend.limits = replace(backend.limits, token_seconds=0.0)
    record(300)
    backend.after_send = lambda outcome: outcome if not backend.sent() else _die()
    with pytest.raises(Crash):
        uploader(backend).drain()
    backend.after_send = lambda outcome: outcome
    backend.there = lambda batch: replace(batch, metrics=batch.metrics[:100])
    delivering = uploader(backend)

    delivering.drain()

    _, again = backend.sent()
    assert [len(batch.metrics) for batch in backend.compared] == [300]
    assert len(again[2].metrics) == 100
    assert {name for call, name, _ in backend.writes if call == "send"} == {""}
    assert (delivering.state.doubled, delivering.state.sending) == (0, None)


@pytest.mark.parametrize("token_seconds", [0.0, 3600.0], ids=["without names", "with names"])
def test_after_a_cursor_was_lost(
    backend: Remembering,
    uploader: Make,
    record: Record,
    run: RunDirectory,
    server: FakeMlflow,
    clock: Any,
    token_seconds: float,
) -> None:
    """All that was recorded by then may be there, not only the first chunk, and whichever uploader comes to it."""
    backend.limits = replace(backend.limits, token_seconds=token_seconds)
    for first, points in ((0, 1_000), (1_000, 1_000), (2_000, 500)):  # of several files, not all are open at once
        record(points, first=first, end=False).close()
    uploader(backend).drain()
    before = len(backend.sent())
    cursor.cursor_path(run.path, server.uri).write_bytes(b"")
    backend.there = lambda batch: Batch([metric for metric in batch.metrics if metric[0] == "late"])
    again = uploader(backend)
    again._on_progress = lambda _: _die()
    with pytest.raises(Crash):
        again.drain()
    uploader(backend).drain()
    assert [1_000, 1_000, 500] == [len(batch.metrics) for batch in backend.compared]
    record(10, key="late")

    uploader(backend).drain()

    assert [10] == [len(batch.metrics) for _, _, batch in backend.sent()[before:]]
    assert [1_000, 1_000, 500] == [len(batch.metrics) for batch in backend.compared]


def test_after_a_death_in_a_chunk_that_is_cut_elsewhere(
    backend: Remembering, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec
) -> None:
    """Who goes on may end its first chunk sooner: what the dead one had sent beyond is in doubt all the same."""
    backend.limits = replace(backend.limits, token_seconds=0.0)
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    many = {f"p{number}": "" for number in range(150)}
    journal.append(Params(1, {"p": "1"}))
    journal.append(Params(1, many))
    journal.append(Metrics(1_000, [("loss", 0.5, 0)]))
    journal.append(Metrics(1_001, [("loss", 0.25, 1)]))
    journal.close()
    backend.after_send = lambda outcome: outcome if not backend.sent() else _die()
    with pytest.raises(Crash):
        uploader(backend).drain()
    (first,) = backend.sent()
    assert 1 == len(first[2].metrics)
    backend.after_send = lambda outcome: outcome
    backend.there = lambda batch: Batch([metric for metric in batch.metrics if metric[3] == 1])

    uploader(backend).drain()

    assert [("loss", 0.25, 1_001, 1)] == [metric for _, _, batch in backend.sent()[1:] for metric in batch.metrics]


def test_internal_errors_after_the_write(backend: Remembering, uploader: Make, record: Record) -> None:
    """What is done and answered with internal errors each time is halved: the halves are compared before they go."""
    backend.limits = replace(backend.limits, token_seconds=0.0)
    record(10)
    ill = Outcome(Kind.RETRY, message="oops", code="INTERNAL_ERROR", ambiguous=True, suspect=True)
    backend.after_send = lambda outcome: ill if backend.writes[-1][2].metrics else outcome
    backend.there = lambda batch: batch if len(backend.sent()) < 4 else Batch()

    assert uploader(backend).drain() == Result(delivered=True, closed=True)

    assert 4 == len(backend.sent())


def test_a_name_that_is_not_valid_any_more(backend: Remembering, uploader: Make, record: Record) -> None:
    """It is compared, and what is missing is sent by another name."""
    record(10)
    backend.after_send = lambda outcome: (
        Outcome(Kind.RETRY, message="InvalidatedRetryToken", ambiguous=True, forgotten=True)
        if len(backend.sent()) == 1 and backend.writes[-1][2].metrics
        else outcome
    )
    backend.there = lambda batch: replace(batch, metrics=batch.metrics[:4])
    delivering = uploader(backend)

    delivering.drain()

    first, again = backend.sent()
    assert (len(first[2].metrics), len(again[2].metrics)) == (10, 4)
    assert first[1] != again[1]
    assert delivering.state.doubled == 4


def test_a_chunk_that_is_gone_does_not_hold_up_the_rest(
    backend: Remembering, uploader: Make, record: Record, run: RunDirectory, server: FakeMlflow
) -> None:
    """What the cursor calls on its way, though the journal has nothing there, is passed over."""
    record(10)
    path = cursor.cursor_path(run.path, server.uri)
    cursor.save(path, Cursor(server.uri, sending=Sending({"journal-9999.jsonl": 10}, 1)))

    assert uploader(backend).drain() == Result(delivered=True, closed=True)

    assert len(server.run("baseline").metrics) == 10


def test_a_run_that_is_opened_again_is_told_so(
    backend: Remembering, uploader: Make, record: Record, server: FakeMlflow
) -> None:
    """The second RUNNING is no repetition of the first one: the same words at another place of the journal."""
    for number in range(3):
        record(1, first=number)
        uploader(backend).drain()

    updates = [(name, content[1]) for call, name, content in backend.writes if call == "update_run"]
    assert [status for _, status in updates] == ["FINISHED", "RUNNING", "FINISHED", "RUNNING", "FINISHED"]
    assert len({name for name, _ in updates}) == 5


def test_no_nan(backend: Remembering, uploader: Make, run: RunDirectory, header: Header, spec: RunSpec) -> None:
    """Where a server takes finite numbers only, others are set aside and counted; the rest of their record goes on."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    for word in ("NaN", "Infinity", "-Infinity"):
        journal.append(Metrics(1_000, [("odd", word, 0), ("good", 1.0, 0)]))
    journal.close()
    delivering = uploader(backend)

    delivering.drain()

    ((_, _, batch),) = backend.sent()
    assert [metric[:2] for metric in batch.metrics] == [("good", 1.0)] * 3
    assert delivering.state.refused == {"not a finite number": 3}
    assert delivering.state.refused_first == {"not a finite number": "odd"}
    assert run.refused.read_text().count('"odd"') == 3


def test_names_tell_nothing() -> None:
    """They depend on run, destination, place and content, and hold none of them."""
    state = Cursor("http://server", positions={"journal-0001.jsonl": 10})
    names = {
        idempotency_token("uid", state, "a"),
        idempotency_token("uid", state, "b"),
        idempotency_token("other", state, "a"),
        idempotency_token("uid", Cursor("http://other", positions=state.positions), "a"),
        idempotency_token("uid", Cursor("http://server", positions={"journal-0001.jsonl": 11}), "a"),
        idempotency_token("uid", Cursor("http://server", positions=state.positions, sending=Sending({}, 1)), "a"),
        idempotency_token("uid", state, "\ud800"),
    }
    assert len(names) == 7
    assert idempotency_token("uid", state, "a") in names
    assert all(name.isalnum() for name in names)


def test_two_files_that_grow_at_once(
    backend: Remembering, uploader: Make, record: Record, run: RunDirectory, tmp_path: Path
) -> None:
    """A chunk read in turns from two files goes out by the same name when it is read in another order."""
    first, second = record(3, end=False, key="a"), record(3, end=False, key="b")
    delivering = uploader(backend)
    delivering._recognize()
    delivering._fill()
    for journal, key in ((first, "a"), (second, "b")):
        journal.append(Metrics(1_500, [(key, 0.5, 9)]))
    backend.after_send = lambda outcome: outcome if not backend.sent() else _die()
    with pytest.raises(Crash):
        delivering.drain()
    backend.after_send = lambda outcome: outcome

    uploader(backend).drain()

    sent, again = backend.sent()
    assert len(sent[2].metrics) == 8
    assert sent == again
    first.close()
    second.close()


def _die() -> Outcome[None]:
    raise Crash
