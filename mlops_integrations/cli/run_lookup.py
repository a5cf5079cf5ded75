"""Finds the run directories that command line arguments mean."""

from __future__ import annotations

import os
from pathlib import Path

from mlops_integrations.cli import formatting
from mlops_integrations.cli.exit_codes import UsageError
from mlops_integrations.config import settings
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import cursor
from mlops_integrations.journal.root import run_directories
from mlops_integrations.journal.rundir import RunDirectory

_MOST_LISTED = 10


def all_runs(directories: list[str]) -> list[RunDirectory]:
    """Return the named runs: each name is a run directory, a directory that holds some, or a run in the default root.

    Without names: all runs in the default root.

    Raises:
        UsageError: a name is neither a directory nor a run in the default root.
    """
    roots = [Path(name).expanduser() for name in directories] or [settings.default_root()]
    found: dict[Path, RunDirectory] = {}
    for root in roots:
        if directories and not root.is_dir():
            directory = one_run(settings.default_root(), str(root))
            found.setdefault(directory.path, directory)
            continue
        for directory in run_directories(root.resolve()):
            found.setdefault(directory.path, directory)
    return list(found.values())


def where(directories: list[str]) -> str:
    """Return the places where ``all_runs`` looks, for messages."""
    return ", ".join(directories) or str(settings.default_root())


def one_run(root: Path, typed: str) -> RunDirectory:
    """Return the run that ``typed`` means.

    Args:
        root: where runs are looked for by name.
        typed: a run directory; "latest"; or, for a run in ``root``, the directory's name or its beginning, the run's
            name or label, its uid, or its id on the server.

    Raises:
        UsageError: there is none, or there are several.
    """
    path = Path(typed).expanduser()
    if path.is_dir() and any(path.glob("journal-*.jsonl")):
        return RunDirectory(path.resolve())
    if typed == "latest":
        return latest_run(root)
    runs = list(run_directories(root))
    exact = [directory for directory in runs if typed in _exact_names(directory)]
    found = exact or [directory for directory in runs if directory.path.name.startswith(typed)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"no run {typed!r} in {root}, which MLOPS_DIR can change: {formatting.shell_command('runs')} lists the runs"
        )
    listed = ", ".join(directory.path.name for directory in found[:_MOST_LISTED])
    more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
    raise UsageError(f"{typed!r} may be any of {len(found)} runs, name one by its directory: {listed}{more}")


def latest_run(root: Path) -> RunDirectory:
    """Return the run that began last.

    Raises:
        UsageError: there is none.
    """
    runs = list(run_directories(root))
    if not runs:
        raise UsageError(f"no runs in {root}: --dir or MLOPS_DIR names another directory")
    linked = os.path.realpath(root / "latest")
    return next((directory for directory in runs if os.path.realpath(directory.path) == linked), runs[-1])


def _exact_names(directory: RunDirectory) -> set[str | None]:
    try:
        spec = directory.spec()
    except RunDirectoryError:
        return {directory.path.name}
    ids = {state.run_id for state in cursor.load_all(directory.path) if state.run_id}
    return {directory.path.name, spec.uid, spec.name, formatting.label(spec), *ids}
