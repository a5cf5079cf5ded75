"""Reads a delivered run back from its server and compares it with the run directory, before that is removed.

Everything is streamed: histories page by page, files block by block. Rows that were not seen on the server yet are in
a temporary SQLite database, on disk if there are many, so memory does not grow with the run.
"""

from __future__ import annotations

import math
import sqlite3
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from mlops_integrations.cli import formatting
from mlops_integrations.entities import FileInfo, Metric, Run
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import (
    Artifact,
    End,
    Header,
    Losses,
    Metrics,
    Params,
    RunSpec,
    Tags,
    not_handled,
)
from mlops_integrations.journal.rundir import RunDirectory

_ROWS_AT_ONCE: Final = 10_000
_NAMED: Final = 3
_DELETED: Final = "deleted"


class DifferenceError(Exception):
    """The server does not show everything that the run directory holds; the text says what is missing."""


class Readable(Protocol):
    """The methods of a server that reading back needs."""

    def get_run(self, run_id: str) -> Run:
        """One run, deleted or not."""

    def get_metric_history(self, run_id: str, key: str) -> Iterator[Metric]:
        """Every value of a metric."""

    def list_artifacts(self, run_id: str, path: str | None) -> Iterator[FileInfo]:
        """Files and directories directly below a path."""

    def open_artifact(self, run_id: str, path: str) -> Iterator[bytes]:
        """The content of a file, block by block."""


class ReadBack:
    """The comparison of one run directory with one run on a server.

    Args:
        directory: the run directory, of a run that has ended.
        store: the server.
        run_id: the server's id of the run.
        tell: called again and again with a text on the progress of the comparison.
    """

    def __init__(self, directory: RunDirectory, store: Readable, run_id: str, tell: Callable[[str], None]) -> None:
        self._directory = directory
        self._store = store
        self._run_id = run_id
        self._tell = tell
        self._rows = _Rows()
        self._keys: set[str] = set()
        self._params: dict[str, str] = {}
        self._tags: dict[str, set[str]] = {}
        self._artifacts: dict[str, Artifact] = {}

    def compare(self, status: str, reason: str | None, reason_tag: str) -> None:
        """Check that the server has all of the run.

        Args:
            status: the run's final status.
            reason: the reason for it, if the server was told.
            reason_tag: the tag that holds the reason.

        Raises:
            DifferenceError: something is missing there, or other than here.
            MLOpsError: the server can't be asked, or does not have the run.
            OSError: the run directory can't be read.
        """
        try:
            run = self._store.get_run(self._run_id)
            if run.info.lifecycle_stage == _DELETED:
                raise DifferenceError("it was deleted there")
            if str(run.info.status) != status:
                raise DifferenceError(f"its status there is {run.info.status}, not {status}")
            self._read_journals()
            if reason is not None:
                self._tags[reason_tag] = {reason}
            self._compare_texts(run)
            self._compare_metrics()
            self._compare_artifacts()
        except sqlite3.Error as error:
            raise DifferenceError(f"the temporary database for comparing failed: {error}") from None
        finally:
            self._rows.close()

    def _read_journals(self) -> None:
        for path in self._directory.journals():
            last_tags: dict[str, str] = {}
            journal = JournalReader(path)
            try:
                self._rows.add(self._rows_of(journal, last_tags))
            finally:
                journal.close()
            for key, value in last_tags.items():  # which writer was the last at the server is not known
                self._tags.setdefault(key, set()).add(value)

    def _rows_of(self, journal: JournalReader, last_tags: dict[str, str]) -> Iterator[tuple[bytes, str]]:
        """Yield the metric values of a journal file, and collect its other records on the way."""
        for record in journal:
            match record:
                case Metrics():
                    for key, value, step in record.values:
                        self._keys.add(key)
                        yield _digest(key, float(value), record.time, step), key
                case Params():
                    for key, text in record.values.items():
                        self._params.setdefault(key, text)
                case Tags():
                    last_tags.update(record.values)
                case Artifact():
                    self._artifacts[record.path] = record
                case Header() | RunSpec() | Losses() | End():
                    pass
                case _:
                    not_handled(record)

    def _compare_texts(self, run: Run) -> None:
        params = {param.key: param.value for param in run.data.params}
        _check_none("parameter", [key for key, value in self._params.items() if params.get(key) != value])
        tags = {tag.key: tag.value for tag in run.data.tags}
        _check_none("tag", [key for key, values in self._tags.items() if tags.get(key) not in values])

    def _compare_metrics(self) -> None:
        total, seen = self._rows.count(), 0
        for key in sorted(self._keys):
            rows: list[tuple[bytes]] = []
            for metric in self._store.get_metric_history(self._run_id, key):
                rows.append((_digest(key, metric.value, metric.timestamp, metric.step or 0),))
                if len(rows) == _ROWS_AT_ONCE:
                    seen += self._rows.discard(rows)
                    rows.clear()
                    self._tell(f"{seen:,} of {total:,} points compared")
            seen += self._rows.discard(rows)
            self._tell(f"{seen:,} of {total:,} points compared")
        missing = self._rows.by_key()
        if missing:
            count = sum(missing.values())
            names = ", ".join(f"{number:,} of {key!r}" for key, number in list(missing.items())[:_NAMED])
            raise DifferenceError(f"{count:,} of {formatting.counted(total, 'point')} missing there: {names}")

    def _compare_artifacts(self) -> None:
        sizes: dict[str, dict[str, int | None]] = {}
        wrong = []
        for number, (path, record) in enumerate(sorted(self._artifacts.items()), 1):
            self._tell(f"{number:,} of {len(self._artifacts):,} files compared")
            above = str(PurePosixPath(path).parent)
            if above not in sizes:
                listed = self._store.list_artifacts(self._run_id, None if above == "." else above)
                sizes[above] = {file.path: file.file_size for file in listed if not file.is_dir}
            file = self._directory.path / record.file
            if sizes[above].get(path) != file.stat().st_size or not self._has_content(path, file):
                wrong.append(path)
        _check_none("file", wrong)

    def _has_content(self, path: str, file: Path) -> bool:
        with file.open("rb") as ours:
            for block in self._store.open_artifact(self._run_id, path):
                if ours.read(len(block)) != block:
                    return False
                self._tell(f"comparing {path}: {ours.tell() / 1e6:,.1f} MB")
            return not ours.read(1)


