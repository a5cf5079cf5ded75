"""Runs to look at and to deliver, and the command line as a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.cli.arguments import main

Record = Callable[..., mlops.Run]


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    """A server."""
    with FakeMlflow() as running:
        yield running


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of a test lie, and the command line looks for them."""
    root = tmp_path / "runs"
    monkeypatch.setenv("MLOPS_DIR", str(root))
    return root


@pytest.fixture
def record(root: Path) -> Record:
    """Records a run of so many points without delivering it."""

    def recorded(name: str = "baseline", points: int = 3, finish: bool = True, **options: Any) -> mlops.Run:
        run = mlops.start_run(run_name=name, directory=root, mode="offline", uploader="thread", **options)
        for step in range(points):
            run.log_metric("loss", 1.0 / (step + 1), step=step)
        if finish:
            run.finish()
        return run

    return recorded


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command line; exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
