"""What ``log_artifact`` takes and what it refuses: by its name, counted, with what to give instead."""

from __future__ import annotations

import io
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.recording import artifact_snapshots, background
from mlops_integrations.recording.run import Run

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")

NO_FILE = "artifact that is no file or directory"
NOT_COPIED = "artifact that could not be copied"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that is only recorded, in a directory beside what the tests make."""
    with mlops.start_run(directory=tmp_path / "mlops_runs", uploader="thread") as open_run:
        yield open_run


@pytest.fixture(params=[True, False], ids=["wait", "no wait"])
def log(run: Run, request: pytest.FixtureRequest) -> Callable[..., dict[str, bytes]]:
    """Logs an artifact in either way, and waits for the copies; what the run holds then."""

    def log_and_look(*given: Any, **named: Any) -> dict[str, bytes]:
        run.log_artifact(*given, wait=request.param, **named)
        assert background.wait(30)
        store = run.directory / "artifacts"
        return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    return log_and_look


Log = Callable[..., "dict[str, bytes]"]


def lost(run: Run) -> dict[str, int]:
    """What was not kept, by reason."""
    return run._recorder._losses


class Gives:
    """A path object of somebody else's."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __fspath__(self) -> Any:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


class Array:
    """Stands for arrays and tensors: it has no truth, and is no path."""

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array is ambiguous")


NO_PATHS = {
    "empty": ("", "''"),
    "blank": (" \t", "' \\t'"),
    "NUL": ("a\0b", "'a\\x00b'"),
    "None": (None, "None"),
    "bytes": (b"weights", "bytes"),
    "array": (Array(), "Array"),
    "integer": (0, "int"),
    "float": (0.5, "float"),
    "list": (["a", "b"], "one a call"),
    "buffer": (io.BytesIO(b"weights"), "BytesIO"),
    "empty Path": (Path(), "Path.cwd()"),
    "empty pure path": (PurePosixPath(""), "Path.cwd()"),
    "bytes from a path object": (Gives(b"model.pt"), "Gives"),
    "no path from a path object": (Gives(5), "Gives"),
    "a failing path object": (Gives(RuntimeError("not mounted")), "not mounted"),
    "an empty path object": (Gives(""), "''"),
}


@pytest.mark.parametrize(("given", "named"), NO_PATHS.values(), ids=NO_PATHS)
def test_what_is_no_path(run: Run, log: Log, caplog: pytest.LogCaptureFixture, given: Any, named: str) -> None:
    """It is refused at once, and nothing of the working directory is kept."""
    Path("secrets.env").write_text("PASSWORD=example")
    caplog.clear()
    assert {} == log(given)
    assert {NO_FILE: 1} == lost(run)
    (message,) = caplog.messages
    assert named.encode().decode() in message or repr(named)[1:-1] in message
    assert "give" in message


