"""What every test gets: an environment without settings, a directory of its own, and no failure of ours unseen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_integrations.journal import identity
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import FORMAT, Header, Record, RunSpec
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.recording import active_runs
from mlops_integrations.recording.recorder import Recorder

with contextlib.suppress(ImportError):  # not every environment has it; those tests that need it say so themselves
    import hypothesis

    hypothesis.settings.register_profile("ours", deadline=None, database=None, derandomize=True)
    hypothesis.settings.load_profile("ours")

_OURS = ("MLOPS_", "MLFLOW_", "DATABRICKS_")


def pytest_configure(config: pytest.Config) -> None:
    """Announce our marker; let signals reach the processes under test, even if they can't reach this one."""
    # What is started in the background ignores SIGINT (and SIGHUP), and hands that down to its children.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line("markers", "swallows: an internal error is what this test is about")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_swallowed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """The guard around log calls hides our own failures from trainings; from tests it must not."""
    failures: list[Exception] = []
    swallow = Recorder.swallow

    def remembering_swallow(recorder: Recorder, error: Exception) -> None:
        failures.append(error)
        swallow(recorder, error)

    monkeypatch.setattr(Recorder, "swallow", remembering_swallow)
    yield
    if request.node.get_closest_marker("swallows") is None:
        assert failures == []


@pytest.fixture(autouse=True)
def _no_run_left_open() -> Iterator[None]:
    """A test that fails in the middle of a run leaves none behind for the next one."""
    yield
    while (run := active_runs.active_run()) is not None:
        run.finish(timeout=0.0)


@pytest.fixture
def header() -> Header:
    """A header of this process."""
    return Header(FORMAT, "mlops-0123456789abcdef0123456789abcdef", identity.me(), 1_700_000_000_000, "0.1.0")


@pytest.fixture
def spec(header: Header) -> RunSpec:
    """A run without a server."""
    return RunSpec(header.uid, "baseline", 1_700_000_000_000)


@pytest.fixture
def writer(tmp_path: Path, header: Header, spec: RunSpec) -> Iterator[JournalWriter]:
    """An open journal file in the test's directory."""
    journal = JournalWriter(tmp_path, header, spec)
    yield journal
    journal.close()


@pytest.fixture
def read() -> Callable[[Path], list[Record]]:
    """Reads all records of a journal file, or of every journal file of a run directory, in order."""

    def read_records(path: Path) -> list[Record]:
        files = sorted(path.glob("journal-*.jsonl")) if path.is_dir() else [path]
        found: list[Record] = []
        for file in files:
            reader = JournalReader(file)
            found += reader
            reader.close()
        return found

    return read_records


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script in a process of its own, which sees the package that this process sees."""

    def run_script(script: str, *arguments: str, timeout: float = 60.0, **environment: str) -> Any:
        env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)} | environment
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=env,
            timeout=timeout,
            check=False,
        )

    return run_script
