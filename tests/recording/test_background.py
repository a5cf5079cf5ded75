"""Artifacts that nobody waits for: held at once, copied in a thread, and what goes wrong is counted."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import Artifact, Record
from mlops_integrations.recording import artifact_snapshots, background
from mlops_integrations.recording.background import BackgroundQueue

Read = Callable[[Path], list[Record]]
Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """A run that is only recorded."""
    with mlops.start_run(directory=tmp_path / "runs", uploader="thread") as open_run:
        yield open_run


@pytest.fixture
def held_up() -> Iterator[threading.Event]:
    """No copy is made before this is set."""
    go = threading.Event()
    background.later(lambda: _wait(go), _raise)
    yield go
    go.set()
    assert background.wait(10)


def _wait(go: threading.Event) -> None:
    assert go.wait(30)


def _raise(error: Exception) -> None:
    raise error


def test_a_deleted_file_is_kept(run: Any, read: Read, tmp_path: Path, held_up: threading.Event) -> None:
    """It is there at once, and once it is copied it is a file of its own."""
    source = tmp_path / "model.pt"
    source.write_bytes(b"weights")
    run.log_artifact(source, "checkpoints", wait=False)
    place = run.directory / "artifacts" / "checkpoints" / "model.pt"
    assert place.read_bytes() == b"weights"
    number = source.stat().st_ino
    source.unlink()
    held_up.set()
    assert background.wait(10)
    assert place.read_bytes() == b"weights"
    assert place.stat().st_ino != number
    assert place.stat().st_mode & 0o777 == 0o600
    (record,) = [record for record in read(run.directory) if isinstance(record, Artifact)]
    assert (record.file, record.path, record.size) == ("artifacts/checkpoints/model.pt", "checkpoints/model.pt", 7)
    assert [place] == list(place.parent.iterdir())


def test_a_replaced_file(run: Any, tmp_path: Path, held_up: threading.Event) -> None:
    """A new file of the same name has nothing to do with the one that was logged."""
    source = tmp_path / "model.pt"
    source.write_bytes(b"first")
    run.log_artifact(source, wait=False)
    (tmp_path / "fresh").write_bytes(b"second")
    (tmp_path / "fresh").replace(source)
    held_up.set()
    assert background.wait(10)
    assert (run.directory / "artifacts" / "model.pt").read_bytes() == b"first"


def test_logged_again_before_it_is_copied(run: Any, tmp_path: Path, held_up: threading.Event) -> None:
    """The later one stands, and is no loss of the earlier."""
    source = tmp_path / "last.pt"
    for content in (b"first", b"second"):
        (tmp_path / "fresh").write_bytes(content)
        (tmp_path / "fresh").replace(source)
        run.log_artifact(source, wait=False)
    held_up.set()
    assert background.wait(10)
    assert (run.directory / "artifacts" / "last.pt").read_bytes() == b"second"
    assert ["last.pt"] == [path.name for path in (run.directory / "artifacts").iterdir()]
    assert run._recorder._losses == {}


def test_overwritten_in_place_before_it_is_copied(
    run: Any, tmp_path: Path, held_up: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """What is there is not what was logged: it is not kept, but counted and said."""
    source = tmp_path / "model.pt"
    source.write_bytes(b"first")
    run.log_artifact(source, wait=False)
    source.write_bytes(b"another")
    held_up.set()
    assert background.wait(10)
    assert list((run.directory / "artifacts").iterdir()) == []
    assert {"artifact that could not be copied": 1} == run._recorder._losses
    assert "model.pt was overwritten before it was copied" in caplog.text


def test_where_nothing_can_be_linked(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another file system: the file is copied all the same, a little later."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(artifact_snapshots.os, "link", refuse)
    (tmp_path / "model.pt").write_bytes(b"weights")
    run.log_artifact(tmp_path / "model.pt", wait=False)
    assert background.wait(10)
    assert (run.directory / "artifacts" / "model.pt").read_bytes() == b"weights"


def test_a_directory(run: Any, tmp_path: Path) -> None:
    """Every file below it, under its path."""
    (tmp_path / "checkpoint-5" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (tmp_path / "checkpoint-5" / name).write_text(name)
    run.log_artifact(tmp_path / "checkpoint-5", "checkpoints/checkpoint-5", wait=False)
    assert background.wait(10)
    kept = run.directory / "artifacts" / "checkpoints" / "checkpoint-5"
    assert ("a", "deep/b") == tuple((kept / name).read_text() for name in ("a", "deep/b"))


def test_exit_waits_for_copies(python: Python, tmp_path: Path) -> None:
    """The script is at its end long before the file is copied."""
    (tmp_path / "model.pt").write_bytes(bytes(64 << 20))
    done = python(
        "import mlops_integrations as mlops, os\n"
        "run = mlops.start_run(uploader='thread', directory='runs')\n"
        "run.log_artifact('model.pt', wait=False)\n"
        "print(os.stat(run.directory / 'artifacts' / 'model.pt').st_nlink, run.directory)"
    )
    links, directory = done.stdout.split()
    place = Path(directory) / "artifacts" / "model.pt"
    assert (links, place.stat().st_nlink, place.stat().st_size) == ("2", 1, 64 << 20), done.stderr


def test_a_forked_child_copies_by_itself(run: Any, held_up: threading.Event) -> None:
    """The parent's thread is not there, and its jobs are not the child's."""
    pid = os.fork()
    if pid == 0:
        done = threading.Event()
        background.later(done.set, _raise)
        os._exit(0 if done.wait(10) and background.wait(10) else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_job_that_raises_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """An internal error is reported; the jobs after it are done, and nobody waits in vain."""
    done: list[int] = []

    def do(job: int) -> None:
        done.append(10 // job)

    queue = BackgroundQueue("mlops-test", do)
    for job in (0, 5):
        queue.add(job)
    assert queue.wait(10)
    assert done == [2]
    assert "internal error in mlops-test" in caplog.text
