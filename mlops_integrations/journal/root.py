"""The root: the directory that holds run directories (``MLOPS_DIR`` or ``./mlops_runs``), and a link ``latest``."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import cursor, files, rundir
from mlops_integrations.journal.rundir import RunDirectory

GITIGNORE: Final = ".gitignore"


_IGNORES_ALL: Final = b"*\n"


_NAME_LENGTH: Final = 50


def make_root(root: Path) -> None:
    """Make the root; a new one gets a ``.gitignore`` that ignores everything.

    Raises:
        OSError: it can't be made.
    """
    if root.is_dir():
        return
    files.make_all_private(root.parent)
    try:
        files.make_private(root)
    except FileExistsError:
        if root.is_dir():  # made by another process that starts at the same moment
            return
        raise
    files.create(root / GITIGNORE, _IGNORES_ALL)


def make_run_directory(root: Path, name: str, uid: str) -> RunDirectory:
    """Make a run directory in ``root``.

    Raises:
        OSError: it can't be made or written.
    """
    make_root(root)
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{directory_label(name)}"
    path = root / f"{stem}-{uid[-4:]}"
    while True:
        try:
            files.make_private(path)
            break
        except FileExistsError:
            path = root / f"{stem}-{secrets.token_hex(2)}"
    _probe(path)
    return RunDirectory(path)


def point_latest_to(path: Path) -> None:
    """Point the link ``latest`` beside a run directory to it.

    Done when recording begins: before that, the link may still be used to find a checkpoint of the previous run.
    """
    with contextlib.suppress(OSError):  # a link is a convenience, and Windows may forbid it
        fresh = path.with_name(f".latest.{secrets.token_hex(4)}")
        fresh.symlink_to(path.name)
        fresh.replace(path.with_name("latest"))


def _probe(path: Path) -> None:
    """Check that exclusive creation and appending work here: a journal and its lease need them."""
    probe = path / f".probe.{secrets.token_hex(4)}"
    try:
        if not files.create(probe, b"1") or files.create(probe, b"2"):
            raise OSError(f"exclusive creation does not work in {path}")
        fd = os.open(probe, os.O_WRONLY | os.O_APPEND)
        try:
            if os.write(fd, b"3") != 1:
                raise OSError(f"no space left in {path}")
        finally:
            os.close(fd)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def directory_label(name: str) -> str:
    """Return a run's name as part of a file name."""
    return re.sub(r"[^\w.\-]+", "_", name).strip("._")[:_NAME_LENGTH].rstrip("._") or "run"


def is_run_directory(path: Path) -> bool:
    """True if there is a journal file in a directory."""
    return any(path.glob("journal-*.jsonl"))


def is_ours_to_ignore(root: Path) -> bool:
    """True if the ``.gitignore`` in a root is the one that was made with it."""
    path = root / GITIGNORE
    try:
        return path.is_file() and path.read_bytes() == _IGNORES_ALL
    except OSError:
        return False


def run_directories(root: Path) -> Iterator[RunDirectory]:
    """Yield the run directories in a root, oldest name first; ``root`` itself if it is one."""
    if is_run_directory(root):
        yield RunDirectory(root)
        return
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        hidden = path.name.startswith(".")  # being removed
        if not hidden and path.is_dir() and not path.is_symlink() and is_run_directory(path):
            yield RunDirectory(path)


def find_by_uid(root: Path, uid: str) -> RunDirectory | None:
    """Return the run directory of a uid in a root."""
    for directory in run_directories(root):
        try:
            if directory.spec().uid == uid:
                return directory
        except RunDirectoryError:
            continue
    return None


def find_by_label(root: Path, uid: str) -> RunDirectory | None:
    """Like ``find_by_uid``, but only among directories named after this uid: fast, however many there are."""
    for path in root.glob(f"*-{uid[-4:]}"):
        with contextlib.suppress(RunDirectoryError):
            if RunDirectory(path).spec().uid == uid:
                return RunDirectory(path)
    return None


def remove_if_empty(path: Path) -> None:
    """Remove a run directory if it is empty."""
    with contextlib.suppress(OSError):
        path.rmdir()


def find_by_run_id(root: Path, run_id: str) -> RunDirectory | None:
    """Return the run directory in a root that is, or was before ``sync --as-new``, delivered to this run id."""
    for directory in run_directories(root):
        if rundir.another_owner(directory.path) is None and any(
            run_id in {s.run_id, *s.replaced} for s in cursor.load_all(directory.path)
        ):
            return directory
    return None
