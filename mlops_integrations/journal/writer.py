"""Appends records to one journal file. A returned append outlives the process: the kernel holds the bytes.

Why one ``os.write`` a record, unbuffered: a buffer in the process dies with it, is doubled by a fork, and hides the
record from a reader. Why no fsync here: it takes 0.1 to 100 ms; the uploader does it, about once a second.
Why a re-entrant lock: a user's signal handler may log while the main thread is in the middle of an append.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path
from typing import Final

from mlops_integrations.journal import files, records
from mlops_integrations.journal.records import Header, Record, RunSpec

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def file_name(number: int) -> str:
    """Name of a run's journal file number ``number``, from 1; the order of names is the order of files."""
    return f"journal-{number:04d}.jsonl"


_CLOSED: Final = -1


class JournalWriter:
    """The only writer of one journal file, made by exclusive creation of the next free name.

    Raises:
        OSError: the file can't be created, or its first lines can't be written.
    """

    def __init__(self, directory: Path, header: Header, spec: RunSpec) -> None:
        self._lock = threading.RLock()
        self._torn = False
        self.error: OSError | None = None
        lines = records.frame(header) + records.frame(spec)
        self.path, self._fd = _create(directory)
        if not self._write(lines):
            self.close()
            self.path.unlink(missing_ok=True)
            raise self.error or OSError(f"could not write the first lines of {self.path}")

    def append(self, record: Record) -> bool:
        """Write one record; False when it was not kept (``error`` says why).

        Raises:
            UnicodeEncodeError: some text holds half of a surrogate pair; nothing was written.
        """
        return self._write(records.frame(record))

    def finish(self, record: Record) -> bool:
        """Write the last record and close the file, with no other record between; False if it was not kept."""
        line = records.frame(record)
        with self._lock:
            kept = self._write(line)
            fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            with contextlib.suppress(OSError):
                os.fsync(fd)
            files.sync_name(self.path)
            os.close(fd)
        return kept

    def close(self) -> None:
        """Close the file without a last record, as a forked child does with its copy."""
        fd, self._fd = self._fd, _CLOSED
        if fd != _CLOSED:
            os.close(fd)

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._fd == _CLOSED

    def exists(self) -> bool:
        """Whether the file still has its name: a deleted directory takes the records with it."""
        with self._lock:
            return self.closed or os.fstat(self._fd).st_nlink > 0

    def _write(self, line: bytes) -> bool:
        if len(line) > records.LONGEST_LINE_BYTES:
            self.error = OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            return False
        with self._lock:
            if self._torn:
                line = b"\n" + line
            try:
                # A closed file's number is -1: it can't be that of a file opened since.
                written = os.write(self._fd, line)
            except OSError as error:
                self.error = error
                return False
            # A short write leaves a torn line behind: the next record starts on a line of its own.
            self._torn = written != len(line)
            return not self._torn


def _create(directory: Path) -> tuple[Path, int]:
    taken = [path.name for path in directory.glob("journal-*.jsonl")]
    number = max((int(name[8:-6]) for name in taken if name[8:-6].isdigit()), default=0)
    while True:
        number += 1
        path = directory / file_name(number)
        try:
            return path, files.open_private(path, _FLAGS)
        except FileExistsError:
            continue
