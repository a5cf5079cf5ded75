"""What is kept of files and directories that are logged as artifacts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import Artifact, Record
from mlops_integrations.recording.run import Run

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]


def test_artifact_is_a_copy_of_this_moment(run: Run, read: Read, tmp_path: Path) -> None:
    """What happens to the file afterwards changes nothing."""
    source = tmp_path / "модель.pt"
    source.write_bytes(b"first")
    run.log_artifact(source, "checkpoints/best")
    source.write_bytes(b"second")
    source.unlink()
    assert (run.directory / "artifacts" / "checkpoints" / "best" / "модель.pt").read_bytes() == b"first"
    record = read(run.directory)[2]
    assert isinstance(record, Artifact)
    assert (
        record.file,
        record.path,
        record.size,
    ) == ("artifacts/checkpoints/best/модель.pt", "checkpoints/best/модель.pt", 5)


def test_artifact_logged_again(run: Run, tmp_path: Path) -> None:
    """The last copy stands, and no half copies are left."""
    (tmp_path / "f").write_bytes(b"1")
    run.log_artifact(str(tmp_path / "f"))
    (tmp_path / "f").write_bytes(b"22")
    run.log_artifact(tmp_path / "f")
    assert {path.name: path.read_bytes() for path in (run.directory / "artifacts").iterdir()} == {"f": b"22"}


def test_directory_as_artifact(run: Run, read: Read, tmp_path: Path) -> None:
    """Every file below it, by its place there."""
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "a").write_bytes(b"1")
    (tmp_path / "out" / "deep" / "b").write_bytes(b"22")
    run.log_artifact(tmp_path / "out", "plots")
    paths = {record.path: record.size for record in read(run.directory) if isinstance(record, Artifact)}
    assert paths == {"plots/a": 1, "plots/deep/b": 2}


@pytest.mark.parametrize("path", ["..", "../up", "a/../../b", "/abs", "a\\..\\b", "nul\x00"])
def test_artifact_path_that_leads_out(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str) -> None:
    """It is refused and said; nothing is written anywhere."""
    (tmp_path / "f").write_bytes(b"1")
    before = sorted(tmp_path.rglob("f"))
    run.log_artifact(tmp_path / "f", path)
    assert before == sorted(tmp_path.rglob("f"))
    assert "artifact that could not be copied" in caplog.text


def test_artifact_that_is_not_there(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing file ends no training."""
    run.log_artifact(tmp_path / "missing")
    assert "artifact that could not be copied" in caplog.text
    assert "missing" in caplog.text


@posix
def test_everything_is_private_under_any_umask(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, whatever is logged."""
    (tmp_path / "f").write_bytes(b"1")
    before = os.umask(0)
    try:
        run = mlops.start_run(run_name="private")
        run.log_metric("a", 1.0)
        run.log_artifact(tmp_path / "f", "deep/er")
        run.finish()
    finally:
        os.umask(before)
    root = tmp_path / "mlops_runs"
    places = [path for path in (root, *root.rglob("*")) if not path.is_symlink()]
    modes = {str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in places}
    assert {str(path.relative_to(tmp_path)): "0o700" if path.is_dir() else "0o600" for path in places} == modes
