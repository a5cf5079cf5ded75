"""The examples of ``autolog()``, run as their reader would run them; the run is on a real MLflow server."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer, RestRun, eventually, rest_runs

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAININGS = 1347
"""The images that the examples train with."""

Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(
    server: MlflowServer, train: Train, root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[RestRun, float]]:
    """Runs an example; what the server has of it, and the accuracy that it has printed."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)

    def run_example(framework: str) -> tuple[RestRun, float]:
        pytest.importorskip(framework)
        done = train(EXAMPLES / f"autolog_{framework}.py")
        assert 0 == done.returncode, done.stderr
        (said,) = [line for line in done.stdout.splitlines() if line.startswith("test accuracy: ")]
        (directory,) = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
        uid = RunDirectory(directory).spec().uid
        (found,) = eventually(lambda: [each for each in rest_runs(server.uri, uid) if each.status != "RUNNING"])
        return found, float(said.removeprefix("test accuracy: "))

    return run_example


Example = Callable[[str], tuple[RestRun, float]]


def test_keras(run: Example) -> None:
    """Epochs, the evaluation, parameters and the end."""
    found, accuracy = run("keras")
    assert list(range(10)) == [step for step, _ in found.curve("val_accuracy")]
    assert [accuracy] == [round(value, 3) for _, value in found.curve("test_accuracy")]
    assert accuracy > 0.9
    assert "FINISHED" == found.status


def test_lightning(run: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that does not even import us: the variable switches it on where we are installed."""
    try:
        importlib.metadata.distribution("mlops-integrations")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here: Lightning does not find its entry points")
    monkeypatch.setenv("MLOPS_AUTOLOG", "1")
    found, accuracy = run("lightning")
    assert 10 * (TRAININGS // 32 + 1) // 5 == len(found.curve("train/loss"))
    assert [accuracy] == [round(value, 3) for _, value in found.curve("test/accuracy")]
    assert accuracy > 0.9
    assert "FINISHED" == found.status


def test_transformers(run: Example) -> None:
    """Steps, the evaluation, and the end; training and evaluating are one run."""
    found, accuracy = run("transformers")
    assert 10 * (TRAININGS // 32 + 1) // 10 == len(found.curve("train/loss"))
    assert [accuracy] == [round(value, 3) for _, value in found.curve("eval/accuracy")]
    assert accuracy > 0.9
    assert "FINISHED" == found.status
