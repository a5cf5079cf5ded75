"""Summary of a run directory without reading all of it: status, last values, delivered points and waiting ones.

Cheap for a run that is delivered, however long; to count waiting points, a journal may be read from the cursor on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from mlops_integrations.cli import formatting
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import cursor, ending, identity, lease, reader, rundir
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.ending import Ending
from mlops_integrations.journal.identity import Life
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Losses, Metrics, RunSpec, Value
from mlops_integrations.journal.rundir import RunDirectory

MAYBE_RUNNING: Final = "RUNNING?"
"""The status of a run whose writer can't be judged from here: it runs on another machine or in another container."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One run, as far as this machine knows."""

    directory: RunDirectory
    spec: RunSpec
    status: str
    reason: str | None
    ended: int | None
    """End time in ms since 1970; None if it has not ended."""
    last_step: int | None
    """The highest step that was logged lately."""
    last_values: dict[str, Value]
    """Last values of the keys that were logged lately; the key logged last is at the end."""
    points: int
    delivered: int
    waiting: int
    """Points that are neither delivered nor refused."""
    losses: dict[str, int]
    """Number of items that the writers could not keep, by reason."""
    state: Cursor | None
    """Cursor of the destination that has everything, if there is one, else of the one delivered to last."""
    destination: str | None
    """The destination of that cursor; without a cursor, the one that the run would be delivered to."""
    complete: bool
    """True if everything so far is delivered, including the final status if the run has ended."""

    @property
    def label(self) -> str:
        """The run's short name."""
        return formatting.label(self.spec)

    @property
    def refused(self) -> dict[str, int]:
        """Number of records that the server refused, by reason."""
        return self.state.refused if self.state is not None else {}

    @property
    def status_text(self) -> str:
        """The status with its reason."""
        return f"{self.status} ({self.reason})" if self.reason else self.status

    @property
    def delivery_text(self) -> str:
        """The state of the delivery in few words."""
        if self.complete:
            refused = sum(self.refused.values())
            without = f", {refused:,} refused" if refused else ""
            return ("delivered so far" if self.ended is None else "delivered") + without
        if self.waiting:
            return f"{self.waiting:,} waiting"
        if self.state is not None and self.state.artifacts_waiting:
            return f"{len(self.state.artifacts_waiting):,} files waiting"
        return "waiting" if self.state is None or not self.state.covers(self.directory.sizes()) else "status waiting"


def read(directory: RunDirectory, default_destination: str | None) -> Summary:
    """Read a run directory.

    Args:
        directory: the run directory.
        default_destination: the destination of a run that was recorded without a server.

    Raises:
        RunDirectoryError: this version can't read it; the message says why.
        OSError: it can't be read at all.
    """
    check(directory)
    spec = directory.spec()
    sizes = directory.sizes()
    ended = directory.ending()
    status = _status(directory, ended)
    state = _state(cursor.load_all(directory.path), sizes, ended)
    waiting = points_waiting(directory, state)
    points, delivered = _points(directory, state, waiting)
    last_step, last_values, losses = _latest(directory)
    return Summary(
        directory=directory,
        spec=spec,
        status=status.status,
        reason=status.reason,
        ended=status.time or None,
        last_step=last_step,
        last_values=last_values,
        points=points,
        delivered=delivered,
        waiting=waiting,
        losses=losses,
        state=state,
        destination=state.destination if state is not None else spec.tracking_uri or default_destination,
        complete=state is not None
        and state.covers(sizes, ended)
        and (ended is not None or status.status == ending.RUNNING),
    )


def check(directory: RunDirectory) -> None:
    """Check that this version can read the run.

    Raises:
        RunDirectoryError: it can't, or the run is another user's.
    """
    directory.check_owner()
    for path in directory.journals():
        journal = JournalReader(path)
        try:
            journal.next()
        finally:
            journal.close()
        if journal.too_new:
            raise RunDirectoryError(f"{path} was written by a newer version: update mlops-integrations")


