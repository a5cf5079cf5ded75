"""File descriptors that stay open for long in a process that we share with the host program.

The host program may close all descriptors, as daemons do, and their numbers are soon reused for other files. So a
long-lived descriptor gets a high number, and is checked to be still ours before it is used or closed.
"""

from __future__ import annotations

import os
import sys
from typing import Final, TypeAlias

FileIdentity: TypeAlias = tuple[int, int, int]
"""Device, inode and access mode: descriptors of one file for reading and for writing differ."""


_OUT_OF_THE_WAY: Final = 256


def out_of_the_way(fd: int) -> int:
    """Move the descriptor to a high number, which is not soon reused after all were closed; else return it as it is."""
    if sys.platform == "win32":
        return fd
    import fcntl

    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    except OSError:  # this process may not have numbers that high
        return fd
    os.close(fd)
    return high


def identity_of(fd: int) -> FileIdentity:
    """Return the file behind a descriptor and the descriptor's access mode.

    Raises:
        OSError: the descriptor is closed.
    """
    status = os.fstat(fd)
    if sys.platform == "win32":
        return status.st_dev, status.st_ino, 0
    import fcntl

    return status.st_dev, status.st_ino, fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def is_of(fd: int, identity: FileIdentity) -> bool:
    """True if the descriptor still refers to that file; False also if that can't be determined."""
    try:
        return identity_of(fd) == identity
    except OSError:
        return False


def close_if_of(fd: int, identity: FileIdentity) -> None:
    """Close the descriptor if it still refers to that file: the host may have closed it and reused its number."""
    if is_of(fd, identity):
        os.close(fd)
