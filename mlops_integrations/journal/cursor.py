"""The cursor: a file with the uploader's progress at one destination, for other processes to read.

One file per destination, replaced after each acknowledged batch. It is the only way by which the training process
learns the server's run id, the link, trouble and counters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import msgspec

from mlops_integrations.journal import files
from mlops_integrations.journal.ending import Ending

Position: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An offset in a file, in bytes."""


class Trouble(msgspec.Struct, frozen=True):
    """Reason why delivery makes no progress; ``stopped``: it won't resume by itself."""

    message: str
    since: int
    stopped: bool = False
    request_id: str | None = None
    """The server's id of the last failed request."""


class Sending(msgspec.Struct, frozen=True):
    """Records on their way to a server that recognizes each write by its idempotency token."""

    positions: dict[str, Position]
    """Journal file name -> end of these records in it."""
    since: int
    """When they were first sent with these tokens."""


class Cursor(msgspec.Struct):
    """Everything known about one run at one destination. Times are ms since 1970."""

    destination: str
    positions: dict[str, Position] = {}
    """Journal file name -> bytes of it that are acknowledged or set aside."""
    sending: Sending | None = None
    """Records after ``positions`` that may have been sent."""
    unsure: dict[str, int] = {}
    """Journal file name -> offset up to which records may have been sent: by an uploader that died, or through another
    cursor (a lost one, or one for another address).
    """
    doubled: int = 0
    """Values sent again as the server had forgotten the first token and did not show them: perhaps there twice."""
    dialect: str | None = None
    """The server's dialect."""
    notes: list[str] = []
    """How this kind of server treats things that it can't keep."""
    experiment_id: str | None = None
    elsewhere: str | None = None
    """Experiment given by hand (``sync --experiment``), used instead of the recorded one."""
    as_new: str | None = None
    """Random id of the ``sync --as-new`` command that asked for another run in place of the known one."""
    replaced: list[str] = []
    """The server's ids of runs that were replaced (see ``as_new``)."""
    run_id: str | None = None
    url: str | None = None
    intent: int | None = None
    """Time just before a creation request. If there is no ``run_id``: look for the run before another request."""
    ambiguous: bool = False
    """A creation request had no clear answer: the server may hold an empty twin."""
    deleted_twins: list[str] = []
    """Ids of empty runs that such a request had left behind; they were deleted."""
    parent_set: bool = False
    """The link to the parent is on the server."""
    points: int = 0
    """Metric values acknowledged."""
    refused: dict[str, int] = {}
    """Records that the server refuses, by reason; they are in ``refused.jsonl``."""
    refused_first: dict[str, str] = {}
    """The first refused name for each reason."""
    shortened: int = 0
    """Texts cut to the server's limit; the journal has them whole."""
    artifacts_waiting: dict[str, str] = {}
    """Files still to be sent: path among the run's artifacts -> path in the run directory."""
    artifacts: int = 0
    """Files sent."""
    artifacts_kept: dict[str, int] = {}
    """Files that can't be sent and stay in the run directory, by reason."""
    artifacts_kept_first: dict[str, str] = {}
    """The path of the first one for each reason."""
    bad_lines: int = 0
    status: str | None = None
    """The run's status as last acknowledged, with its reason and time."""
    reason: str | None = None
    status_time: int = 0
    trouble: Trouble | None = None

    def covers(self, sizes: Mapping[str, int], ended: Ending | None = None) -> bool:
        """True if journals of these sizes are delivered, artifacts included; with ``ended``, the status too."""
        if self.artifacts_waiting or any(self.positions.get(name, 0) < size for name, size in sizes.items()):
            return False
        return ended is None or (self.status, self.reason, self.status_time) == (
            ended.status,
            ended.reason,
            ended.time,
        )

    @property
    def is_unsure(self) -> bool:
        """True while the next records may be on the server already."""
        return any(self.positions.get(name, 0) < size for name, size in self.unsure.items())

    @property
    def stopped(self) -> bool:
        """True while delivery waits for a person to act."""
        return self.trouble is not None and self.trouble.stopped


# Made once, at import: msgspec crashes when two threads decode a type for the first time at once.
_decoder: Final = msgspec.json.Decoder(Cursor)


def cursor_path(directory: Path, destination: str) -> Path:
    """Return the path of a destination's cursor in a run directory."""
    return directory / f"cursor-{hashlib.sha256(destination.encode()).hexdigest()[:12]}.json"


def load(path: Path) -> Cursor | None:
    """Return the cursor in a file; None if it is missing or unreadable: delivery then starts again."""
    try:
        return _decoder.decode(files.unseal(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def load_all(directory: Path) -> list[Cursor]:
    """Return every destination's cursor in a run directory, the last modified one at the end."""
    paths = sorted(directory.glob("cursor-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [cursor for cursor in map(load, paths) if cursor is not None]


def save(path: Path, cursor: Cursor, *, durable: bool = False) -> None:
    """Replace the file by this cursor.

    Raises:
        OSError: it could not be written; the old one stays.
    """
    files.replace(path, files.seal(msgspec.json.encode(cursor)), durable=durable)


class CursorView:
    """One destination's current cursor, read again only when it has changed. For frequent callers."""

    def __init__(self, directory: Path, destination: str | None) -> None:
        self._path = None if destination is None else cursor_path(directory, destination)
        self._seen: tuple[int, int] | None = None
        self._cursor: Cursor | None = None

    @property
    def last(self) -> Cursor | None:
        """The last cursor that was read, even if its file is gone."""
        return self._cursor

    def now(self) -> Cursor | None:
        """Return the cursor, or None while there is none."""
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        # Each replacement is a new file: its number changes even if the clock is coarse.
        version = stat.st_ino, stat.st_mtime_ns
        if version != self._seen:
            fresh = load(self._path)
            if fresh is not None:
                self._seen, self._cursor = version, fresh
        return self._cursor
