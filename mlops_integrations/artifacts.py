"""Snapshots of files: what is logged is what is kept, even if the caller overwrites or deletes it a moment later.

A snapshot is a copy, which takes its time. Where nobody may wait, a hard link holds the file at once, and is replaced
by the copy later: against deletion and replacement that is as good. Should the file be overwritten in place before it
is copied, that is noticed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from mlops_integrations import copies
from mlops_integrations.journal import files
from mlops_integrations.journal.records import Artifact
from mlops_integrations.recording import Recording, now_ms

_FICLONE: Final = 0x40049409


def keep(recording: Recording, source: Path, artifact_path: str | None, *, wait: bool) -> None:
    """Record a file, or every file below a directory; what can't be kept is counted and said."""

    def lose(error: Exception) -> None:
        recording.lose("artifact that could not be copied", 1, str(error))

    if recording.off is not None:
        recording.lose(recording.off, 1)
        return
    store, now = recording.run.artifacts, now_ms()
    try:
        if wait:
            for record in snapshot(source, artifact_path, store, now):
                recording.append(record, 1)
        else:
            for record, copy in hold(source, artifact_path, store, now):
                recording.append(record, 1)
                copies.later(copy, lose)
    except (OSError, ValueError) as error:
        lose(error)


def snapshot(source: Path, artifact_path: str | None, store: Path, time: int) -> Iterator[Artifact]:
    """Copy a file, or every file below a directory, into ``store``; a record for each.

    Raises:
        OSError: a file can't be read, or its copy can't be written.
        ValueError: ``artifact_path`` leads out of the run's artifacts.
    """
    for file, target, place in _targets(source, artifact_path, store):
        yield Artifact(time, f"{store.name}/{target}", str(target), _copy(file, place))


def hold(
    source: Path, artifact_path: str | None, store: Path, time: int
) -> Iterator[tuple[Artifact, Callable[[], None]]]:
    """As ``snapshot``, at once: each record with what makes the copy, to be called by whoever has the time.

    Raises:
        OSError: a file can't be read. The copying raises it too, also if the file is another one by then.
        ValueError: ``artifact_path`` leads out of the run's artifacts.
    """
    for file, target, place in _targets(source, artifact_path, store):
        seen = file.stat()
        held = place if _link(file, place) else file
        record = Artifact(time, f"{store.name}/{target}", str(target), seen.st_size)
        yield record, functools.partial(_settle, held, place, seen)


def _targets(source: Path, artifact_path: str | None, store: Path) -> Iterator[tuple[Path, PurePosixPath, Path]]:
    """Each file, its path among the artifacts, and the place of its copy, whose directory is made."""
    base = PurePosixPath(artifact_path or "")
    if base.parts and not files.stays_within(str(base)):
        raise ValueError(f"artifact_path={artifact_path!r}: use a relative path without '..'")
    found = [source] if not source.is_dir() else sorted(path for path in source.rglob("*") if path.is_file())
    for file in found:
        inner = file.relative_to(source.parent) if file == source else file.relative_to(source)
        target = base / inner.as_posix()
        place = store / target
        files.make_all_private(place.parent)
        yield file, target, place


def _link(source: Path, place: Path) -> bool:
    fresh = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        os.link(source.resolve(), fresh)
        fresh.replace(place)
    except OSError:  # another file system, or one that has no links
        return False
    return True


def _settle(held: Path, place: Path, seen: os.stat_result) -> None:
    """Make the copy, unless a later file of the same name has taken the place."""
    if held == place and place.stat().st_ino != seen.st_ino:
        return
    fresh = _fresh_copy(held, place)
    now = held.stat()
    if (now.st_size, now.st_mtime_ns) == (seen.st_size, seen.st_mtime_ns):
        fresh.replace(place)
        return
    fresh.unlink()
    if held == place:
        place.unlink()
    raise OSError(f"{place.name} was overwritten before it was copied")


def _copy(source: Path, target: Path) -> int:
    """Copy the content; the size of the copy."""
    _fresh_copy(source, target).replace(target)
    return target.stat().st_size


def _fresh_copy(source: Path, target: Path) -> Path:
    """A copy under a name of its own beside the target, sharing blocks where the file system can."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        fd = files.open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with source.open("rb") as reading, os.fdopen(fd, "wb") as writing:
            if not _share(reading.fileno(), writing.fileno()):
                shutil.copyfileobj(reading, writing, 1024 * 1024)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return fresh


def _share(reading: int, writing: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        return False
    return True
