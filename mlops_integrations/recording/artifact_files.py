"""Finds the files that an artifact consists of, before anything is copied; names those that can't be kept, and why.

The type of a path comes from ``stat``, not from opening it: a FIFO would block, and a device may have no end.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from mlops_integrations.journal.root import GITIGNORE, is_ours_to_ignore, is_run_directory
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.untrusted import stays_within

NO_FILE: Final = "artifact that is no file or directory"
NOT_COPIED: Final = "artifact that could not be copied"
WRONG: Final = "wrong argument"

_INSTEAD: Final = "give the path of a file or directory"
_SHOWN_CHARACTERS: Final = 200


class UnfitError(Exception):
    """Something can't be kept as an artifact: the reason that it is counted by, and its name (``about``)."""

    def __init__(self, reason: str, about: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.about = about


@dataclass(slots=True)
class Found:
    """The files of an artifact, each with its path within the artifact."""

    files: list[tuple[Path, PurePosixPath]] = field(default_factory=list)
    unfit: list[UnfitError] = field(default_factory=list)
    """Entries that can't be kept; the other files are kept all the same."""
    runs: int = 0
    """Number of run directories that were left out."""


def path_of(given: object) -> Path:
    """Return the path that was given.

    Raises:
        UnfitError: the argument is not a path of a file; the text says what to give instead.
    """
    try:
        path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    except Exception as error:  # foreign code
        text = f"log_artifact: a {_kind(given)} that gives no path ({type(error).__name__}: {error}): {_INSTEAD}"
        raise UnfitError(NO_FILE, _kind(given), text) from error
    if not isinstance(path, str):
        raise UnfitError(NO_FILE, _kind(given), f"log_artifact takes a path, not {_kind(given)}: {_instead_of(given)}")
    if not path.strip():
        text = f'log_artifact({path!r}) names no file: {_INSTEAD}; for the whole working directory "."'
        raise UnfitError(NO_FILE, repr(path), text)
    if "\0" in path:
        raise UnfitError(NO_FILE, repr(path), f"log_artifact({path!r}): no path has a NUL in it: {_INSTEAD}")
    if isinstance(given, PurePath) and not given.parts:
        text = 'log_artifact(Path(".")) may be an empty path, Path(""): for the whole working directory give "."'
        raise UnfitError(NO_FILE, "Path('.')", f"{text} or Path.cwd()")
    return Path(path)


def _instead_of(given: object) -> str:
    name = getattr(given, "name", None)
    if hasattr(given, "read"):
        return (
            f"give the file's path, as {name!r}" if isinstance(name, str) else "write it to a file, and give its path"
        )
    if given is None or isinstance(given, (int, float)):
        return _INSTEAD
    if isinstance(given, (list, tuple, set, frozenset)):
        return f"{_INSTEAD}, one a call"
    return "write it to a file, and give the path of that"


def _kind(given: object) -> str:
    return "None" if given is None else type(given).__name__


def base_of(artifact_path: object) -> PurePosixPath:
    """Return the directory among the run's artifacts that the files go to.

    Raises:
        UnfitError: it leads out of the artifacts, or is not a path.
    """
    if artifact_path is None:
        return PurePosixPath()
    if not isinstance(artifact_path, (str, PurePath)):
        text = f"log_artifact takes artifact_path= as text, not {_kind(artifact_path)}: the file is not kept"
        raise UnfitError(WRONG, f"artifact_path {_kind(artifact_path)}", text)
    base = PurePosixPath(artifact_path)
    if base.parts and not stays_within(str(base)):
        text = f"artifact_path={str(artifact_path)!r}: use a relative path without '..'"
        raise UnfitError(NOT_COPIED, str(artifact_path), text)
    return base


def found_at(source: Path, directory: RunDirectory) -> Found:
    """List the files to keep, before anything is copied.

    Raises:
        UnfitError: ``source`` can't be read, is neither a file nor a directory, or is the run's own.
    """
    try:
        mode = source.stat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    if stat.S_ISREG(mode):
        return Found([(source, PurePosixPath(source.name))])
    if not stat.S_ISDIR(mode):
        raise _no_file(source, mode)
    if _is_at(source, directory.path) or _is_within(source, directory.artifacts):
        text = f"{shown(source)} holds the run's own records and files: give the path of a file or directory of yours"
        raise UnfitError(NO_FILE, str(source), text)
    return _found_below(source, directory.path)


def _found_below(source: Path, run: Path) -> Found:
    """List every file below a directory; links to directories are not followed, run directories are left out."""
    found = Found()
    for at, directories, names in os.walk(source, onerror=lambda error: found.unfit.append(_unlisted(error, source))):
        here = Path(at)
        runs = [name for name in directories if _is_of_a_run(here / name, run)]
        found.runs += len(runs)
        links = [name for name in directories if (here / name).is_symlink()]
        # A link to a place below the source needs no message: that place is visited anyway.
        found.unfit += [_not_followed(here / name) for name in links if not _is_within(here / name, source)]
        directories[:] = sorted(set(directories) - set(runs) - set(links))
        for name in sorted(names):
            if runs and name == GITIGNORE and is_ours_to_ignore(here):
                continue
            _take(here / name, source, found)
    return found


def _take(file: Path, source: Path, found: Found) -> None:
    try:
        mode = file.stat().st_mode
    except OSError as error:
        found.unfit.append(_unreadable(file, error))
        return
    if stat.S_ISREG(mode):
        found.files.append((file, PurePosixPath(file.relative_to(source).as_posix())))
    else:
        found.unfit.append(_no_file(file, mode))


def _is_of_a_run(directory: Path, run: Path) -> bool:
    return not directory.is_symlink() and (_is_at(directory, run) or is_run_directory(directory))


def _is_at(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _is_within(path: Path, directory: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def _no_file(path: Path, mode: int) -> UnfitError:
    kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    kind = next((word for test, word in kinds.items() if test(mode)), "neither")
    return UnfitError(NO_FILE, str(path), f"{shown(path)} is {kind}: write what is to be kept to a file, and give that")


def _unreadable(path: Path, error: Exception) -> UnfitError:
    if isinstance(error, FileNotFoundError):
        why = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
    else:
        why = f"can't be read ({getattr(error, 'strerror', None) or error})"
    return UnfitError(NOT_COPIED, str(path), f"{shown(path)} {why}")


def _unlisted(error: OSError, source: Path) -> UnfitError:
    return _unreadable(Path(error.filename or source), error)


def _not_followed(link: Path) -> UnfitError:
    text = f"{shown(link)} is a link to a directory elsewhere, which is not followed: log that directory by itself"
    return UnfitError(NOT_COPIED, str(link), text)


def shown(path: Path) -> str:
    """Return a path for messages; of a long one only the end, which tells more than the beginning."""
    text = str(path)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"…{text[-_SHOWN_CHARACTERS:]}")
