"""Reads a journal file from any offset. Total: whatever bytes come in, it ends, and returns no wrong record.

A torn last line is left alone: to a follower it is "not yet", to a drain it is the end. A bad line in the middle is
skipped and counted. Memory is one block and the longest line, whatever the size of the file.
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
    """A place in one journal file, moving forward.

    Raises:
        OSError: the file can't be opened.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        """End of the record returned last: where to begin another time."""
        self.bad_lines = 0
        self.too_new = False
        """The file's format is one of a later version of this package: nothing of it is returned."""
        self._fd = descriptors.out_of_the_way(os.open(path, _READING))
        self._identity = descriptors.identity_of(self._fd)
        self._place = offset
        """Up to where the file was read."""
        self._lines: Iterator[bytes] = iter(())
        self._tail: list[bytes] = []
        """What was read of a line whose end was not, in pieces."""
        self._skipping = False

    def next(self) -> Record | None:
        """The next whole record, or None where there is none now; call again when the file has grown."""
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
        """Each record from here to the present end of the file."""
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
            # No record is this long: damaged storage. What belongs to this line is passed over as it comes.
            self.bad_lines += not self._skipping
            self.offset += sum(map(len, self._tail))
            self._tail, self._skipping = [], True
        return True

    def _see_that_it_is_ours(self) -> None:
        """A host program may have closed the descriptor, and given its number to a file of its own: it is let be."""
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
    """Whether a journal file holds not one whole line, as a power failure leaves one that was just begun."""
    with path.open("rb") as file:
        return b"\n" not in file.read(_LAST_BYTES)


def is_headless(path: Path) -> bool:
    """Whether the first lines of a journal file are lost, as a power failure may leave zeros in their place."""
    reader = JournalReader(path)
    try:
        return not isinstance(reader.next(), Header) and not reader.too_new
    finally:
        reader.close()


def read_start(path: Path) -> tuple[Header | None, RunSpec | None]:
    """The header and the run of a journal file; None for what is not there (yet)."""
    reader = JournalReader(path)
    try:
        header, spec = reader.next(), reader.next()
    finally:
        reader.close()
    return (header if isinstance(header, Header) else None), (spec if isinstance(spec, RunSpec) else None)


def read_last(path: Path) -> Record | None:
    """The last whole record of a journal file; None where that line is damaged or longer than 16 KiB."""
    lines, _ = _tail_lines(path, _LAST_BYTES)
    try:
        return parse(lines[-1]) if lines else None
    except BadLineError:
        return None


def read_tail(path: Path) -> list[Record]:
    """The whole records within the last 64 KiB of a journal file, in order."""
    lines, whole_file = _tail_lines(path, _TAIL_BYTES)
    records = []
    for line in lines if whole_file else lines[1:]:
        try:
            records.append(parse(line))
        except BadLineError:  # counted by whoever reads the file from its start
            continue
    return records


def _tail_lines(path: Path, most: int) -> tuple[list[bytes], bool]:
    """The lines that end within the last bytes, the first maybe not whole; and whether they are all there is."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read().split(b"\n")[:-1], size <= most
