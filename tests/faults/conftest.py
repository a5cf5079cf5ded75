"""What the fault suite needs of the machine; a test whose need can't be met is skipped, and says why."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conservation import TRIED
from fake_mlflow import FakeMlflow
from real_mlflow import MlflowServer
from trainer import Trainer

if sys.platform != "linux":
    pytest.skip("faults are made with Linux's own means", allow_module_level=True)


def pytest_configure(config: pytest.Config) -> None:
    """Announce the markers by which a test says what it needs."""
    config.addinivalue_line("markers", "root: needs root (mounts, namespaces, control groups)")
    config.addinivalue_line("markers", "program(name): needs this program on the path")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, visibly, what this machine can't do."""
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.skip("needs root")
    for marker in item.iter_markers("program"):
        if shutil.which(marker.args[0]) is None:
            pytest.skip(f"needs {marker.args[0]}, which is not on this machine")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of several processes that run the tests, each hands over what it has tried."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tried"] = {what: dict(counts) for what, counts in TRIED.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what such a process has tried."""
    for what, counts in getattr(node, "workeroutput", {}).get("tried", {}).items():
        TRIED.setdefault(what, Counter()).update(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in numbers what was tried."""
    for what, counts in TRIED.items():
        terminalreporter.write_line(f"{what}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real server that stays up for all tests."""
    pytest.importorskip("mlflow")
    running = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """A place to run training scripts in."""
    directory = tmp_path / "work"
    directory.mkdir()
    return Trainer(directory)


@pytest.fixture
def fake() -> Iterator[FakeMlflow]:
    """A server of the test's own, that does what it is told."""
    with FakeMlflow() as running:
        yield running
