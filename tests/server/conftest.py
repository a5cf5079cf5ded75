"""A real MLflow server for the tests of this folder, and training processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("mlflow")

if TYPE_CHECKING:
    from real_mlflow import MlflowServer
    from trainer import Trainer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server that stays up for all tests."""
    from real_mlflow import MlflowServer

    running = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server of the test's own, not started yet."""
    from real_mlflow import MlflowServer

    directory = tmp_path / "mlflow"
    directory.mkdir()
    own = MlflowServer(directory)
    yield own
    own.stop()


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    """A place to run training scripts in."""
    from trainer import Trainer

    directory = tmp_path / "work"
    directory.mkdir()
    return Trainer(directory)
