"""Real trainings: where they record, and how to read back from the journal what they recorded."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlops_integrations.journal.ending import Ending
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Losses, Metrics, Params, RunSpec, Tags, Value
from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer

os.environ.setdefault("KERAS_BACKEND", "jax")

LOCAL: Mapping[str, str] = {"mode": "offline", "uploader": "thread"}


@dataclass
class Recorded:
    """What the journals of one run directory hold."""

    spec: RunSpec
    ending: Ending | None
    journals: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    points: list[tuple[str, int, Value]] = field(default_factory=list)

    def curve(self, key: str) -> list[tuple[int, Value]]:
        """Steps and values of a metric, in the order of their recording."""
        return [(step, value) for name, step, value in self.points if name == key]

    @property
    def keys(self) -> set[str]:
        """The metrics' names."""
        return {name for name, _, _ in self.points}


def read(directory: Path) -> Recorded:
    """Read a run directory back."""
    run = RunDirectory(directory)
    recorded = Recorded(run.spec(), run.ending(), len(run.journals()))
    for path in run.journals():
        reader = JournalReader(path)
        for record in reader:
            if isinstance(record, Metrics):
                recorded.points += [(key, step, value) for key, value, step in record.values]
            elif isinstance(record, Params):
                recorded.params |= record.values
            elif isinstance(record, Tags):
                recorded.tags |= record.values
            elif isinstance(record, Losses):
                recorded.losses |= record.counts
        assert reader.bad_lines == 0
        reader.close()
    return recorded


@pytest.fixture
def recorded() -> Callable[[Path], Recorded]:
    """Reads a run directory back."""
    return read


@pytest.fixture
def local() -> Mapping[str, str]:
    """Keywords of a run that needs neither a server nor a side process."""
    return LOCAL


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the test's runs are recorded."""
    return tmp_path / "mlops_runs"


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a training script as a process of its own."""

    def run(script: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = script if isinstance(script, Path) else tmp_path / "train.py"
        if isinstance(script, str):
            path.write_text(script)
        return subprocess.run(
            [sys.executable, str(path), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server, which another environment may hold."""
    if "TEST_SERVER_PYTHON" not in os.environ and importlib.util.find_spec("mlflow") is None:
        pytest.skip("there is no MLflow server: TEST_SERVER_PYTHON names no interpreter that has it")
    running = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    running.start()
    yield running
    running.stop()
