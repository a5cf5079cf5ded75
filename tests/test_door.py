"""What is the same in every door: a run given or opened when needed, and mistakes said when the door is made."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.door import Door


def test_something_else_in_place_of_a_run() -> None:
    """A name as first argument is said to be none, with what was probably meant."""
    with pytest.raises(TypeError, match="did you mean experiment_name='digits'"):
        Door("digits", {})  # type: ignore[arg-type]


def test_a_run_and_keywords() -> None:
    """Either or."""
    with mlops.start_run(uploader="thread") as run, pytest.raises(ValueError, match="not both: run_name"):
        Door(run, {"run_name": "a", "tags": None})


def test_a_keyword_that_there_is_not() -> None:
    """Said when the door is made, with those that there are."""
    with pytest.raises(ValueError, match=r"unknown keyword 'experiment'.*experiment_name"):
        Door(None, {"experiment": "a"})


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """Making a door makes no file."""
    door = Door(None, {"uploader": "thread", "directory": tmp_path / "runs"})
    assert list(tmp_path.iterdir()) == []
    assert door.run.directory.is_dir()
    door.ended()


def test_nothing_can_be_recorded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where not even a directory for temporary files can be written, the training goes on and it is said."""
    monkeypatch.setattr("tempfile.tempdir", "/proc/nothing")
    door = Door(None, {"uploader": "thread", "directory": "/proc/nothing"})
    door.began()
    door.run.log_metric("a", 1)
    door.ended()
    assert "nothing is recorded" in caplog.text
    assert not door.run.directory.exists()