class _Rows:
    """The rows that were not seen on the server yet, by their digests."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")  # a temporary file, which SQLite makes when memory gets scarce
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE row (digest BLOB PRIMARY KEY, key TEXT) WITHOUT ROWID")

    def add(self, rows: Iterator[tuple[bytes, str]]) -> None:
        """Add rows with their keys; duplicates are one row, as on the server."""
        self._database.executemany("INSERT OR IGNORE INTO row VALUES (?, ?)", rows)

    def discard(self, digests: list[tuple[bytes]]) -> int:
        """Remove rows that were seen on the server; return how many of them were expected."""
        return self._database.executemany("DELETE FROM row WHERE digest = ?", digests).rowcount if digests else 0

    def count(self) -> int:
        """Return the number of rows left."""
        (number,) = self._database.execute("SELECT count(*) FROM row").fetchone()
        return int(number)

    def by_key(self) -> dict[str, int]:
        """Return the number of rows left for each key, the largest first."""
        return dict(self._database.execute("SELECT key, count(*) FROM row GROUP BY key ORDER BY 2 DESC, 1"))

    def close(self) -> None:
        """Drop all rows."""
        self._database.close()


def _digest(key: str, value: float, time: int, step: int) -> bytes:
    """Hash a row to 16 bytes. SQL stores keep infinities as the largest floats; 0.0 and -0.0 are the same to them."""
    known = math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value + 0.0
    return blake2b(repr((key, known, time, step)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check_none(noun: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(map(repr, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
        raise DifferenceError(f"{formatting.counted(len(names), noun)} missing there, or other than here: {shown}")
