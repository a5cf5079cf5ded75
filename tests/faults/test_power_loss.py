"""Power fails: what was not brought to the storage device is gone, pages land out of order, names are lost.

Every system call of the real writer and the real uploader is a moment at which it may happen; from what was surely on
the device then, and what may have been, directories are made and delivered. A failing one is printed with its seed.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import structs

from fake_mlflow import FakeMlflow
from mlops_integrations.backends.registry import open_backend
from mlops_integrations.config.settings import Access
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import identity
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.records import FORMAT, End, Header, Metrics, RunSpec, parse
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.fsync import JournalSync
from mlops_integrations.upload.server_calls import UploadContext
from mlops_integrations.upload.uploader import Result, Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses
from power import Moment, Trace, image

SEEDS = int(os.environ.get("FAULT_SEEDS", "5"))
IMAGES_OF_A_MOMENT = 2
UID = "mlops-0123456789abcdef0123456789abcdef"
LATER = 5
MOST_SLEEPS = 5_000
AWAY_SECONDS = 120
"""How long the machine takes to come up again."""


@dataclass
class Clock:
    """Time that passes only when somebody sleeps, and not for ever."""

    now: float = 1_000.0
    sleeps: int = 0

    def __call__(self) -> float:
        """The present time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.sleeps += 1
        assert self.sleeps < MOST_SLEEPS, "delivery does not end"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeMlflow]:
    """A server elsewhere, whose power does not fail."""
    with FakeMlflow() as running:
        yield running


def header(time: int) -> Header:
    """Of a process on the machine whose power fails, which is not this one."""
    return Header(FORMAT, UID, structs.replace(identity.me(), host="elsewhere", boot_id="its own"), time, "0")


def spec(server: FakeMlflow) -> RunSpec:
    """The run."""
    return RunSpec(UID, "run", 1, server.uri, "fake")


def point(number: int) -> Metrics:
    """One logged record, longer and shorter ones in turn: its value is its number."""
    return Metrics(1_000 + number, [("loss/x" + "x" * (number * 37 % 200), float(number), number)])


def numbers_on(server: FakeMlflow) -> list[int]:
    """The numbers of the records that the server has, in all of its runs."""
    return sorted(int(step) for run in server.runs.values() if not run.deleted for _, _, _, step in run.metrics)


def deliver(directory: Path, server: FakeMlflow, *, close: bool) -> tuple[Result, Cursor]:
    """Drain a run directory; the run is closed, too, once it is known that its machine was down."""
    clock = Clock()
    run = RunDirectory(directory)
    writers = WriterProcesses(run, presume_dead=close)
    try:
        writers.poll()
        backend = open_backend(server.uri, Access(timeout=10.0))
        uploader = Uploader(run, backend, server.uri, writers, UploadContext(clock=clock, sleep=clock.sleep))
        return uploader.drain(), uploader.state
    finally:
        writers.close()


def recorded(directory: Path, server: FakeMlflow, chance: random.Random) -> Trace:
    """A run that logs, is synced now and then, delivered now and then, ended and re-opened now and then."""
    trace = Trace(directory, server)
    with trace.watching():
        sync = JournalSync(RunDirectory(directory))
        writer = JournalWriter(directory, header(1), spec(server))
        trace.note()
        for _ in range(chance.randint(8, 16)):
            what = chance.choices(["log", "sync", "deliver", "re-open", "die"], [5, 1, 5, 1, 3])[0]
            if what == "log":
                for number in range(chance.choice([1, 5, 40])):
                    writer.append(point(trace.logged))
                    trace.logged += 1
                    if number % 8 == 0:
                        trace.note()
            elif what == "sync":
                sync.sync()
                trace.promised = trace.logged
                trace.note()
            elif what == "deliver":
                deliver(directory, server, close=False)
                trace.note()
            else:
                if what == "re-open":
                    writer.finish(End(9_000, "FINISHED"))
                    if trace.promised == trace.begun:  # of files before it nobody has promised anything
                        trace.promised = trace.logged
                writer.close()
                trace.note()
                writer, trace.begun = JournalWriter(directory, header(9_500), spec(server)), trace.logged
                trace.note()
        writer.close()
    return trace


@pytest.mark.parametrize("seed", range(SEEDS))
def test_power_fails_at_any_moment(
    seed: int, server: FakeMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery ends; nothing comes that was not logged, nothing twice; all that was promised is there; the run goes on.

    One seed again: ``FAULT_SEEDS=N pytest tests/faults/test_power_loss.py -k 'any_moment[SEED]'`` with N above SEED.
    """
    chance = random.Random(seed)
    server.runs.clear()
    server.experiments.clear()
    directory = tmp_path / "run"
    directory.mkdir()
    trace = recorded(directory, server, chance)
    content = trace.content()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the pictures need not last
    for number, moment in enumerate(trace.moments):
        for picture in range(IMAGES_OF_A_MOMENT):
            after = tmp_path / "after"
            shutil.rmtree(after, ignore_errors=True)
            after.mkdir()
            image(moment, content, after, chance)
            try:
                check(moment, content, after, server)
            except Exception as error:
                listing = {path.name: path.stat().st_size for path in after.iterdir()}
                raise AssertionError(f"seed {seed}, moment {number}, picture {picture}: {listing}") from error


def check(moment: Moment, content: dict[str, bytes], directory: Path, server: FakeMlflow) -> None:
    """Deliver what is left after the power failure, then what a resumed run logs."""
    server.experiments, server.runs = copy.deepcopy(moment.server)
    before = set(numbers_on(server))
    for path in directory.iterdir():
        os.utime(path, (time.time() - AWAY_SECONDS,) * 2)
    try:
        result, state = deliver(directory, server, close=True)
    except RunDirectoryError:
        assert moment.promised == 0  # not even the first lines were on the device
        return
    assert result.delivered
    found = numbers_on(server)
    assert sorted(set(found)) == found
    assert set(found) <= set(range(moment.logged))
    assert set(found) >= before | set(range(moment.promised))
    if damaged(directory, content) - set(found):
        assert state.bad_lines > 0

    writer = JournalWriter(directory, header(20_000), spec(server))
    for step in range(LATER):
        writer.append(point(moment.logged + step))
    writer.finish(End(30_000, "FINISHED"))
    assert deliver(directory, server, close=True)[0] == Result(delivered=True, closed=True)
    assert set(numbers_on(server)) == set(found) | set(range(moment.logged, moment.logged + LATER))
    (run,) = [run for run in server.runs.values() if not run.deleted]
    assert run.status == "FINISHED"


def damaged(directory: Path, content: dict[str, bytes]) -> set[int]:
    """The numbers of the records whose lines are there from end to end, but not as they were."""
    numbers = set()
    for name, sound in content.items():
        path = directory / name
        there = path.read_bytes() if path.exists() else b""
        end = 0
        for line in sound.splitlines(keepends=True):
            begin, end = end, end + len(line)
            if end <= len(there) and there[begin:end] != line:
                record = parse(line[:-1])
                numbers |= {step for _, _, step in record.values} if isinstance(record, Metrics) else set()
    return numbers
