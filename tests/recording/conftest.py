"""A run that is only recorded, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import Metrics, Record
from mlops_integrations.recording.run import Run

Read = Callable[[Path], list[Record]]
Point = tuple[str, float | str, int]


@pytest.fixture
def recording_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording alone is what is tested here: the thread driver has nothing to do without a server."""
    monkeypatch.setenv("MLOPS_UPLOADER", "thread")


@pytest.fixture
def run() -> Iterator[Run]:
    """An open run without a server."""
    opened = mlops.start_run(run_name="baseline")
    yield opened
    opened.finish()


@pytest.fixture
def points(read: Read) -> Callable[[Run], list[Point]]:
    """All metric values of a run, in order."""

    def points_of(run: Run) -> list[Point]:
        return [item for record in read(run.directory) if isinstance(record, Metrics) for item in record.values]

    return points_of
