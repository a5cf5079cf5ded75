"""Files on their way: after the metrics, tried again, never in the way of the run's status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from fake_mlflow import FakeMlflow
from mlops_integrations.backends.protocol import Kind, Outcome
from mlops_integrations.backends.registry import open_backend
from mlops_integrations.config.settings import Access
from mlops_integrations.journal import cursor
from mlops_integrations.journal.records import Artifact, End, Header, Metrics, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.server_calls import InterruptedUploadError, UploadContext
from mlops_integrations.upload.uploader import Result, Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses

OK: Outcome[None] = Outcome(Kind.OK)
TROUBLE: Outcome[None] = Outcome(Kind.RETRY, None, "HTTP 500: disk full")
REFUSED: Outcome[None] = Outcome(Kind.REFUSED, None, "no such store", "NO_STORE")


class Store:
    """A server that answers uploads of files as it is told: the last answer again and again."""

    def __init__(self, server: FakeMlflow, *answers: Outcome[None]) -> None:
        self._backend = open_backend(server.uri, Access(timeout=5.0))
        self._server = server
        self._answers = list(answers)
        self.sent: list[tuple[str, bytes]] = []
        self.statuses: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        glance()
        self.sent.append((path, file.read_bytes()))
        self.statuses.append(self._server.runs[run_id].status)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.fixture
def logged(run: RunDirectory, header: Header, spec: RunSpec) -> None:
    """An ended run with ten points and two files."""
    run.artifacts.mkdir()
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    for name in ("a", "b"):
        (run.artifacts / name).write_text(name)
        journal.append(Artifact(1, f"artifacts/{name}", f"files/{name}", 1))
    for step in range(10):
        journal.append(Metrics(1_000 + step, [("loss", float(step), step)]))
    journal.finish(End(9_000, "FINISHED", None, False, 10))


@pytest.fixture
def uploader(run: RunDirectory, clock: Any) -> Iterator[Callable[..., Uploader]]:
    """Makes an uploader of the run to a store."""
    watched: list[WriterProcesses] = []

    def make(store: Store, **context: Any) -> Uploader:
        world = UploadContext(clock=clock, sleep=clock.sleep)
        for name, value in context.items():
            setattr(world, name, value)
        watched.append(WriterProcesses(run))
        return Uploader(run, store, "http://store", watched[-1], world)

    yield make
    for writers in watched:
        writers.close()


def state_of(run: RunDirectory) -> cursor.Cursor:
    """The cursor."""
    (state,) = cursor.load_all(run.path)
    return state


@pytest.mark.usefixtures("logged")
def test_files_come_before_the_status(server: FakeMlflow, uploader: Any, run: RunDirectory) -> None:
    """Both are sent, in the order of their logging, while the run still goes on; a second drain has nothing to do."""
    store = Store(server, OK)
    assert uploader(store).drain() == Result(delivered=True, closed=True)
    assert store.sent == [("files/a", b"a"), ("files/b", b"b")]
    assert store.statuses == ["RUNNING", "RUNNING"]
    assert server.run("baseline").status == "FINISHED"
    assert (state_of(run).artifacts, state_of(run).artifacts_waiting) == (2, {})
    assert uploader(store).drain() == Result(delivered=True, closed=True)
    assert len(store.sent) == 2


@pytest.mark.usefixtures("logged")
def test_a_file_that_always_fails_holds_up_no_other(server: FakeMlflow, uploader: Any, run: RunDirectory) -> None:
    """It is tried again after the others."""
    store = Store(server, TROUBLE, OK, TROUBLE)
    assert uploader(store).drain() == Result(delivered=False, closed=True)
    assert ["files/a", "files/b", "files/a"] == [path for path, _ in store.sent][:3]
    assert (1, {"files/a": "artifacts/a"}) == (state_of(run).artifacts, state_of(run).artifacts_waiting)


@pytest.mark.usefixtures("logged")
def test_trouble_does_not_hold_up_the_status(server: FakeMlflow, uploader: Any, run: RunDirectory) -> None:
    """Metrics and status arrive, a drain leaves the files for another time, which delivers them."""
    store = Store(server, TROUBLE)
    assert uploader(store).drain() == Result(delivered=False, closed=True)
    assert len(server.run("baseline").metrics) == 10
    assert server.run("baseline").status == "FINISHED"
    state = state_of(run)
    assert len(state.artifacts_waiting) == 2
    assert not state.covers(run.sizes())
    assert state.trouble is not None
    assert "disk full" in state.trouble.message

    again = Store(server, OK)
    assert uploader(again).drain() == Result(delivered=True, closed=True)
    assert [path for path, _ in again.sent] == ["files/a", "files/b"]
    assert state_of(run).trouble is None


@pytest.mark.usefixtures("logged")
def test_who_follows_tries_on(server: FakeMlflow, uploader: Any, clock: Any) -> None:
    """As long as it takes, with growing pauses."""
    store = Store(server, *[TROUBLE] * 12, OK)
    assert uploader(store).follow() == Result(delivered=True, closed=True)
    assert [path for path, _ in store.sent] == ["files/a", "files/b"] * 7
    assert clock.now > 1_010


@pytest.mark.usefixtures("logged")
def test_refused_files_stay(server: FakeMlflow, uploader: Any, run: RunDirectory) -> None:
    """Counted with the reason and the first one's path; the rest is delivered."""
    store = Store(server, REFUSED, OK)
    assert uploader(store).drain() == Result(delivered=True, closed=True)
    state = state_of(run)
    assert (state.artifacts, state.artifacts_kept) == (1, {"no such store": 1})
    assert state.artifacts_kept_first == {"no such store": "files/a"}
    assert (run.artifacts / "a").exists()


@pytest.mark.usefixtures("logged")
def test_stopped_in_the_middle_of_a_file(server: FakeMlflow, uploader: Any) -> None:
    """The next uploader sends it again, and the others."""
    store = Store(server, OK)
    with pytest.raises(InterruptedUploadError):
        uploader(store, stop=lambda: len(store.sent) == 1).drain()
    assert uploader(store).drain() == Result(delivered=True, closed=True)
    assert [path for path, _ in store.sent] == ["files/a", "files/b"]


def test_a_file_outside(server: FakeMlflow, uploader: Any, run: RunDirectory, header: Header, spec: RunSpec) -> None:
    """A journal that somebody has tampered with gets no file out of another directory."""
    journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    journal.append(Artifact(1, "../../../../../../etc/passwd", "files/a", 1))
    journal.append(Artifact(1, "/etc/hostname", "files/b", 1))
    journal.finish(End(9_000, "FINISHED"))
    store = Store(server, OK)
    uploader(store).drain()
    assert store.sent == []
    assert state_of(run).artifacts_kept == {"file is missing": 2}
