"""Reads a run's journal files from the cursor on into chunks, and knows up to where each of them was read.

A record that the chunk has no room for is kept for the next one: a reader moves forward only.
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
    """The journal of one run directory, on its way into chunks.

    Args:
        run: the run directory.
        state: the cursor, where reading begins.

    Raises:
        RunDirectoryError: the journal can't be read.
    """

    def __init__(self, run: RunDirectory, state: Cursor) -> None:
        self._run = run
        self._state = state
        self._readers: dict[Path, JournalReader] = {}
        self._waiting: tuple[JournalReader, Record] | None = None
        self._bad_lines_before = state.bad_lines
        self.positions: dict[str, int] = {}
        """Where each journal file's next record begins that is in no chunk yet."""
        self.chunk = Chunk()
        """What was read and not yet taken."""
        self.spec = run.spec()
        """The run, as its newest journal file says."""

    @property
    def bad_lines(self) -> int:
        """How many lines were passed over because they are no records, those that the cursor knew of included."""
        return self._bad_lines_before + sum(reader.bad_lines for reader in self._readers.values())

    @property
    def is_ahead(self) -> bool:
        """Whether more was read than the cursor says."""
        return any(self._state.positions.get(name) != offset for name, offset in self.positions.items())

    def take(self) -> Chunk:
        """The chunk, to be sent; reading goes on into a new one."""
        chunk, self.chunk = self.chunk, Chunk()
        return chunk

    def fill(self, limits: Limits, until: Mapping[str, int] | None = None) -> bool:
        """Read into the chunk.

        Args:
            limits: how much the server takes in one request.
            until: where to stop in each file, to get a chunk again that was on its way before. Default: nowhere.

        Returns:
            True when the chunk fills a request, so that it is to go at once.

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
        """Read one file to its end; True when the chunk is full before."""
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
        # Bad lines at the end are passed over, too.
        self.positions[name] = reader.offset
        return False

    def _readers_in_turn(self) -> Iterator[JournalReader]:
        """Readers of the files with something unread, and of the newest one, opened when their turn comes."""
        journals = self._run.journals()
        for path in journals:
            newest = path == journals[-1]
            begin = self.positions.get(path.name, self._state.positions.get(path.name, 0))
            if path not in self._readers and (newest or path.stat().st_size > begin):
                self._readers[path] = JournalReader(path, begin)
                self.spec = self._run.spec() if newest else self.spec
            if path in self._readers:
                yield self._readers[path]
                if not newest:
                    self._let_go_if_read(path)

    def _let_go_if_read(self, path: Path) -> None:
        """A run may be re-opened a thousand times: of the older files, only those with something unread stay open."""
        reader = self._readers[path]
        if reader.offset >= path.stat().st_size:
            self._bad_lines_before += reader.bad_lines
            reader.close()
            del self._readers[path]

    def pass_over_torn_ends(self) -> None:
        """Move behind last lines without an end: nobody will complete what a dead writer left half written."""
        for reader in self._readers.values():
            size = reader.path.stat().st_size
            if reader.offset < size and not reader.too_new and self.positions.get(reader.path.name) != size:
                self._bad_lines_before += 1
                self.positions[reader.path.name] = size

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            reader.close()
