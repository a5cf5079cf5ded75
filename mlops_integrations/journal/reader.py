"""Reads a journal file from any offset. Total: for any bytes it terminates and returns no wrong record.

A torn last line is left alone: to a follower it is "not yet", to a drain it is the end. A bad line in the middle is
skipped and counted. It holds one block and the longest line in memory, whatever the size of the file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlops_integrations import descriptors
from mlops_integrations.journal.records import FORMAT, LONGEST_LINE_BYTES, BadLineError, Header, Record, RunSpec, parse

_READING: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_BLOCK_BYTES: Final = 256 * 1024
_TAIL_BYTES: Final = 64 * 1024
_LAST_BYTES: Final = 16 * 1024


class JournalReader:
    """A read position in one journal file, which only moves forward.

    Raises:
        OSError: the file can't be opened.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        """End of the last returned record: where a later reader begins."""
        self.bad_lines = 0
        self.too_new = False
        """The file has the format of a later version of this package: none of its records is returned."""
        self._fd = descriptors.out_of_the_way(os.open(path, _READING))
        self._identity = descriptors.identity_of(self._fd)
        self._place = offset
        """Offset up to which the file was read."""
        self._lines: Iterator[bytes] = iter(())
        self._tail: list[bytes] = []
        """Pieces of a line whose end was not read yet."""
        self._skipping = False

    def next(self) -> Record | None:
        """Return the next whole record, or None if there is none now; call again when the file has grown."""
        while not self.too_new:
            for line in self._lines:
                self.offset += len(line) + 1
                if self._skipping or not line:
                    self._skipping = False
                    continue
                try:
                    record = parse(line)
                except BadLineError:
                    self.bad_lines += 1
                    continue
                if type(record) is Header and record.format > FORMAT:
                    self.too_new = True
                    return None
                return record
            if not self._read_block():
                return None
        return None

    def __iter__(self) -> Iterator[Record]:
        """Iterate over the records from here to the present end of the file."""
        return iter(self.next, None)

    def _read_block(self) -> bool:
        self._see_that_it_is_ours()
        os.lseek(self._fd, self._place, os.SEEK_SET)
        block = os.read(self._fd, _BLOCK_BYTES)
        if not block:
            return False
        self._place += len(block)
        first, *lines = block.split(b"\n")
        self._tail.append(first)
        self._lines = iter(())
        if lines:
            last = lines.pop()
            self._lines = iter([b"".join(self._tail), *lines])
            self._tail = [last]
        elif self._skipping or sum(map(len, self._tail)) > LONGEST_LINE_BYTES:
            # No record is this long: damaged storage. The rest of this line is skipped as it is read.
            self.bad_lines += not self._skipping
            self.offset += sum(map(len, self._tail))
            self._tail, self._skipping = [], True
        return True

    def _see_that_it_is_ours(self) -> None:
        """Reopen the file if the host program closed our descriptor; a file of its own with that number stays open."""
        if descriptors.is_of(self._fd, self._identity):
            return
        fd = os.open(self.path, _READING)
        if not descriptors.is_of(fd, self._identity):
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self.path))
        self._fd = descriptors.out_of_the_way(fd)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        descriptors.close_if_of(fd, self._identity)


def is_blank(path: Path) -> bool:
    """True if a journal file holds no whole line, as when a power failure hits one that was just begun."""
    with path.open("rb") as file:
        return b"\n" not in file.read(_LAST_BYTES)


def is_headless(path: Path) -> bool:
    """True if the first lines of a journal file are lost: a power failure may leave zeros in their place."""
    reader = JournalReader(path)
    try:
        return not isinstance(reader.next(), Header) and not reader.too_new
    finally:
        reader.close()


def read_start(path: Path) -> tuple[Header | None, RunSpec | None]:
    """Return the header and the run of a journal file; None for one that is not there (yet)."""
    reader = JournalReader(path)
    try:
        header, spec = reader.next(), reader.next()
    finally:
        reader.close()
    return (header if isinstance(header, Header) else None), (spec if isinstance(spec, RunSpec) else None)


def read_last(path: Path) -> Record | None:
    """Return the last whole record of a journal file; None if that line is damaged or longer than 16 KiB."""
    lines, _ = _tail_lines(path, _LAST_BYTES)
    try:
        return parse(lines[-1]) if lines else None
    except BadLineError:
        return None


def read_tail(path: Path) -> list[Record]:
    """Return the whole records within the last 64 KiB of a journal file, in order."""
    lines, whole_file = _tail_lines(path, _TAIL_BYTES)
    records = []
    for line in lines if whole_file else lines[1:]:
        try:
            records.append(parse(line))
        except BadLineError:  # counted by readers that start at the beginning
            continue
    return records


def _tail_lines(path: Path, most: int) -> tuple[list[bytes], bool]:
    """Return the lines in the last ``most`` bytes (the first may be cut), and whether that is the whole file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read().split(b"\n")[:-1], size <= most
