"""``clean``: removes the directories of runs of which the server has everything.

What is not surely there, or may still be needed here, stays, and it is said why.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from mlops_integrations.command import ALL_DELIVERED, SOME_LEFT, summary, texts
from mlops_integrations.command.delivering import LeftError
from mlops_integrations.command.summary import Summary
from mlops_integrations.command.terminal import Terminal
from mlops_integrations.journal import identity, lease, reader, rundir
from mlops_integrations.journal.identity import Life
from mlops_integrations.journal.lease import Lease
from mlops_integrations.journal.rundir import RunDirectory

_DAY: Final = 86_400.0
_QUIET_SECONDS: Final = 3_600.0
"""A finished run whose process can't be seen from here counts as left alone after this time without a change."""


def clean(terminal: Terminal, runs: list[RunDirectory], *, older_than: float, dry_run: bool) -> int:
    """Remove those of which the server has everything; the exit code says whether one of them could not be removed.

    Args:
        terminal: where to print.
        runs: the run directories.
        older_than: days since a run ended; those that ended later stay.
        dry_run: say what would be removed, and remove nothing.
    """
    removed = kept = failed = freed = 0
    for run in runs:
        try:
            one = summary.read(run, None)
            why = _why_kept(one, older_than)
            if why is not None:
                kept += 1
                terminal.line(f"{'kept':<10} {one.label}: {why}")
                continue
            size = _size(run.path)
            if not dry_run:
                _remove(run, one)
        except (OSError, LeftError) as error:
            failed += 1
            terminal.line(f"{'left':<10} {run.path.name}: {error}")
            continue
        removed += 1
        freed += size
        assert one.state is not None
        where = one.state.url or f"run {one.state.run_id} on {one.state.destination}"
        points = texts.counted(one.delivered, "point")
        terminal.line(f"{'to remove' if dry_run else 'removed':<10} {one.label}: {points}, {one.status}, {where}")
    if runs:
        counts = {"to remove" if dry_run else "removed": removed, "kept": kept, "left": failed}
        text = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        space = f"; {freed / 1e6:,.1f} MB {'to free' if dry_run else 'freed'}" if removed else ""
        terminal.line(f"Runs: {text}{space}")
    return SOME_LEFT if failed else ALL_DELIVERED


def _why_kept(one: Summary, older_than: float) -> str | None:
    """Why a run directory is not to be removed; None: it is."""
    if not one.complete:
        return one.delivery_text if one.destination else "recorded only, no server has it"
    if one.ended is None:
        return "it goes on"
    assert one.state is not None
    if one.refused:
        return f"refused by the server, and only here: {texts.by_reason(one.refused)}"
    if one.state.artifacts_kept:
        return f"files that are only here: {texts.by_reason(one.state.artifacts_kept)}"
    if one.state.bad_lines:
        return f"{texts.counted(one.state.bad_lines, 'damaged line')} in its journal, which nobody else has"
    if one.state.notes:
        return f"not all of it can be kept by such a server: {'; '.join(one.state.notes)}"
    if one.state.shortened:
        return f"{texts.counted(one.state.shortened, 'text')} that the server has cut short"
    if time.time() - one.ended / 1000 < older_than * _DAY:
        return f"it ended less than {older_than:g} days ago"
    return _why_busy(one.run)


def _why_busy(run: RunDirectory) -> str | None:
    """A writer that lives may open a run that has ended again."""
    for path in run.journals():
        header, _ = reader.read_start(path)
        changed = path.stat().st_mtime
        life = Life.UNKNOWN if header is None else identity.life_of(header.writer, changed)
        if life is Life.ALIVE and header is not None:
            return f"its process still runs ({header.writer.pid})"
        if life is Life.UNKNOWN and abs(time.time() - changed) < _QUIET_SECONDS:
            return "it ended just now, elsewhere: in an hour, it can go"
    return None


def _remove(run: RunDirectory, one: Summary) -> None:
    """Remove a run directory, if nothing was written there since it was looked at.

    Raises:
        LeftError: something was, or somebody delivers it.
        OSError: it can't be removed.
    """
    held = Lease(run.path, "clean", yields=False)
    if not held.acquire():
        raise LeftError(f"{lease.live_holder(run.path) or 'somebody'} is delivering it")
    doomed = run.path.with_name(f".{run.path.name}.removed")
    try:
        run.path.rename(doomed)  # now nobody finds it who would begin to write in it
    except OSError:
        held.release()
        raise
    there = RunDirectory(doomed)
    if one.state is None or not one.state.covers(there.sizes(), there.ending()):
        doomed.rename(run.path)
        held.release()
        raise LeftError("something was logged just now")
    shutil.rmtree(doomed)
    rundir.mend_latest(run.path.parent)


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
