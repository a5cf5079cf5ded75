"""Appends records to one journal file. A returned append outlives the process: the kernel holds the bytes.

Why one ``write`` per record, unbuffered: a buffer in the process dies with it, is doubled by a fork, and hides the
record from a reader. Why no fsync here: it takes 0.1 to 100 ms; the uploader does it, about once a second.
Why a re-entrant lock: a user's signal handler may log while the main thread is in the middle of an append.

Three ways of writing were measured (``benchmarks/log_call.py``):

* ``os.write`` releases the interpreter lock while it writes. Beside a busy Python thread it waits up to 5 ms to get
  it back: 1 us in the median, but 10 to 300 us on average. Used while there is no other thread.
* The same system call through ``ctypes.PyDLL`` keeps the lock: 0.3 us slower, but 2 to 4 us on average beside a busy
  thread. Used otherwise. A write that hangs then blocks every Python thread, not only the one that logs: so it is not
  used on network and FUSE file systems, where that is to be expected.
* A store into a mapped file takes 0.1 us. But on a disk that fails, or in a file that somebody truncates, it ends the
  process by SIGBUS, where a write returns an error: a training is worth more than a microsecond.

A host program may close all descriptors, as daemons do, and open files of its own: our number is then another file's.
So each write first checks that the descriptor's position is where our last write ended, which is true only of ours:

* ``lseek`` takes a fifth of the write's time, through ``ctypes.PyDLL`` half of it. ``fstat``, which is certain, takes
  longer than the write: it is called only if the position differs. Beside other threads the interpreter lock is kept
  for this, too: releasing it took 30 us on average.
* Remaining risks: a file of the program's with our number, at exactly the same position (our number is a high one,
  given out only when some 250 files are open); and a descriptor closed between check and write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from _thread import _count as other_threads
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from mlops_integrations import descriptors
from mlops_integrations.journal import files, records
from mlops_integrations.journal.filesystem import network_file_system
from mlops_integrations.journal.records import Header, Points, Record, RunSpec

Write: TypeAlias = Callable[[int, bytes, int], int]
"""``write(2)``: descriptor, bytes and their number; returns how many were written, below 0 on failure."""
Seek: TypeAlias = Callable[[int, int, int], int]
"""``lseek(2)``: descriptor, offset and whence; returns the position, below 0 on failure."""

_APPENDING: Final = os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CREATING: Final = _APPENDING | os.O_CREAT | os.O_EXCL
_REOPENING: Final = _APPENDING | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def file_name(number: int) -> str:
    """Return the name of a run's journal file ``number`` (from 1); names sort in the order of the files."""
    return f"journal-{number:04d}.jsonl"


_CLOSED: Final = -1
_FAILED: Final = -1
_SPOILS: Final = b"#\n"
"""Ends a torn line: if only its newline was missing, a record that was counted as lost would come back."""


