"""``clean``: removes the directories of runs that a server has completely.

Runs that are not surely there, or may still be needed here, stay; the reason is printed. Before a directory is removed,
all of the run is read back from the server: acknowledged records may be gone, or may never have arrived.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mlops_integrations.backends.protocol import EXIT_REASON_TAG
from mlops_integrations.cli import formatting, run_summary
from mlops_integrations.cli.exit_codes import ALL_DELIVERED, INTERRUPTED, SOME_LEFT
from mlops_integrations.cli.progress import Ticker
from mlops_integrations.cli.read_back import DifferenceError, Readable, ReadBack
from mlops_integrations.cli.run_summary import MAYBE_RUNNING, Summary
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import settings
from mlops_integrations.config.credential_owner import Withheld
from mlops_integrations.config.settings import Settings
from mlops_integrations.errors import MLOpsError, NotFoundError
from mlops_integrations.journal import ending, identity, lease, reader, removal
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.identity import Life
from mlops_integrations.journal.lease import Lease
from mlops_integrations.journal.records import Identity
from mlops_integrations.journal.rundir import RunDirectory

_DAY: Final = 86_400.0
_FILES_NAMED: Final = 3
_HINT: Final = "What is undelivered, and what to type to deliver it: {}"
_NOT_ASKED: Final = "{} can't be asked whether it has the run: {}"
_UNNAMED: Final = "nothing is signed for a server that only a run directory names"
_INTERRUPTED: Final = "Interrupted. What is not removed is whole, and the same command goes on from there."


class KeptError(Exception):
    """A run directory stays; the text says why."""


@dataclass(slots=True)
class Clean:
    """One call of ``clean``.

    Args:
        terminal: where to print.
        older_than: number of days; runs that ended more recently stay.
        dry_run: say what would be removed, and remove nothing.
    """

    terminal: Terminal
    older_than: float = 0.0
    dry_run: bool = False
    _servers: dict[str, Readable | str] = field(default_factory=dict)
    """Servers by their addresses; for a server that can't be asked, the reason."""
    _named: Settings = field(default_factory=settings.from_arguments)
    """The environment's settings: the server that they name gets the credentials."""
    _removed: int = 0
    _kept: int = 0
    _failed: int = 0
    _undelivered: int = 0
    _freed: int = 0
    """Bytes."""

    def run(self, runs: list[RunDirectory]) -> int:
        """Remove the runs that the server has completely; the exit code says whether a removal failed."""
        waited_for = _parents_of_undelivered(runs)
        try:
            for directory in runs:
                self._treat(directory, waited_for)
        except KeyboardInterrupt:
            self.terminal.note(_INTERRUPTED)
            return INTERRUPTED
        finally:
            self._sum_up()
        return SOME_LEFT if self._failed else ALL_DELIVERED

    def _treat(self, directory: RunDirectory, waited_for: set[str | None]) -> None:
        label = directory.path.name
        try:
            one = run_summary.read(directory, None)
            label = one.label
            state = self._check_all_is_delivered(one)
            _check_nothing_is_only_here(one, state)
            _check_nobody_needs_it(one, waited_for)
            self._check_server_has_it(one, state)
            size = _size(directory.path)
            if not self.dry_run:
                _remove(one)
        except KeptError as error:
            self._kept += 1
            self._say("kept", label, str(error))
        except OSError as error:
            if directory.path.exists():  # else somebody else has removed it
                self._failed += 1
                self._say("left", label, str(error))
        else:
            self._removed += 1
            self._freed += size
            where = state.url or f"run {state.run_id} on {state.destination}"
            text = f"{formatting.counted(one.delivered, 'point')}, {one.status}, {where}"
            self._say("to remove" if self.dry_run else "removed", label, text)

    def _check_all_is_delivered(self, one: Summary) -> Cursor:
        """Return the cursor of the server that has everything; raise KeptError if there is none."""
        if one.status == ending.RUNNING:
            raise KeptError("it has not ended")
        if one.status == MAYBE_RUNNING:
            raise KeptError("whether it still runs can't be told from here. If it does not: sync --close")
        if one.state is None or not one.complete or one.ended is None:
            self._undelivered += 1
            raise KeptError(one.delivery_text if one.destination else "recorded only, no server has it")
        if self.older_than and time.time() - one.ended / 1000 < self.older_than * _DAY:
            raise KeptError(f"it ended within the last {self.older_than:g} days")
        return one.state

    def _check_server_has_it(self, one: Summary, state: Cursor) -> None:
        """Read all of it back from the server."""
        server = self._server(one.directory, state)
        if isinstance(server, str):
            raise KeptError(_NOT_ASKED.format(state.destination, server))
        ticker = Ticker(self.terminal)

        def tell(text: str) -> None:
            if ticker.is_due():
                ticker.said()
                self.terminal.progress(f"{one.label}: {text}")

        run_id = state.run_id or ""
        try:
            ReadBack(one.directory, server, run_id, tell).compare(one.status, state.reason, EXIT_REASON_TAG)
        except DifferenceError as error:
            raise KeptError(f"run {run_id} on {state.destination} differs: {error}") from None
        except NotFoundError as error:
            raise KeptError(f"{state.destination} does not have run {run_id}: {error}") from None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            text = f"the answer is not a tracking server's: {type(error).__name__}: {error}"
            raise KeptError(_NOT_ASKED.format(state.destination, text)) from None
        except MLOpsError as error:
            self._servers[state.destination] = str(error)  # it is not asked again for each run
            raise KeptError(_NOT_ASKED.format(state.destination, error)) from None

    def _server(self, directory: RunDirectory, state: Cursor) -> Readable | str:
        from mlops_integrations.backends.registry import open_store

        if state.destination not in self._servers:
            access = settings.access_to(state.destination, self._named)
            if access.withheld is not None:
                self._say_withheld(directory, state, access.withheld)
                if access.withheld.needed:
                    self._servers[state.destination] = _UNNAMED
                    return _UNNAMED
            try:
                self._servers[state.destination] = open_store(state.destination, access, state.dialect)
            except (MLOpsError, ValueError, OSError, ImportError) as error:
                self._servers[state.destination] = str(error)
        return self._servers[state.destination]

    def _say_withheld(self, directory: RunDirectory, state: Cursor, found: Withheld) -> None:
        words = ["clean", str(directory.path), *(["--dry-run"] if self.dry_run else [])]
        words += ["--older-than", f"{self.older_than:g}"] if self.older_than else []
        command = f"MLFLOW_TRACKING_URI={shlex.quote(found.address)} {formatting.shell_command(*words)}"
        self.terminal.note(formatting.withheld(found, state.destination, command))

    def _say(self, what: str, label: str, text: str) -> None:
        self.terminal.line(f"{what:<10} {label}: {text}")

    def _sum_up(self) -> None:
        counts = {
            "to remove" if self.dry_run else "removed": self._removed,
            "kept": self._kept,
            "left": self._failed,
        }
        text = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        space = f"; {self._freed / 1e6:,.1f} MB {'to free' if self.dry_run else 'freed'}" if self._removed else ""
        if text:
            self.terminal.line(f"Runs: {text}{space}")
        if self._undelivered:
            self.terminal.note(_HINT.format(formatting.shell_command("status")))


