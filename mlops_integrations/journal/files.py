"""Small files that are replaced as a whole, so that a reader sees the old one or the new one. All are private.

Files of progress and exit statuses are sealed: a checksum before the text, as in the journal. Otherwise a damaged
digit would be believed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final
from zlib import crc32

_MODE: Final = 0o600
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)


def seal(text: bytes) -> bytes:
    """The text with its checksum."""
    return b"%08x %b\n" % (crc32(text), text)


def unseal(content: bytes) -> bytes:
    """The text of a sealed file.

    Raises:
        ValueError: it is damaged.
    """
    text = content[9:-1]
    if content != seal(text):
        raise ValueError("checksum does not match")
    return text


def open_private(path: Path, flags: int) -> int:
    """Open a file, private to its owner whatever the umask, and return the descriptor. Follows no link.

    Raises:
        OSError: it can't be opened.
    """
    fd = os.open(path, flags | _NOFOLLOW, _MODE)
    if os.fstat(fd).st_mode & 0o777 != _MODE and hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):  # another user's file, or a file system without modes
            os.fchmod(fd, _MODE)
    return fd


def make_private(path: Path) -> None:
    """Make a directory that is private to its owner, whatever the umask.

    Raises:
        OSError: it can't be made, or is there already.
    """
    path.mkdir(mode=0o700)
    if path.stat().st_mode & 0o777 != 0o700:
        with contextlib.suppress(OSError):  # as above
            path.chmod(0o700)


def make_all_private(path: Path) -> None:
    """Make a private directory and its missing parents; existing ones stay as they are.

    Raises:
        OSError: one can't be made.
    """
    for directory in (*reversed(path.parents), path):
        if not directory.is_dir():
            with contextlib.suppress(FileExistsError):  # another process was faster
                make_private(directory)


def replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace the file by one with ``content``; ``durable`` brings that to the storage device first.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(fresh, content, durable)
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def create(path: Path, content: bytes) -> bool:
    """Make the file with its whole content at once; False if it exists already.

    Raises:
        OSError: it could not be written.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        _write(fresh, content, durable=False)
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links: exclusive creation; the file is empty for a moment.
            return _create_exclusively(path, content)
        return True
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def sync_name(path: Path) -> None:
    """Bring a file's name and its directory's name to the storage device, where the system can."""
    sync_directory(path.parent)
    sync_directory(path.parent.parent)


def sync_directory(path: Path) -> None:
    """Bring a directory's names to the storage device, where the system can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write(path: Path, content: bytes, durable: bool) -> None:
    fd = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            with contextlib.suppress(OSError):  # some file systems can't; the content is written all the same
                os.fsync(file.fileno())


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        _write(path, content, durable=False)
    except FileExistsError:
        return False
    return True
