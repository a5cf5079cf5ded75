"""Who drives the delivery: side processes that are started, replaced, and that end when nothing is left to do."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from mlops_integrations.config import settings
from mlops_integrations.config.settings import Access
from mlops_integrations.journal.records import End, Header, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.detached_process import DetachedProcess
from mlops_integrations.upload.supervisor import Supervisor
from mlops_integrations.upload.worker import UploadWorker

linux = pytest.mark.skipif(sys.platform != "linux", reason="side processes, and descriptors of processes")

Make = Callable[..., Supervisor]


def wait_until(done: Callable[[], bool]) -> None:
    """Until something is so that another process does."""
    deadline = time.monotonic() + 30.0
    while not done():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def kill(process: DetachedProcess) -> None:
    """End a side process, if it has not ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10)


@pytest.fixture
def journal(run: RunDirectory, header: Header, spec: RunSpec) -> Iterator[JournalWriter]:
    """The open journal of this process."""
    opened = JournalWriter(run.path, header, structs.replace(spec, experiment_name="fake"))
    yield opened
    opened.close()


@pytest.fixture
def driver(run: RunDirectory) -> Iterator[Make]:
    """Makes drivers; their side processes do not outlive the test."""
    made: list[Supervisor] = []

    def make(tracking_uri: str | None = None) -> Supervisor:
        made.append(Supervisor(run, settings.from_arguments(tracking_uri=tracking_uri, directory=run.path)))
        return made[-1]

    yield make
    for known in made:
        if known._process is not None:
            kill(known._process)


@linux
def test_ended_run_that_can_not_be_delivered(
    run: RunDirectory, journal: JournalWriter, driver: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its side process ends after the linger, although the training process goes on: there may be hundreds of them."""
    monkeypatch.setenv("MLOPS_LINGER", "0")
    journal.finish(End(5, "FINISHED"))
    started = driver("http://127.0.0.1:9")
    started.start()
    started.wait_for_end(30.0)
    assert started._process is None
    assert run.log.read_text().endswith(" done\n")


@linux
def test_earlier_process_of_the_same_number(run: RunDirectory, header: Header, spec: RunSpec, driver: Make) -> None:
    """The descriptor of this process is not taken for that of an earlier one, which is gone."""
    earlier = JournalWriter(
        run.path, structs.replace(header, writer=structs.replace(header.writer, start_time="1")), spec
    )
    earlier.close()
    ours = JournalWriter(run.path, header, spec)
    driver().start()
    wait_until(lambda: run.exit_of(earlier.path) is not None)
    assert run.exit_of(ours.path) is None
    ours.close()


@linux
@pytest.mark.usefixtures("journal")
def test_side_process_that_is_about_to_end_is_replaced(run: RunDirectory, driver: Make) -> None:
    """One that has announced its leave looks at nothing any more: who re-opens the run starts another."""
    started = driver()
    started.start()
    leaving = started._process
    assert leaving is not None
    try:
        wait_until(lambda: run.ready_pid() == leaving.pid)
        started.start()
        assert started._process is leaving
        (run.path / "side_process").write_text(f"{-leaving.pid}\n")
        started.start()
        assert started._process is not leaving
    finally:
        kill(leaving)


@pytest.mark.parametrize("reopened", [False, True])
def test_leave_is_announced(run: RunDirectory, header: Header, spec: RunSpec, reopened: bool) -> None:
    """Before it ends, and taken back if the run was re-opened meanwhile."""
    JournalWriter(run.path, header, spec).finish(End(5, "FINISHED"))
    said: list[bool] = []
    later: list[JournalWriter] = []

    def say_leaving(leaving: bool) -> None:
        said.append(leaving)
        if reopened and not later:
            later.append(JournalWriter(run.path, header, spec))
        elif not leaving:
            later[0].finish(End(6, "FINISHED"))

    UploadWorker(run, "side process", lambda: False, None, Access(), say_leaving=say_leaving).run()
    assert said == ([True, False, True] if reopened else [True])


@linux
def test_search_path_that_holds_no_text(
    journal: JournalWriter, driver: Make, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import system passes over what is no text in ``sys.path``, and so does the side process's."""
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/somewhere"), b"/elsewhere", 5])
    started = driver()
    started.start()
    wait_until(lambda: run.ready_pid() is not None)
    journal.finish(End(5, "FINISHED"))


@pytest.mark.usefixtures("journal")
def test_that_no_process_can_be_started_is_said_once(
    driver: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not every few seconds, nor at every re-opening of the run."""
    monkeypatch.setattr(sys, "executable", "")
    started = driver()
    for _ in range(3):
        started.start()
        started.check()
    assert len([text for text in caplog.messages if "could not be started" in text]) == 1


@linux
@pytest.mark.parametrize("uri", [None, "http://127.0.0.1:9"], ids=["watching", "in trouble with its server"])
def test_deleted_run_directory(run: RunDirectory, journal: JournalWriter, driver: Make, uri: str | None) -> None:
    """A side process whose run directory is deleted has nothing left to do, and ends."""
    started = driver(uri)
    started.start()
    wait_until(lambda: run.ready_pid() is not None)
    for path in run.path.iterdir():
        path.unlink(missing_ok=True)
    started.wait_for_end(30.0)
    assert started._process is None
