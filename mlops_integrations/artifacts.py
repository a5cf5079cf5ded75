"""Snapshots of files: what is logged is what is kept, even if the caller overwrites or deletes it a moment later."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from mlops_integrations.journal.records import Artifact

_FICLONE: Final = 0x40049409


def snapshot(source: Path, artifact_path: str | None, store: Path, time: int) -> Iterator[Artifact]:
    """Copy a file, or every file below a directory, into ``store``; a record for each.

    Raises:
        OSError: a file can't be read, or its copy can't be written.
        ValueError: ``artifact_path`` leads out of the run's artifacts.
    """
    base = PurePosixPath(artifact_path or "")
    if base.is_absolute() or ".." in base.parts or "\\" in str(base):
        raise ValueError(f"artifact_path={artifact_path!r}: use a relative path without '..'")
    files = [source] if not source.is_dir() else sorted(path for path in source.rglob("*") if path.is_file())
    for file in files:
        inner = file.relative_to(source.parent) if file == source else file.relative_to(source)
        target = base / inner.as_posix()
        place = store / target
        _make(place.parent)
        yield Artifact(time, f"{store.name}/{target}", str(target), _copy(file, place))


def _make(directory: Path) -> None:
    # ``mkdir(parents=True)`` makes the parents with the umask's mode, not with the one given.
    for path in (*reversed(directory.parents), directory):
        path.mkdir(mode=0o700, exist_ok=True)


def _copy(source: Path, target: Path) -> int:
    """Copy the content, sharing its blocks where the file system can; the size of the copy."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with source.open("rb") as reading, os.fdopen(fd, "wb") as writing:
            if not _share(reading.fileno(), writing.fileno()):
                shutil.copyfileobj(reading, writing, 1024 * 1024)
        fresh.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return target.stat().st_size


def _share(reading: int, writing: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        return False
    return True
