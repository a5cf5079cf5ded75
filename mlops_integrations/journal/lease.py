"""One uploader per run directory: the process that made the file ``lease`` exclusively, as long as it lives.

A dead holder's lease is taken over. A holder that can't be judged from here (another host or container) counts as
alive while it renews the file. A delivery by hand asks for the lease; the uploaders of a live run release it. No lock
is held over time: locks are inherited by forks, dropped by unrelated closes, and unsafe on network file systems. One
is held for the moment of acquiring, where locks work.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from mlops_integrations.journal import files, identity
from mlops_integrations.journal.identity import Life
from mlops_integrations.journal.records import Identity

_RENEW_SECONDS: Final = 5.0
_STALE_SECONDS: Final = 60.0
_WISH_SECONDS: Final = 5.0


class Holder(msgspec.Struct, frozen=True):
    """The holder of a lease."""

    identity: Identity
    kind: str
    """"side process", "thread", "sync" or "clean"."""
    token: str
    yields: bool = True
    """True: it releases the lease when asked."""

    def __str__(self) -> str:
        return f"{self.kind} (process {self.identity.pid} on {self.identity.host})"


_decoder: Final = msgspec.json.Decoder(Holder)  # made once: see ``cursor``


class Lease:
    """The right to deliver one run directory."""

    def __init__(self, directory: Path, kind: str, *, yields: bool = True) -> None:
        self._path = directory / "lease"
        self._wish = directory / "lease.wanted"
        self._renew_at = 0.0
        self._holder = Holder(identity.me(), kind, secrets.token_hex(8), yields)

    def acquire(self) -> bool:
        """Take the lease if it is free or its holder is dead.

        Raises:
            OSError: the directory can't be written.
        """
        content = msgspec.json.encode(self._holder)
        # Always under the lock: otherwise a process that removes a dead lease could remove one that was just taken.
        with _exclusive(self._path.with_name("lease.lock")):
            if files.create(self._path, content):
                return True
            holder = read(self._path)
            if holder is not None and holder.token == self._holder.token:
                return True  # an earlier release failed: it is still ours
            if holder is not None and not _is_void(holder, self._path):
                return False
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            return files.create(self._path, content)

    def held(self) -> bool:
        """True while the lease is ours."""
        holder = read(self._path)
        return holder is not None and holder.token == self._holder.token

    def renew(self) -> None:
        """Show that the holder lives, to machines and containers that can't see its process."""
        with contextlib.suppress(OSError):
            os.utime(self._path)

    def keep(self) -> bool:
        """Renew the lease every few seconds, if it is still ours; False if it is not. To be called all the time."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + _RENEW_SECONDS
            if not self.held():
                return False
            self.renew()
        return True

    def ask(self) -> None:
        """Ask the holder to release the lease; to be repeated while it is wanted."""
        with contextlib.suppress(OSError):
            os.close(files.open_private(self._wish, os.O_WRONLY | os.O_CREAT))
            os.utime(self._wish)

    def asked(self) -> bool:
        """True if a delivery by hand wants the lease, and this holder yields."""
        if not self._holder.yields:
            return False
        try:
            # A time far ahead is no present wish: the clock was set back since.
            return abs(time.time() - self._wish.stat().st_mtime) < _WISH_SECONDS
        except OSError:
            return False

    def wish_fulfilled(self) -> None:
        """Withdraw the request for the lease."""
        with contextlib.suppress(OSError):
            self._wish.unlink()

    def release(self) -> None:
        """Release the lease, if it is ours."""
        if self.held():
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()


def read(path: Path) -> Holder | None:
    """Return the lease's holder, dead or alive; None if there is none."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def live_holder(directory: Path) -> Holder | None:
    """Return the holder of a run directory's lease, unless it is dead."""
    path = directory / "lease"
    holder = read(path)
    return None if holder is None or _is_void(holder, path) else holder


def _is_void(holder: Holder, path: Path) -> bool:
    try:
        renewed = path.stat().st_mtime
    except OSError:
        return True
    life = identity.life_of(holder.identity, renewed)
    if life is Life.UNKNOWN:
        return abs(_file_system_time(path) - renewed) > _STALE_SECONDS
    return life is Life.DEAD


def _file_system_time(beside: Path) -> float:
    """Return the time by the clock that stamps this file system's files: a file server's may differ from ours."""
    probe = beside.with_name(f".now.{secrets.token_hex(4)}")
    try:
        probe.touch(mode=0o600)
        return probe.stat().st_mtime
    except OSError:  # no space: then by our own clock
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Exclude other processes of this machine from this block, where the file system has locks."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    fd = files.open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        # Unlocked explicitly, as closing is not enough: a child forked meanwhile shares the descriptor and the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
