"""Every example runs as its reader would run it, and records what it says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from real_mlflow import MlflowServer, eventually, rest_runs

EXAMPLES = Path(__file__).parents[2] / "examples"

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]


def said_after(words: str, text: str) -> str:
    """The rest of the line that begins with some words."""
    (line,) = [line for line in text.splitlines() if line.startswith(words)]
    return line.removeprefix(words).strip()


def check_keras(run: Any, accuracy: float) -> None:
    """The run holds the training and the test that ``digits_keras.py`` speaks of."""
    assert list(range(10)) == [step for step, _ in run.curve("val_loss")]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "test_loss", "test_accuracy"} == run.keys
    ((step, tested),) = run.curve("test_accuracy")
    assert 9 == step
    assert accuracy == round(tested, 3)
    assert accuracy > 0.9
    assert {"10", "34", "32"} == {run.params[name] for name in ("epochs", "steps_per_epoch", "batch_size")}
    assert "digits" == run.spec.experiment_name
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


def test_digits_keras(train: Train, recorded: Read) -> None:
    """The Keras example learns the digits and records how."""
    pytest.importorskip("keras")
    done = train(EXAMPLES / "digits_keras.py")
    assert 0 == done.returncode, done.stderr
    run = recorded(Path(said_after("run directory:", done.stdout)))
    check_keras(run, float(said_after("test accuracy:", done.stdout)))


def test_digits_lightning(train: Train, recorded: Read) -> None:
    """The Lightning example learns the digits and records how."""
    pytest.importorskip("lightning")
    done = train(EXAMPLES / "digits_lightning.py")
    assert 0 == done.returncode, done.stderr
    run = recorded(Path(said_after("run directory:", done.stdout)))
    ((_, tested),) = run.curve("test/accuracy")
    accuracy = float(said_after("test accuracy:", done.stdout))
    assert accuracy == round(tested, 3)
    assert accuracy > 0.9
    assert 10 == len(run.curve("val/loss"))
    assert 10 * 34 // 5 == len(run.curve("train/loss"))
    assert {"hidden": "64", "dropout": "0.2", "learning_rate": "0.002", "batch_size": "32"} == run.params
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


def test_quickstart(train: Train, recorded: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart records without the server that is configured, shows the curves, and says how to send the run."""
    pytest.importorskip("keras")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = train(EXAMPLES / "quickstart.py")
    assert 0 == done.returncode, done.stderr
    directory = said_after("The run lies in", done.stdout)
    check_keras(recorded(Path(directory)), float(said_after("test accuracy:", done.stdout)))
    before, _, after = done.stdout.partition("The run lies in")
    assert "val_loss" in before.partition("test accuracy:")[2]
    assert f"sync {directory} --to http://127.0.0.1:5000" in after


def test_digits_accelerate(train: Train, recorded: Read, server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Accelerate example learns the digits, and the server has the run."""
    pytest.importorskip("accelerate")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    done = train(EXAMPLES / "digits_accelerate.py")
    assert 0 == done.returncode, done.stderr
    uid = recorded(Path(said_after("run directory:", done.stdout))).spec.uid
    (run,) = eventually(lambda: [run for run in rest_runs(server.uri, uid) if run.status == "FINISHED"])
    accuracy = float(said_after("test accuracy:", done.stdout))
    assert list(range(10)) == [step for step, _ in run.curve("train/loss")]
    assert accuracy == round(run.curve("test/accuracy")[-1][1], 3)
    assert accuracy > 0.9
    assert {"learning_rate": "0.005", "batch_size": "32"} == run.params