class JournalWriter:
    """The only writer of one journal file, which it creates exclusively under the next free name.

    Raises:
        OSError: the file can't be created, or its first lines can't be written.
    """

    def __init__(self, directory: Path, header: Header, spec: RunSpec) -> None:
        self._lock_keeping_write = lock_keeping_write(directory)
        self._lock_keeping_seek = lock_keeping_seek()
        self._lock = threading.RLock()
        self._torn = False
        self.error: OSError | None = None
        first = records.frame(header) + records.frame(spec)
        self.path, fd = _create(directory)
        self._fd = descriptors.out_of_the_way(fd)
        self._identity = descriptors.identity_of(self._fd)
        self._place = len(first)
        """Position where our last write ended."""
        try:
            _write_whole(self._fd, first)
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    def append(self, record: Record | Points) -> bool:
        """Write one record; False when it was not kept (``error`` says why).

        Raises:
            UnicodeEncodeError: some text holds half of a surrogate pair; nothing was written.
        """
        line = records.frame(record)
        if len(line) > records.LONGEST_LINE_BYTES:
            self.error = OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            return False
        with self._lock:
            if self._torn:
                line = _SPOILS + line
            # A closed file's number is -1: it can't be that of a file opened since.
            written = _FAILED
            beside = other_threads()
            try:
                seek = self._lock_keeping_seek if beside else os.lseek
                place = seek(self._fd, 0, os.SEEK_CUR)
            except OSError:
                place = _FAILED
            if place != self._place and not self._is_ours_elsewhere():
                return False
            if beside and self._lock_keeping_write is not None:
                written = self._lock_keeping_write(self._fd, line, len(line))
            if written < 0:
                try:
                    written = os.write(self._fd, line)  # also tells why it fails
                except OSError as error:
                    self.error = error
                    return False
            self._place += written
            # A short write leaves a torn line behind: the next record starts on a line of its own.
            self._torn = written != len(line)
            return not self._torn

    def _is_ours_elsewhere(self) -> bool:
        """True if the descriptor is ours at another position, or the file was reopened; else ``error`` says why not.

        A descriptor that is another file's by now is left alone.
        """
        if self.closed:
            self.error = OSError(errno.EBADF, os.strerror(errno.EBADF))
            return False
        try:
            if not descriptors.is_of(self._fd, self._identity):
                self._fd = self._reopened()
            # For example, a signal handler logged in between, or another program wrote into the file.
            self._place = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.error = error
            return False
        return True

    def _reopened(self) -> int:
        """Reopen our file by its name, if that is still the same file; nothing is created."""
        fd = os.open(self.path, _REOPENING)
        if not descriptors.is_of(fd, self._identity):
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return descriptors.out_of_the_way(fd)

    def finish(self, record: Record) -> bool:
        """Write the last record and close the file, with no record in between; False if it was not kept."""
        with self._lock:
            kept = self.append(record)
            fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            if descriptors.is_of(fd, self._identity):
                with contextlib.suppress(OSError):
                    os.fsync(fd)
            files.sync_name(self.path)
            descriptors.close_if_of(fd, self._identity)
        return kept

    def close(self) -> None:
        """Close the file without a last record, as a forked child does with its copy."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            descriptors.close_if_of(fd, self._identity)

    @property
    def closed(self) -> bool:
        """True once nothing can be appended any more."""
        return self._fd == _CLOSED

    def exists(self) -> bool:
        """True while the file has its name, and after its close: a deleted directory takes the records with it."""
        with self._lock:
            if self.closed:
                return True
            try:
                ours = descriptors.is_of(self._fd, self._identity)  # else the host program closed it: ask by name
                return (os.fstat(self._fd) if ours else self.path.stat()).st_nlink > 0
            except FileNotFoundError:
                return False
            except OSError as error:  # the answer of a file server if another machine deleted the file
                return error.errno != errno.ESTALE


def _write_whole(fd: int, lines: bytes) -> None:
    if os.write(fd, lines) != len(lines):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def lock_keeping_write(directory: Path) -> Write | None:
    """Return a ``write(2)`` that keeps the interpreter lock; None where it is unavailable or should not be used."""
    if network_file_system(directory) is not None:
        return None
    system = _lock_keeping_calls()
    # Without declared types of arguments: they would cost another 0.3 us a call.
    write: Write | None = getattr(system, "write", None)
    return write


def lock_keeping_seek() -> Seek:
    """Return a lock-keeping ``lseek(2)``, also for network file systems: it asks no server. Else ``os.lseek``."""
    seek: Any = getattr(_lock_keeping_calls(), "lseek", None)
    if seek is None:
        return os.lseek
    import ctypes

    seek.restype = ctypes.c_ssize_t  # for files of over 2 GiB
    return cast("Seek", seek)


def _lock_keeping_calls() -> object | None:
    if sys.platform != "linux" or sys.implementation.name != "cpython":
        return None
    try:
        import ctypes

        return ctypes.PyDLL(None)
    except (ImportError, OSError):  # a Python without ctypes
        return None


def _create(directory: Path) -> tuple[Path, int]:
    taken = [path.name for path in directory.glob("journal-*.jsonl")]
    number = max((int(name[8:-6]) for name in taken if name[8:-6].isdigit()), default=0)
    while True:
        number += 1
        path = directory / file_name(number)
        try:
            return path, files.open_private(path, _CREATING)
        except FileExistsError:
            continue
