"""A run directory with something in it, a server, and a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from fake_mlflow import FakeMlflow
from mlops_integrations.backends.registry import open_backend
from mlops_integrations.config.settings import Access
from mlops_integrations.journal.records import End, Header, Metrics, Params, RunSpec, Tags
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.server_calls import UploadContext
from mlops_integrations.upload.uploader import Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """The present time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    """A server of the test's own."""
    with FakeMlflow() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """The run directory."""
    return RunDirectory(tmp_path)


@pytest.fixture
def record(run: RunDirectory, header: Header, spec: RunSpec) -> Callable[..., JournalWriter]:
    """Writes a journal file: params, tags, a number of points, and, unless told otherwise, the end."""

    def write(points: int = 10, *, end: bool = True, key: str = "loss", first: int = 0) -> JournalWriter:
        journal = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
        journal.append(Params(1, {"lr": "0.1"}))
        journal.append(Tags(1, {"team": "vision"}))
        for step in range(first, first + points):
            journal.append(Metrics(1_000 + step, [(key, float(step), step)]))
        if end:
            journal.finish(End(9_000, "FINISHED", None, False, points))
        return journal

    return write


@pytest.fixture
def uploader(run: RunDirectory, server: FakeMlflow, clock: Clock) -> Iterator[Callable[..., Uploader]]:
    """Makes an uploader of the run to the server, with surroundings that the test may change."""
    watched: list[WriterProcesses] = []

    def make(to: FakeMlflow = server, **context: object) -> Uploader:
        world = UploadContext(clock=clock, sleep=clock.sleep)
        for name, value in context.items():
            setattr(world, name, value)
        backend = open_backend(to.uri, Access(timeout=5.0))
        watched.append(WriterProcesses(run))
        return Uploader(run, backend, to.uri, watched[-1], world)

    yield make
    for writers in watched:
        writers.close()
