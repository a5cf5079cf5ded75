"""Reads a run's journal files from the cursor on into chunks, and knows the position in each of them.

A record that does not fit into the chunk is kept for the next one: a reader moves forward only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mlops_integrations.backends.protocol import Limits
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Record
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.upload.batches import Chunk


class JournalFeed:
    """The journal of one run directory, read into chunks.

    Args:
        directory: the run directory.
        state: the cursor, where reading begins.

    Raises:
        RunDirectoryError: the journal can't be read.
    """

    def __init__(self, directory: RunDirectory, state: Cursor) -> None:
        self._directory = directory
        self._state = state
        self._readers: dict[Path, JournalReader] = {}
        self._waiting: tuple[JournalReader, Record] | None = None
        self._bad_lines_before = state.bad_lines
        self.positions: dict[str, int] = {}
        """Journal file name -> offset of its first record that is in no chunk yet."""
        self.chunk = Chunk()
        """Records that were read and not yet taken."""
        self.spec = directory.spec()
        """The run, as its newest journal file says."""

    @property
    def bad_lines(self) -> int:
        """Number of lines skipped because they are no records, including those that the cursor knew of."""
        return self._bad_lines_before + sum(reader.bad_lines for reader in self._readers.values())

    @property
    def is_ahead(self) -> bool:
        """True if more was read than the cursor says."""
        return any(self._state.positions.get(name) != offset for name, offset in self.positions.items())

    def take(self) -> Chunk:
        """Return the chunk, to be sent; reading goes on into a new one."""
        chunk, self.chunk = self.chunk, Chunk()
        return chunk

    def fill(self, limits: Limits, until: Mapping[str, int] | None = None) -> bool:
        """Read into the chunk.

        Args:
            limits: how much the server takes in one request.
            until: where to stop in each file, to rebuild a chunk that was on its way before. Default: nowhere.

        Returns:
            True when the chunk fills a request, so that it should be sent at once.

        Raises:
            OSError: a journal file can't be read.
        """
        if self._waiting is not None:
            reader, record = self._waiting
            if not self.chunk.has_room(record, limits):
                return True
            self._waiting = None
            self.chunk.add(record)
            self.positions[reader.path.name] = reader.offset
        return any(self._read(reader, limits, until) for reader in self._readers_in_turn())

    def _read(self, reader: JournalReader, limits: Limits, until: Mapping[str, int] | None) -> bool:
        """Read one file to its end; True if the chunk is full before that."""
        name = reader.path.name
        end = None if until is None else until.get(name, 0)
        position = reader.offset
        while (end is None or reader.offset < end) and (record := reader.next()) is not None:
            if not self.chunk.has_room(record, limits):
                self._waiting = reader, record
                self.positions[name] = position
                return True
            self.chunk.add(record)
            position = reader.offset
            if self.chunk.full(limits):
                self.positions[name] = position
                return True
        # Bad lines at the end are skipped, too.
        self.positions[name] = reader.offset
        return False

    def _readers_in_turn(self) -> Iterator[JournalReader]:
        """Yield readers of files with unread records, and of the newest file; each is opened when its turn comes."""
        journals = self._directory.journals()
        for path in journals:
            newest = path == journals[-1]
            begin = self.positions.get(path.name, self._state.positions.get(path.name, 0))
            if path not in self._readers and (newest or path.stat().st_size > begin):
                self._readers[path] = JournalReader(path, begin)
                self.spec = self._directory.spec() if newest else self.spec
            if path in self._readers:
                yield self._readers[path]
                if not newest:
                    self._let_go_if_read(path)

    def _let_go_if_read(self, path: Path) -> None:
        """Close an older file once it is read: a run may be re-opened a thousand times, each time with a new file."""
        reader = self._readers[path]
        if reader.offset >= path.stat().st_size:
            self._bad_lines_before += reader.bad_lines
            reader.close()
            del self._readers[path]

    def pass_over_torn_ends(self) -> None:
        """Skip last lines without an end: a line that a dead writer left half written will never be completed."""
        for reader in self._readers.values():
            size = reader.path.stat().st_size
            if reader.offset < size and not reader.too_new and self.positions.get(reader.path.name) != size:
                self._bad_lines_before += 1
                self.positions[reader.path.name] = size

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            reader.close()
