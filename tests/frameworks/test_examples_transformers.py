"""The Transformers examples run as their reader would run them, and record what they say."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
import tiny_trainer  # noqa: F401 - skips where no Trainer trains

EXAMPLES = Path(__file__).parents[2] / "examples"

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]


def said(words: str, text: str) -> str:
    """The rest of the line that begins with some words."""
    (line,) = [line for line in text.splitlines() if line.startswith(words)]
    return line.removeprefix(words).strip()


def test_digits_transformers(train: Train, recorded: Read) -> None:
    """The example learns the digits and records how."""
    done = train(EXAMPLES / "digits_transformers.py")
    assert 0 == done.returncode, done.stderr
    run = recorded(Path(said("run directory:", done.stdout)))
    ((step, tested),) = run.curve("test/accuracy")
    accuracy = float(said("test accuracy:", done.stdout))
    assert 340 == step
    assert accuracy == round(tested, 3)
    assert accuracy > 0.9
    assert list(range(5, 341, 5)) == [step for step, _ in run.curve("train/loss")]
    assert list(range(34, 341, 34)) == [step for step, _ in run.curve("eval/accuracy")]
    assert ("32", "0.005") == (run.params["model/hidden_size"], run.params["learning_rate"])
    assert "digits" == run.spec.experiment_name
    assert "FINISHED" == run.ending.status
    assert {} == run.losses
    assert "mlops.params_changed" not in run.tags


def test_search_transformers(train: Train, recorded: Read) -> None:
    """The search records a run and two children; the best one's accuracy is the one that it says."""
    pytest.importorskip("optuna", reason="a search needs optuna")
    done = train(EXAMPLES / "search_transformers.py")
    assert 0 == done.returncode, done.stderr
    parent = Path(said("run directory:", done.stdout))
    runs = {path: recorded(path) for path in parent.parent.iterdir() if path.is_dir() and not path.is_symlink()}
    trials = {run.spec.name: run for path, run in runs.items() if path != parent}
    assert {"search-0", "search-1"} == set(trials)
    assert {runs[parent].spec.uid} == {run.spec.parent for run in trials.values()}
    best = trials[f"search-{said('best trial:', done.stdout)}"].curve("eval/accuracy")[-1][1]
    assert float(said("its accuracy:", done.stdout)) == round(best, 3)
    assert best == max(run.curve("eval/accuracy")[-1][1] for run in trials.values())
    assert ["FINISHED"] * 3 == [run.ending.status for run in runs.values()]
    assert [{}] * 3 == [run.losses for run in runs.values()]