def points_waiting(directory: RunDirectory, state: Cursor | None) -> int:
    """Return the number of points in the journal that the cursor has not passed."""
    return sum(
        _points_behind(path, 0 if state is None else state.positions.get(path.name, 0)) for path in directory.journals()
    )


def uploader(directory: Path) -> tuple[str, bool]:
    """Return the uploader of a run directory, in words, and whether it is at work now."""
    holder = lease.read(directory / "lease")
    if holder is None:
        return "none at work", False
    try:
        alive = lease.live_holder(directory) is not None
    except OSError:  # finding out needs a file to be created there
        return f"{holder}, at work or not", False
    return (f"{holder}, at work", True) if alive else (f"{holder}, which is gone", False)


def _points_behind(path: Path, position: int) -> int:
    if position >= path.stat().st_size:
        return 0
    end = rundir.end_of(path)
    if end is not None and position == 0:
        return end.points
    journal = JournalReader(path, position)
    try:
        return sum(len(record.values) for record in journal if type(record) is Metrics)
    finally:
        journal.close()


def _points(directory: RunDirectory, state: Cursor | None, waiting: int) -> tuple[int, int]:
    """Return the number of points, and of delivered ones."""
    delivered = 0 if state is None else state.points
    ends = [rundir.end_of(path) for path in directory.journals()]
    if None in ends:
        return delivered + _points_refused(directory, state) + waiting, delivered
    points = sum(end.points for end in ends if end is not None)
    return points, min(delivered, points)


class _Refused(msgspec.Struct):
    """The fields of a line of ``refused.jsonl`` that are needed here."""

    destination: str
    metric: dict[str, Any] | None = None


def _points_refused(directory: RunDirectory, state: Cursor | None) -> int:
    if state is None or not state.refused or not directory.refused.exists():
        return 0
    count = 0
    with directory.refused.open("rb") as file:
        for line in file:
            try:
                refused = msgspec.json.decode(line, type=_Refused)
            except (ValueError, RecursionError):  # the end of a file that is being written, or a damaged line
                continue
            count += refused.metric is not None and refused.destination == state.destination
    return count


def _state(cursors: list[Cursor], sizes: dict[str, int], ended: Ending | None) -> Cursor | None:
    latest_first = cursors[::-1]
    complete = (state for state in latest_first if state.covers(sizes, ended))
    return next(complete, latest_first[0] if latest_first else None)


def _status(directory: RunDirectory, ended: Ending | None) -> Ending:
    """Return the run's end; for a run without one, a status judged by its writers' processes (time 0: not ended)."""
    if ended is not None:
        return ended
    lives = set()
    last_sign = 0.0
    for path in directory.journals():
        if ending.resolve(rundir.end_of(path), directory.exit_of(path)) is not None:
            continue
        last_sign = max(last_sign, path.stat().st_mtime)
        header, _ = reader.read_start(path)
        lives.add(Life.UNKNOWN if header is None else identity.life_of(header.writer, path.stat().st_mtime))
    if Life.ALIVE in lives:
        return Ending(ending.RUNNING, None, 0)
    if Life.UNKNOWN in lives:
        return Ending(MAYBE_RUNNING, None, 0)
    return Ending(ending.FAILED, ending.DISAPPEARED, int(last_sign * 1000))


def _latest(directory: RunDirectory) -> tuple[int | None, dict[str, Value], dict[str, int]]:
    """Return highest last step, last values, and the losses, from the ends of the journal files."""
    steps: dict[str, int] = {}
    values: dict[str, Value] = {}
    losses: dict[str, int] = {}
    for path in directory.journals():
        counts: dict[str, int] = {}
        for record in reader.read_tail(path):
            if isinstance(record, Metrics):
                for key, value, step in record.values:
                    values.pop(key, None)
                    values[key], steps[key] = value, step
            elif isinstance(record, Losses):
                counts = record.counts
        for reason, count in counts.items():
            losses[reason] = losses.get(reason, 0) + count
    return max(steps.values(), default=None), values, losses
