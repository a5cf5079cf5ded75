"""Taking a run directory away: what lies in it that is nobody else's, and how it goes without a moment of half of it.

It gets a hidden name first, which nobody looks at who would begin to write in it; then the journals go, and the rest.
Whoever is interrupted in between leaves a hidden directory: one with a journal is brought back, another one has no use.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mlops_integrations.journal import lease
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Artifact
from mlops_integrations.journal.rundir import RunDirectory

_HIDDEN: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.removed")
_OURS: Final = re.compile(
    r"\.?(journal-\d+\.(jsonl|exit)|cursor-[0-9a-f]+\.json|lease(\.lock|\.wanted)?|wake|side_process|next_writer"
    r"|uploader\.log|owner|probe|now)(\.\d+)?(\.[0-9a-f]{8})?"
)
"""The files of a run directory but for artifacts, and what a kill leaves of them under a passing name."""


def found_only_here(run: RunDirectory) -> list[Path]:
    """The files below a run directory that are neither its own nor artifacts that its journals name.

    Raises:
        OSError: it can't be read.
    """
    kept = [path for path in run.path.iterdir() if path != run.artifacts and not _is_ours(path)]
    artifacts = _files_below(run.artifacts)
    if artifacts:
        recorded = set(_artifacts(run))
        kept += [path for path in artifacts if path.relative_to(run.path).as_posix() not in recorded]
    return sorted(kept)


def remove(run: RunDirectory, check: Callable[[RunDirectory], None]) -> None:
    """Remove a run directory. To be called by the holder of its lease, which goes with it.

    Args:
        run: the run directory.
        check: called when nobody finds it any more, with where it is by then; what it raises brings everything back.

    Raises:
        OSError: it can't be removed.
    """
    doomed = run.path.with_name(f".{run.path.name}.{secrets.token_hex(4)}.removed")
    try:
        run.path.rename(doomed)
        check(RunDirectory(doomed))
    except BaseException:  # Ctrl-C too: it comes back, whatever happened
        if doomed.exists():
            doomed.rename(run.path)
        raise
    _delete(doomed)


def settle_leftovers(root: Path) -> None:
    """Bring back, or remove for good, what an interrupted removal has left hidden in a root.

    Raises:
        OSError: it can't be done.
    """
    for path in root.glob(".*.removed"):
        hidden = _HIDDEN.fullmatch(path.name)
        if hidden is None or path.is_symlink() or lease.live_holder(path) is not None:
            continue
        if RunDirectory(path).journals() and not (root / hidden["name"]).exists():
            path.rename(root / hidden["name"])
        elif not RunDirectory(path).journals():
            shutil.rmtree(path)


def let_latest_go(root: Path, name: str) -> None:
    """The link ``latest`` leads nowhere, if it led to the directory of this name, which is no more."""
    with contextlib.suppress(OSError):  # a link is a convenience
        link = root / "latest"
        if link.readlink() == Path(name) and not link.exists():
            link.unlink()


def _delete(doomed: Path) -> None:
    for journal in RunDirectory(doomed).journals():
        journal.unlink()
    shutil.rmtree(doomed)


def _is_ours(path: Path) -> bool:
    return _OURS.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def _files_below(directory: Path) -> list[Path]:
    """Everything there but directories."""
    return [Path(at) / name for at, _, names in os.walk(directory) for name in names]


def _artifacts(run: RunDirectory) -> Iterator[str]:
    for path in run.journals():
        journal = JournalReader(path)
        try:
            yield from (record.file for record in journal if isinstance(record, Artifact))
        finally:
            journal.close()
