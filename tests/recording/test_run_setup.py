"""Where a run is recorded, which one is resumed, and whose child it is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal.records import Record, RunSpec
from mlops_integrations.recording.run import Run

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]
Point = tuple[str, float | str, int]
Points = Callable[[Run], list[Point]]


@pytest.mark.parametrize("by", ["run", "uid"])
def test_resume(read: Read, points: Points, by: str) -> None:
    """The same run goes on, in the same directory, through a journal file of its own."""
    first = mlops.start_run(run_name="first", experiment_name="digits")
    first.log_metric("a", 1.0, step=1)
    first.finish()
    second = mlops.start_run(resume=first if by == "run" else first.uid)
    second.log_metric("a", 2.0, step=2)
    second.finish()
    assert (first.uid, first.directory, first.name) == (second.uid, second.directory, second.name)
    assert points(first) == [("a", 1.0, 1), ("a", 2.0, 2)]
    specs = [record for record in read(first.directory) if isinstance(record, RunSpec)]
    assert len(specs) == 2
    assert specs[0] == specs[1]


def test_resume_of_a_run_that_is_not_there(tmp_path: Path) -> None:
    """A uid of ours belongs to a directory: without it there is nothing to go on with."""
    with pytest.raises(RunDirectoryError, match="mlops-0000"):
        mlops.start_run(resume="mlops-0000")


def test_resume_of_a_servers_run(read: Read) -> None:
    """An id of the server is noted, to be gone on with there."""
    run = mlops.start_run(resume="0123456789abcdef")
    run.finish()
    spec = read(run.directory)[1]
    assert isinstance(spec, RunSpec)
    assert spec.resume_run_id == "0123456789abcdef"


def test_run_of_the_environment(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """``MLFLOW_RUN_ID`` is gone on with by the first run of the process, not by a second one as well."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "fedcba9876543210")
    first = mlops.start_run()
    first.finish()
    second = mlops.start_run()
    second.finish()
    specs = [read(run.directory)[1] for run in (first, second)]
    assert [spec.resume_run_id for spec in specs if isinstance(spec, RunSpec)] == ["fedcba9876543210", None]


def test_parent(read: Read) -> None:
    """A parent is noted by its uid and its directory, so that it is found on every server; or by its id there."""
    parent = mlops.start_run()
    child, other = mlops.start_run(parent=parent), mlops.start_run(parent="0123")
    for run in (child, other, parent):
        run.finish()
    specs = [read(run.directory)[1] for run in (child, other)]
    expected = [(parent.uid, str(parent.directory)), ("0123", None)]
    assert expected == [(spec.parent, spec.parent_directory) for spec in specs if isinstance(spec, RunSpec)]


def test_root(run: Run, tmp_path: Path) -> None:
    """The root ignores itself, and its link points to the run."""
    assert (tmp_path / "mlops_runs" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "mlops_runs" / "latest").resolve() == run.directory.resolve()


def test_directory_argument_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are made where they are asked for."""
    monkeypatch.setenv("MLOPS_DIR", str(tmp_path / "variable"))
    by_variable = mlops.start_run()
    by_argument = mlops.start_run(directory=tmp_path / "argument")
    for run in (by_variable, by_argument):
        run.finish()
    assert [tmp_path / "variable", tmp_path / "argument"] == [
        run.directory.parent for run in (by_variable, by_argument)
    ]


def test_directory_stays_where_it_is_when_the_script_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: Points
) -> None:
    """A script may change its working directory."""
    run = mlops.start_run()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.log_metric("a", 1.0)
    run.finish()
    run.log_metric("a", 2.0)
    run.finish()
    assert len(points(run)) == 2


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_directory_asked_for_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """It raises, naming the directory."""
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "runs"
    if by == "variable":
        monkeypatch.setenv("MLOPS_DIR", str(place))
    with pytest.raises(RunDirectoryError, match="can't be used for runs") as raised:
        mlops.start_run(directory=place if by == "argument" else None)
    assert str(place) in str(raised.value)
    assert isinstance(raised.value, OSError)


def test_default_directory_that_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    """A private directory among temporary files takes its place, and that is said once."""
    (tmp_path / "mlops_runs").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run = mlops.start_run()
    run.log_metric("a", 1.0)
    run.finish()
    assert points(run) == [("a", 1.0, 0)]
    assert run.directory.is_relative_to(tmp_path / "tmp")
    assert run.directory.parent.stat().st_mode & 0o777 == 0o700
    assert sum("can't be used for runs" in message for message in caplog.messages) == 1


def test_no_directory_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Then nothing is recorded, which is said; the training goes on."""
    (tmp_path / "mlops_runs").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "mlops_runs"))
    with mlops.start_run() as run:
        run.log_metrics({"a": 1.0})
        run.log_params({"a": 1})
        assert not run.flush()
    assert "nothing is recorded" in caplog.text
    assert "not kept" in caplog.text


def test_run_directory_deleted_meanwhile(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged is lost, and that is said at the next look; the training goes on."""
    for path in run.directory.iterdir():
        path.unlink()
    run.directory.rmdir()
    clock = time.time_ns() + 60 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: clock)
    run.log_metric("a", 1.0)
    assert "was deleted" in caplog.text


@posix
def test_script_by_a_name_that_is_no_unicode(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """File names are bytes: one that is no UTF-8 does not keep a run from starting."""
    monkeypatch.setattr(sys, "argv", [os.fsdecode(b"/data/\xff/tr\xffain.py")])
    run = mlops.start_run(experiment_name="\ud800", parent="\ud800", tags={"\ud800": "\ud800"})
    run.finish()
    spec = read(run.directory)[1]
    assert isinstance(spec, RunSpec)
    assert spec.name == "tr\\udcffain"


@pytest.mark.parametrize("name", ["../../up", "a/b", "a\nb", "x" * 1_000, "имя 🔥", "", ".", 5, "\ud800"])
def test_run_names(tmp_path: Path, name: Any) -> None:
    """Whatever a run is called, its directory lies in the root."""
    run = mlops.start_run(run_name=name)
    run.finish()
    assert run.directory.parent == tmp_path / "mlops_runs"
