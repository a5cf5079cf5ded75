"""Snapshots of files: a logged file is kept as it is, even if the caller overwrites or deletes it a moment later.

A snapshot is a copy, which takes time. With ``wait=False`` a hard link, where possible, holds the file at once, and is
replaced by the copy later: against deletion and replacement that is as good. A file that is overwritten in place
before it is copied is detected.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from mlops_integrations.clock import now_ms
from mlops_integrations.journal import files
from mlops_integrations.journal.records import Artifact
from mlops_integrations.recording import background
from mlops_integrations.recording.artifact_files import NOT_COPIED, UnfitError, base_of, found_at, path_of, shown
from mlops_integrations.recording.recorder import Recorder

_FICLONE: Final = 0x40049409
_READING: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)


def keep(recorder: Recorder, given: object, artifact_path: object, *, wait: bool) -> None:
    """Record a file, or every file below a directory; files that can't be kept are counted, and reported by name."""
    if recorder.off is not None:
        recorder.lose(recorder.off, 1)
        return
    try:
        base, source = base_of(artifact_path), path_of(given)
        found = found_at(source, recorder.directory)
    except UnfitError as error:
        recorder.lose(error.reason, 1, str(error), about=error.about, every=True)
        return
    for unfit in found.unfit:
        recorder.lose(unfit.reason, 1, str(unfit), about=unfit.about, every=True)
    if found.runs:
        text = "log_artifact(%r): %d run directories in it are left out, they are no artifacts; other files are kept"
        recorder.messages.once(f"runs in {source}", text, str(source), found.runs)
    for file, inner in found.files:
        _keep_file(recorder, file, base / inner, wait=wait)


def _keep_file(recorder: Recorder, file: Path, target: PurePosixPath, *, wait: bool) -> None:
    def lose(error: Exception) -> None:
        recorder.lose(NOT_COPIED, 1, str(error), about=str(file), every=True)

    store, now = recorder.directory.artifacts, now_ms()
    try:
        if wait:
            recorder.append(snapshot(file, target, store, now), 1)
        else:
            record, copy = hold(file, target, store, now)
            recorder.append(record, 1)
            background.later(copy, lose)
    except (OSError, ValueError) as error:
        lose(error)


def snapshot(file: Path, target: PurePosixPath, store: Path, time: int) -> Artifact:
    """Copy a file to its path ``target`` in ``store``.

    Raises:
        OSError: the file can't be read, or its copy can't be written.
    """
    place = _place(store, target)
    _fresh_copy(file, place).replace(place)
    return Artifact(time, f"{store.name}/{target}", str(target), place.stat().st_size)


def hold(file: Path, target: PurePosixPath, store: Path, time: int) -> tuple[Artifact, Callable[[], None]]:
    """As ``snapshot``, without waiting: return the record, and a function that makes the copy later.

    Raises:
        OSError: the file can't be read. The function raises it too, also if the file has changed by then.
    """
    with _open(file) as reading:  # an unreadable file is reported now
        seen = os.fstat(reading.fileno())
    place = _place(store, target)
    held = place if _link(file, place, seen) else file
    record = Artifact(time, f"{store.name}/{target}", str(target), seen.st_size)
    return record, functools.partial(_settle, held, place, seen)


def _place(store: Path, target: PurePosixPath) -> Path:
    """Return the path of a copy; makes its directory."""
    place = store / target
    files.make_all_private(place.parent)
    return place


def _open(file: Path) -> BinaryIO:
    """Open a regular file for reading, without blocking if a FIFO has taken its place.

    Raises:
        OSError: it can't be read, or is not a regular file any more.
    """
    fd = os.open(file, _READING)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{shown(file)} is no file any more")
    return os.fdopen(fd, "rb")


def _link(source: Path, place: Path, seen: os.stat_result) -> bool:
    """Hard-link ``source`` to ``place``; True if the link holds the file that ``seen`` describes."""
    fresh = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        os.link(source.resolve(), fresh)
    except OSError:  # another file system, or one without hard links
        return False
    try:
        if not os.path.samestat(fresh.lstat(), seen):
            return False
        fresh.replace(place)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):  # still there if ``place`` is a link to the same file already
            fresh.unlink()
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


def _fresh_copy(source: Path, target: Path) -> Path:
    """Copy to a temporary name beside the target, sharing blocks where the file system can."""
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with _open(source) as reading:
            fd = files.open_private(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(fd, "wb") as writing:
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
