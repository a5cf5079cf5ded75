"""How far one destination has got: what the uploader knows, as a file that everybody may read.

One file a destination, replaced after each acknowledged batch. It is the only way that news comes back to the
training process: the server's run id, the link, trouble, counters.
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
"""A place in a file, in bytes."""


class Trouble(msgspec.Struct, frozen=True):
    """Why nothing moves at the moment; ``stopped`` means that it won't by itself."""

    message: str
    since: int
    stopped: bool = False
    request_id: str | None = None
    """The server's name for the last request that came to nothing."""


class Sending(msgspec.Struct, frozen=True):
    """Records that are on their way to a server that knows each write by a name."""

    positions: dict[str, Position]
    """Where they end in each journal file."""
    since: int
    """When they were first sent by these names."""


class Cursor(msgspec.Struct):
    """Everything known about one run at one destination. Times are ms since 1970."""

    destination: str
    positions: dict[str, Position] = {}
    """Journal file name -> bytes of it that are acknowledged or set aside."""
    sending: Sending | None = None
    """What lies behind ``positions`` and may have been sent."""
    unsure: dict[str, int] = {}
    """Up to where in each journal file something may have been sent: by an uploader that died, or by way of a cursor
    that was lost.
    """
    doubled: int = 0
    """Values sent again after the server had forgotten the first time's name, and did not show them: perhaps twice."""
    dialect: str | None = None
    """What the server speaks."""
    notes: list[str] = []
    """What becomes there of things that such a server can't keep."""
    experiment_id: str | None = None
    elsewhere: str | None = None
    """The experiment that was asked for by hand (``sync --experiment``) instead of the recorded one."""
    as_new: str | None = None
    """Another run was asked for by hand (``sync --as-new``) instead of one to go on with: the name of this wish."""
    replaced: list[str] = []
    """The server's ids of runs in whose place others were made."""
    run_id: str | None = None
    url: str | None = None
    intent: int | None = None
    """When a creation was about to be asked for. With no ``run_id`` beside it: look for the run before asking again."""
    ambiguous: bool = False
    """A creation was asked for with no clear answer: the server may hold an empty twin."""
    deleted_twins: list[str] = []
    """Empty runs that such a creation had left behind."""
    parent_set: bool = False
    """The link to the parent is on the server."""
    points: int = 0
    """Metric values acknowledged."""
    refused: dict[str, int] = {}
    """Records the server won't take, by reason; they stand in ``refused.jsonl``."""
    refused_first: dict[str, str] = {}
    """The first name refused for each reason."""
    shortened: int = 0
    """Texts cut to the server's limit; the journal has them whole."""
    artifacts_waiting: dict[str, str] = {}
    """Files that are still to be sent: their paths among the run's artifacts, and where they lie in the directory."""
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
        """Whether journals of these sizes are delivered, files and all, and with ``ended`` the status as well."""
        if self.artifacts_waiting or any(self.positions.get(name, 0) < size for name, size in sizes.items()):
            return False
        return ended is None or (self.status, self.reason, self.status_time) == (
            ended.status,
            ended.reason,
            ended.time,
        )

    @property
    def is_unsure(self) -> bool:
        """Whether what comes next may be on the server already."""
        return any(self.positions.get(name, 0) < size for name, size in self.unsure.items())

    @property
    def stopped(self) -> bool:
        """Whether delivery waits for somebody to do something."""
        return self.trouble is not None and self.trouble.stopped


# Made once, when the module is imported: msgspec crashes where two threads decode a type for the first time at once.
_decoder: Final = msgspec.json.Decoder(Cursor)


def cursor_path(directory: Path, destination: str) -> Path:
    """Where the cursor of a destination lies in a run directory."""
    return directory / f"cursor-{hashlib.sha256(destination.encode()).hexdigest()[:12]}.json"


def load(path: Path) -> Cursor | None:
    """The cursor in a file; None where there is none, or none that can be read: delivery then starts again."""
    try:
        return _decoder.decode(files.unseal(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def load_all(directory: Path) -> list[Cursor]:
    """Every destination's cursor in a run directory, the one touched last at the end."""
    paths = sorted(directory.glob("cursor-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [cursor for cursor in map(load, paths) if cursor is not None]


def save(path: Path, cursor: Cursor, *, durable: bool = False) -> None:
    """Replace the file by this cursor.

    Raises:
        OSError: it could not be written; the old one stands.
    """
    files.replace(path, files.seal(msgspec.json.encode(cursor)), durable=durable)


class CursorView:
    """The cursor of one destination as it is now, read again only when it has changed. For those who look often."""

    def __init__(self, directory: Path, destination: str | None) -> None:
        self._path = None if destination is None else cursor_path(directory, destination)
        self._seen: tuple[int, int] | None = None
        self._cursor: Cursor | None = None

    @property
    def last(self) -> Cursor | None:
        """The last one that was seen, though its file may be gone."""
        return self._cursor

    def now(self) -> Cursor | None:
        """The cursor, or None while there is none."""
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