def test_each_of_them_is_named(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """One says nothing about the next."""
    caplog.clear()
    for given in ("", None, b"weights", Array()):
        run.log_artifact(given)  # type: ignore[arg-type]
    assert 4 == len(caplog.messages)
    assert {NO_FILE: 4} == lost(run)


def test_an_open_file(run: Run, log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """Its path is what is to be given."""
    with tempfile.NamedTemporaryFile() as file:
        assert {} == log(file)
        assert file.name in caplog.text
    assert {NO_FILE: 1} == lost(run)


def test_the_whole_working_directory(run: Run, log: Log) -> None:
    """By its text, which nobody writes by mistake."""
    Path("notes.txt").write_bytes(b"notes")
    assert {"notes.txt": b"notes"} == log(".")
    assert {"all/notes.txt": b"notes", "notes.txt": b"notes"} == log(Path.cwd(), "all")
    assert {} == lost(run)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # its name may not be long


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = {"a FIFO": _fifo, "a socket": _socket, "a device": _device}


@posix
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file(run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path, kind: str) -> None:
    """It is not opened: a FIFO is read when somebody writes, a device may have no end."""
    SPECIAL[kind](tmp_path / "special")
    assert {} == log(tmp_path / "special")
    assert {NO_FILE: 1} == lost(run)
    assert f"special' is {kind}" in caplog.text


@posix
def test_a_directory_with_what_is_no_file(
    run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs itself, and is named; the files beside them are kept."""
    place = tmp_path / "logs"
    place.mkdir()
    for name in ("a.txt", "unreadable", "z.txt"):
        (place / name).write_text(name)
    for number, make in enumerate(SPECIAL.values()):
        make(place / f"special{number}")
    (place / "dangling").symlink_to("nowhere")
    opening = os.open

    def refusing(path: Any, *rest: Any, **named: Any) -> int:
        if str(path).endswith("unreadable"):
            raise PermissionError(13, "Permission denied", str(path))
        return opening(path, *rest, **named)

    monkeypatch.setattr(os, "open", refusing)
    assert {"a.txt": b"a.txt", "z.txt": b"z.txt"} == log(place)
    assert {NO_FILE: 3, NOT_COPIED: 2} == lost(run)
    for name in ("special0", "special1", "special2", "dangling", "unreadable"):
        assert f"/{name}'" in caplog.text


@posix
@pytest.mark.parametrize("wait", [True, False])
def test_a_fifo_in_the_place_of_a_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait: bool
) -> None:
    """Swapped in after it was looked at: it is opened without waiting, and is no file any more."""
    source = tmp_path / "model.pt"
    source.write_bytes(b"weights")
    looking = artifact_snapshots.found_at

    def swapped(*given: Any) -> Any:
        found = looking(*given)
        source.unlink()
        os.mkfifo(source)
        return found

    monkeypatch.setattr(artifact_snapshots, "found_at", swapped)
    run.log_artifact(source, wait=wait)
    assert background.wait(30)
    assert {NOT_COPIED: 1} == lost(run)
    assert "no file any more" in caplog.text
    assert not list(run.directory.glob("artifacts/*"))


def test_each_missing_file_is_named(run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """By its path."""
    for name in ("best.pt", "last.pt"):
        assert {} == log(tmp_path / name)
        assert f"{name}' does not exist" in caplog.text
    assert {NOT_COPIED: 2} == lost(run)


def test_the_tenth_is_named_as_the_first(run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """However many there are: each is a mistake of its own, by a call or in one directory."""
    (tmp_path / "pipes").mkdir()
    names = [f"gone-{number}.pt" for number in range(10)]
    for name in names:
        log(name)
    if hasattr(os, "mkfifo"):
        for number in range(10):
            os.mkfifo(tmp_path / "pipes" / f"pipe-{number}")
        names += [f"pipe-{number}" for number in range(10)]
        log(tmp_path / "pipes")
    assert [] == [name for name in names if not any(name in message for message in caplog.messages)]


@pytest.mark.parametrize("artifact_path", [5, b"plots", ["plots"], Array()], ids=["int", "bytes", "list", "array"])
def test_artifact_path_of_another_type(
    run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path, artifact_path: Any
) -> None:
    """It is no internal error, but the caller's."""
    (tmp_path / "f").write_bytes(b"1")
    assert {} == log(tmp_path / "f", artifact_path)
    assert {"wrong argument": 1} == lost(run)
    assert f"artifact_path= as text, not {type(artifact_path).__name__}" in caplog.text


def test_a_directory_that_holds_the_runs(run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Runs are no artifacts: neither this one, which would grow by each of its copies, nor others."""
    other = mlops.start_run(directory=tmp_path / "mlops_runs", uploader="thread")
    other.finish()
    (tmp_path / "notes.txt").write_bytes(b"notes")
    (tmp_path / "mlops_runs" / "readme").write_bytes(b"mine")
    expected = {"notes.txt": b"notes", "mlops_runs/readme": b"mine"}
    caplog.clear()
    for _ in range(2):
        assert expected == log(tmp_path)
    (message,) = caplog.messages
    assert "2 run directories" in message
    assert {} == lost(run)


def test_the_root_of_the_runs(run: Run, log: Log, tmp_path: Path) -> None:
    """Nothing is in it but runs and what belongs to them."""
    assert {} == log(tmp_path / "mlops_runs")
    assert {} == lost(run)


def test_a_directory_within_the_run_directory(run: Run, log: Log) -> None:
    """As Lightning keeps checkpoints there: what lies in it is the user's."""
    place = run.directory / "checkpoints"
    place.mkdir()
    (place / "last.ckpt").write_bytes(b"weights")
    assert {"checkpoints/last.ckpt": b"weights"} == log(place, "checkpoints")
    assert {} == lost(run)


@pytest.mark.parametrize("inner", ["", "artifacts", "artifacts/plots"])
def test_the_runs_own_directories(run: Run, log: Log, caplog: pytest.LogCaptureFixture, inner: str) -> None:
    """They would be copied into themselves."""
    (run.directory / "artifacts" / "plots").mkdir(parents=True)
    (run.directory / "artifacts" / "plots" / "a").write_bytes(b"a")
    assert {"plots/a": b"a"} == log(run.directory / inner, "again")
    assert {NO_FILE: 1} == lost(run)
    assert "the run's own" in caplog.text


@posix
def test_links_to_directories(run: Run, log: Log, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """They are not followed: one that leads back tells nothing new, one that leads out is named."""
    source, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for directory in (source / "step-5", elsewhere):
        directory.mkdir(parents=True)
        (directory / "f").write_bytes(b"1")
    (source / "latest").symlink_to("step-5")
    (source / "step-5" / "loop").symlink_to("..")
    (source / "data").symlink_to(elsewhere)
    assert {"step-5/f": b"1"} == log(source)
    assert {NOT_COPIED: 1} == lost(run)
    assert "data' is a link to a directory elsewhere" in caplog.text


@posix
def test_a_link_to_a_file(run: Run, log: Log, tmp_path: Path) -> None:
    """What it leads to is kept, under the link's name."""
    (tmp_path / "step-5.pt").write_bytes(b"weights")
    (tmp_path / "last.pt").symlink_to("step-5.pt")
    assert {"last.pt": b"weights"} == log(tmp_path / "last.pt")
    assert {} == lost(run)


def test_the_same_file_twice_before_it_is_copied(run: Run, tmp_path: Path) -> None:
    """The link that is there already stays, and no second one under a name of ours beside it."""
    (tmp_path / "f").write_bytes(b"1")
    place = tmp_path / "store" / "f"
    for _ in range(2):
        _, copy = artifact_snapshots.hold(tmp_path / "f", PurePosixPath("f"), place.parent, 1)
    assert [place] == list(place.parent.iterdir())
    copy()
    assert b"1" == place.read_bytes()
