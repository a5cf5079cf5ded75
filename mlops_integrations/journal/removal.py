"""Removes run directories: finds files that exist only there, and never leaves a half-removed directory visible.

It gets a hidden name first, under which no process would begin to write in it; then the journals are deleted, then the
rest. An interrupted removal leaves a hidden directory: with a journal it is brought back, without one it is deleted.
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
"""A run directory's own files (no artifacts, no ``refused.jsonl``), also under temporary names that a kill leaves."""


def found_only_here(directory: RunDirectory) -> list[Path]:
    """Return the files in a run directory that are neither its own nor artifacts that its journals name.

    Raises:
        OSError: it can't be read.
    """
    kept = [path for path in directory.path.iterdir() if path != directory.artifacts and not _is_ours(path)]
    artifacts = _files_below(directory.artifacts)
    if artifacts:
        recorded = set(_artifacts(directory))
        kept += [path for path in artifacts if path.relative_to(directory.path).as_posix() not in recorded]
    return sorted(kept)


def remove(directory: RunDirectory, check: Callable[[RunDirectory], None]) -> None:
    """Remove a run directory. The caller holds its lease, which is removed too.

    Args:
        directory: the run directory.
        check: called once the directory is hidden, with its hidden place; if it raises, the directory is brought back.

    Raises:
        OSError: it can't be removed.
    """
    doomed = directory.path.with_name(f".{directory.path.name}.{secrets.token_hex(4)}.removed")
    try:
        directory.path.rename(doomed)
        check(RunDirectory(doomed))
    except BaseException:  # Ctrl-C too: the directory comes back in any case
        if doomed.exists():
            doomed.rename(directory.path)
        raise
    _delete(doomed)


def settle_leftovers(root: Path) -> None:
    """Bring back, or delete for good, hidden directories that interrupted removals left in a root.

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
    """Remove the link ``latest`` if it leads to the directory of this name, and that is gone."""
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
    """Return everything below a directory except directories."""
    return [Path(at) / name for at, _, names in os.walk(directory) for name in names]


def _artifacts(directory: RunDirectory) -> Iterator[str]:
    for path in directory.journals():
        journal = JournalReader(path)
        try:
            yield from (record.file for record in journal if isinstance(record, Artifact))
        finally:
            journal.close()
