"""Asks the kernel whether a process that is not our child ended, and how. Linux; elsewhere nothing is known."""

from __future__ import annotations

import os
import select
import struct
import sys
import time
from pathlib import Path
from typing import Final

from mlops_integrations import descriptors
from mlops_integrations.journal import identity
from mlops_integrations.journal.records import Identity

_PIDFD_GET_INFO: Final = 0xC0 << 24 | 64 << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info)
_PIDFD_INFO_EXIT: Final = 1 << 3
_INFO: Final = struct.Struct("=Q52xi")  # mask, ..., exit_code
_EXIT_CODE_FIELD: Final = 49  # of /proc/PID/stat, counted from the state
_DYING_SECONDS: Final = 10.0


class ProcessDescriptor:
    """A pidfd: a file descriptor that stands for a process. The host program may close it, and reuse its number.

    A file's descriptor always polls as readable, as a pidfd does once its process has ended: so ``number`` checks.
    """

    def __init__(self, fd: int) -> None:
        self._fd = descriptors.out_of_the_way(fd)
        self._identity = descriptors.identity_of(self._fd)  # before Linux 6.9 shared by all that stand for no file

    @property
    def number(self) -> int | None:
        """The descriptor's number; None if it is not ours any more."""
        return self._fd if descriptors.is_of(self._fd, self._identity) else None

    def close(self) -> None:
        """Close the descriptor."""
        fd, self._fd = self._fd, -1
        descriptors.close_if_of(fd, self._identity)


def open_process(pid: int) -> int | None:
    """Return a file descriptor that stands for a process, or None if that is not possible."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def has_ended(pidfd: int) -> bool:
    """True if the process has ended, all its threads included."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def wait_status(process: Identity, pidfd: int | None) -> int | None:
    """Return how a process ended, in the form that ``waitpid`` gives; None if that is unknown.

    Until its parent has waited for it, ``/proc`` shows it; later the pidfd does (Linux 6.15), if it was opened in
    time. Between two looks the parent may wait for it, so the pidfd is asked again.
    """
    for look in (_of_pidfd, _of_zombie, _of_pidfd):
        status = look(process, pidfd)
        if status is not None:
            return status
    return None


def _of_pidfd(_: Identity, pidfd: int | None) -> int | None:
    if pidfd is None or sys.platform != "linux":
        return None
    import fcntl

    info = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, exit_code = _INFO.unpack(info)
    return int(exit_code) if mask & _PIDFD_INFO_EXIT else None


def _of_zombie(process: Identity, _: int | None) -> int | None:
    fields = identity.stat_fields(process.pid)
    if not fields or fields[0] != "Z" or fields[identity.START_TIME_FIELD] != process.start_time:
        return None
    try:
        owner = Path(f"/proc/{process.pid}").stat().st_uid
    except OSError:
        return None
    # To users who may not know, the kernel shows 0.
    return int(fields[_EXIT_CODE_FIELD]) if os.geteuid() in {owner, 0} else None


class OomCounter:
    """Notices out-of-memory kills by the kernel in the control group that a process belongs to."""

    def __init__(self, pid: int) -> None:
        self._path = _memory_events(pid)
        self._seen = self._read()
        self._grew_at: float | None = None

    def recently(self) -> bool:
        """True if the kernel has killed there within the last 10 s; to be called all the time."""
        before, self._seen = self._seen, self._read()
        now = time.monotonic()
        if before is not None and self._seen is not None and self._seen > before:
            self._grew_at = now
        # A large process takes its time to die.
        return self._grew_at is not None and now - self._grew_at < _DYING_SECONDS

    def _read(self) -> int | None:
        if self._path is None:
            return None
        try:
            words = self._path.read_text().split()
            return int(words[words.index("oom_kill") + 1])
        except (OSError, ValueError, IndexError):
            return None


def _memory_events(pid: int) -> Path | None:
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    root = Path("/sys/fs/cgroup")
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/") / "memory.oom_control"
    for group in groups:
        if group.startswith("0::"):
            return root / group[3:].strip().lstrip("/") / "memory.events"
    return None