def _parents_of_undelivered(runs: list[RunDirectory]) -> set[str | None]:
    """Return the directories of undelivered runs' parents: a delivery reads the parent's id on the server there."""
    wanted: set[str | None] = set()
    for directory in runs:
        try:
            one = run_summary.read(directory, None)
        except OSError:
            continue
        if not one.complete:
            wanted.add(one.spec.parent_directory)
    return wanted


def _check_nothing_is_only_here(one: Summary, state: Cursor) -> None:
    if one.refused:
        raise KeptError(f"refused by the server, and only here: {formatting.by_reason(one.refused)}")
    if state.notes:
        raise KeptError(f"not all of it can be kept by such a server: {'; '.join(state.notes)}")
    if state.shortened:
        raise KeptError(f"{formatting.counted(state.shortened, 'text')} that the server has cut short")
    if one.losses:
        raise KeptError(f"what could not be recorded is counted only here: {formatting.by_reason(one.losses)}")
    if state.bad_lines:
        raise KeptError(f"{formatting.counted(state.bad_lines, 'damaged line')} in its journal, which nobody else has")
    if state.artifacts_kept:
        raise KeptError(f"files that are only here: {formatting.by_reason(state.artifacts_kept)}")
    files = removal.found_only_here(one.directory)
    if files:
        names = ", ".join(str(path.relative_to(one.directory.path)) for path in files[:_FILES_NAMED])
        raise KeptError(f"{formatting.counted(len(files), 'file')} that are no part of its record: {names} …")


def _check_nobody_needs_it(one: Summary, waited_for: set[str | None]) -> None:
    """Check for undelivered child runs, and for live processes: these may resume a run that has ended."""
    if str(one.directory.path) in waited_for:
        raise KeptError("a run that it is the parent of is not delivered yet")
    for path in one.directory.journals():
        header, _ = reader.read_start(path)
        _check_gone(None if header is None else header.writer, path.stat().st_mtime)
    coming = one.directory.next_writer()
    if coming is not None:
        _check_gone(*coming)


def _check_gone(writer: Identity | None, last_sign: float) -> None:
    life = Life.UNKNOWN if writer is None else identity.life_of(writer, last_sign)
    if life is Life.ALIVE and writer is not None:
        raise KeptError(f"its process still runs ({writer.pid})")
    # Another machine's clock may be wrong, and its process may go on with the run.
    if life is Life.UNKNOWN and abs(time.time() - last_sign) < _DAY:
        raise KeptError("it was written elsewhere within a day: whether that process lives can't be told from here")


def _remove(one: Summary) -> None:
    """Remove a run directory, if nothing was written there since it was looked at."""
    sizes, ended = one.directory.sizes(), one.directory.ending()
    if one.state is None or not one.state.covers(sizes, ended):
        raise KeptError("something was logged just now")

    def check(there: RunDirectory) -> None:
        if (there.sizes(), there.ending()) != (sizes, ended) or removal.found_only_here(there):
            raise KeptError("something was logged just now")

    held = Lease(one.directory.path, "clean", yields=False)
    if not held.acquire():
        raise KeptError(f"{lease.live_holder(one.directory.path) or 'somebody'} is at work on it")
    try:
        removal.remove(one.directory, check)
    finally:
        held.release()
    removal.let_latest_go(one.directory.path.parent, one.directory.path.name)


def _size(directory: Path) -> int:
    """Return the total size of the files there, in bytes."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
