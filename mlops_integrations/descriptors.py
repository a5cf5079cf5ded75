"""Descriptors that stay open for long in a process that is not ours alone.

The host program may close all that it finds, as daemons do, and a number is soon another file's. So such a descriptor
gets a high number, and is asked whether it is ours still before it is used or closed.
"""

from __future__ import annotations

import os
import sys
from typing import Final, TypeAlias

FileIdentity: TypeAlias = tuple[int, int, int]
"""Device, inode and access mode: two descriptors of one file, for reading and for writing, are not each other."""


_OUT_OF_THE_WAY: Final = 256


def out_of_the_way(fd: int) -> int:
    """The same under a high number, which no file gets that is opened after all were closed; else as it is."""
    if sys.platform == "win32":
        return fd
    import fcntl

    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    except OSError:  # this process may not have so many
        return fd
    os.close(fd)
    return high


def identity_of(fd: int) -> FileIdentity:
    """Which file a descriptor is of, and for what.

    Raises:
        OSError: it is closed.
    """
    status = os.fstat(fd)
    if sys.platform == "win32":
        return status.st_dev, status.st_ino, 0
    import fcntl

    return status.st_dev, status.st_ino, fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def is_of(fd: int, identity: FileIdentity) -> bool:
    """Whether a descriptor is still of that file; what can't be told does not count as ours."""
    try:
        return identity_of(fd) == identity
    except OSError:
        return False


def close_if_of(fd: int, identity: FileIdentity) -> None:
    """Close a descriptor, unless it was closed under us: another file's is never closed."""
    if is_of(fd, identity):
        os.close(fd)
