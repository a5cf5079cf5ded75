"""Identifies processes, and tells whether they still live.

Death is concluded only where this machine can know it: within the same boot and process namespace, or on the same
host after another boot. Any other process is unknown, and nothing may be concluded.
"""

from __future__ import annotations

import enum
import functools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from mlops_integrations.journal.records import Identity

_GREATEST_PID: Final = 2**31 - 1
START_TIME_FIELD: Final = 19
"""Index in ``/proc/PID/stat``, counted from the state."""


class Life(enum.Enum):
    """State of a process, as far as it can be told from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


def me() -> Identity:
    """The identity of this process."""
    return _identity(os.getpid())


@functools.lru_cache(maxsize=4)
def _identity(pid: int) -> Identity:
    return of(pid)


def of(pid: int) -> Identity:
    """The identity of a living process of this machine."""
    return Identity(
        host=socket.gethostname(),
        boot_id=boot_id(),
        pid_namespace=_pid_namespace(),
        pid=pid,
        start_time=_start_time(pid),
    )


def life_of(identity: Identity, last_sign: float | None = None) -> Life:
    """Tell whether the process lives; ``last_sign`` is when it was last surely alive, in seconds since 1970."""
    here = me()
    if sys.platform == "win32":
        return Life.ALIVE if identity == here else Life.UNKNOWN
    if identity.boot_id == here.boot_id and identity.pid_namespace == here.pid_namespace:
        if identity.boot_id is None and identity.host != here.host:
            return Life.UNKNOWN
        return _life_of_neighbour(identity)
    return Life.DEAD if _died_with_an_earlier_boot(identity, here, last_sign) else Life.UNKNOWN


def _life_of_neighbour(identity: Identity) -> Life:
    if not 0 < identity.pid <= _GREATEST_PID:
        return Life.DEAD  # no process has such a pid; for ``kill`` it would mean many processes
    try:
        os.kill(identity.pid, 0)
    except ProcessLookupError:
        return Life.DEAD
    except PermissionError:
        pass  # another user's: it exists, and /proc tells the rest
    if _state(identity.pid) in {"Z", "X"}:
        return Life.DEAD
    start_time = _start_time(identity.pid)
    if start_time is None or identity.start_time is None:
        return Life.ALIVE
    return Life.ALIVE if start_time == identity.start_time else Life.DEAD


def _died_with_an_earlier_boot(identity: Identity, here: Identity, last_sign: float | None) -> bool:
    # A host name is no proof: two machines may share one. A process alive after this machine's boot ran elsewhere.
    booted = _boot_time()
    return (
        identity.host == here.host
        and identity.boot_id is not None
        and identity.boot_id != here.boot_id
        and booted is not None
        and last_sign is not None
        and last_sign < booted
    )


@functools.cache
def boot_id() -> str | None:
    """Return the id of this machine's present boot, or None if the system tells none."""
    if sys.platform == "darwin":
        return _ask("sysctl", "-n", "kern.bootsessionuuid")
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def _pid_namespace() -> int | None:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _boot_time() -> float | None:
    uptime = _read(Path("/proc/uptime"))
    return None if uptime is None else time.time() - float(uptime.split()[0])


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from the third, the state, on; None if there is no such file."""
    text = _read(Path(f"/proc/{pid}/stat"))
    # The second field is the program's name in brackets, which may itself hold brackets and spaces.
    return None if text is None else text.rpartition(")")[2].split()


def _state(pid: int) -> str | None:
    fields = stat_fields(pid)
    return fields[0] if fields else None


def _start_time(pid: int) -> str | None:
    if sys.platform == "darwin":
        return _ask("ps", "-o", "lstart=", "-p", str(pid))
    fields = stat_fields(pid)
    return fields[START_TIME_FIELD] if fields else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _ask(*command: str) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
