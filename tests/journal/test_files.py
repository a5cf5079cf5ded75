"""Small files are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from mlops_integrations.journal import files

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


def test_replace(tmp_path: Path) -> None:
    """The new content stands in place of the old, and nothing else is left."""
    path = tmp_path / "state"
    for content in (b"first", b"", b"x" * 100_000):
        files.replace(path, content, durable=True)
        assert content == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_storage_that_can_not_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without ``fsync`` the content stands all the same."""

    def fail(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    files.replace(tmp_path / "state", b"content", durable=True)
    assert (tmp_path / "state").read_bytes() == b"content"


def test_failed_replace_leaves_the_old_file(tmp_path: Path) -> None:
    """If the new file can't take the old one's place, the old one stands and no leftover lies beside it."""
    path = tmp_path / "directory"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        files.replace(path, b"content")
    assert [path] == list(tmp_path.iterdir())


def test_readers_see_old_or_new(tmp_path: Path) -> None:
    """However often a file is replaced, nobody reads half of it."""
    path = tmp_path / "state"
    contents = {bytes([65 + number]) * 50_000 for number in range(4)}
    files.replace(path, b"A" * 50_000)
    over = threading.Event()

    def write() -> None:
        for _ in range(50):
            for content in contents:
                files.replace(path, content)
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not over.is_set():
        seen.add(path.read_bytes())
    thread.join(10)
    assert contents >= seen


def test_create_is_exclusive(tmp_path: Path) -> None:
    """Of many who create at once one succeeds, and its content is what stands."""
    path = tmp_path / "lease"
    barrier = threading.Barrier(8)
    winners: list[bytes] = []

    def create(number: int) -> None:
        barrier.wait(10)
        content = str(number).encode() * 1_000
        if files.create(path, content):
            winners.append(content)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [path.read_bytes()] == winners
    assert [path] == list(tmp_path.iterdir())


@posix
def test_private_under_any_umask(tmp_path: Path) -> None:
    """Nobody else may read what is made."""
    before = os.umask(0)
    try:
        files.replace(tmp_path / "a", b"1")
        files.create(tmp_path / "b", b"1")
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.iterdir())] == [0o600, 0o600]
