"""Small files that are replaced as a whole, so that a reader sees the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Put ``content`` in place of the file; ``durable`` brings it to the storage device before it counts.

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
    """Make the file with its whole content at once; False when there already is one.

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
            # A file system without hard links: exclusive creation, for a moment without content.
            return _create_exclusively(path, content)
        return True
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def sync_directory(path: Path) -> None:
    """Bring a directory's names to the storage device, where the system can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write(path: Path, content: bytes, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            with contextlib.suppress(OSError):  # some file systems can't; the content stands all the same
                os.fsync(file.fileno())


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        _write(path, content, durable=False)
    except FileExistsError:
        return False
    return True
