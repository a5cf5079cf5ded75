"""The run directory: its files, its writers, and how the run ended.

A root (``MLOPS_DIR`` or ``./mlops_runs``) holds one directory per run and a link ``latest``. A run directory holds
journal files, each with one writer; a cursor per destination; the lease of the present uploader; ``refused.jsonl``;
``artifacts``; the side process's log. Directories are 0700 and files 0600.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

import msgspec

from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import ending, files, identity, reader
from mlops_integrations.journal.ending import Ending, Exit, Writer
from mlops_integrations.journal.records import End, Identity, RunSpec

_BEGINNING_SECONDS: Final = 60.0
"""Far longer than a writer takes from making its file to its first lines."""

# Made once: see ``cursor``.
_exit_decoder: Final = msgspec.json.Decoder(Exit)
_identity_decoder: Final = msgspec.json.Decoder(Identity)


class RunDirectory:
    """The paths within one run directory, and its state, which any process can read at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused = path / "refused.jsonl"
        self.artifacts = path / "artifacts"
        self.log = path / "uploader.log"
        self._wake = path / "wake"
        self._ready = path / "side_process"
        self._next_writer = path / "next_writer"

    def journals(self) -> list[Path]:
        """Return the journal files, oldest first; none if there is no such directory.

        Raises:
            OSError: the directory can't be read, which says nothing about its files.
        """
        try:
            names = [path.name for path in self.path.iterdir()]  # ``glob`` takes an unreadable directory for empty
        except FileNotFoundError:
            return []
        return [self.path / name for name in sorted(names) if name.startswith("journal-") and name.endswith(".jsonl")]

    def sizes(self) -> dict[str, int]:
        """Name and size in bytes of each journal file."""
        return {path.name: path.stat().st_size for path in self.journals()}

    def spec(self) -> RunSpec:
        """Return the run as the newest journal file describes it; with several ranks, the newest of rank 0.

        Raises:
            RunDirectoryError: this is no run directory, another user's, or its journal is unreadable.
        """
        self.check_owner()
        starts = (reader.read_start(path)[1] for path in reversed(self.journals()))
        fallback = None
        for spec in starts:
            if spec is not None and spec.rank == 0:
                return spec
            fallback = fallback or spec
        if fallback is not None:
            return fallback
        raise RunDirectoryError(f"{self.path} is not a run directory: there is no journal file that can be read in it")

    def check_owner(self) -> None:
        """Check that the run directory is this user's: the files in another's may lead anywhere, also for root.

        Raises:
            RunDirectoryError: it is another user's.
            OSError: there is no such directory.
        """
        owner = another_owner(self.path)
        if owner is not None:
            raise RunDirectoryError(
                f"{self.path} belongs to another user (number {owner}): it is not read, and nothing is delivered. "
                f"That user can, as with `sudo -u '#{owner}' …`"
            )

    def ending(self) -> Ending | None:
        """Return how the run ended; None while a writer may still write."""
        return ending.of_run([self._writer(path) for path in self.journals() if not _never_began(path)])

    def _writer(self, journal: Path) -> Writer:
        header, spec = reader.read_start(journal)
        gone = self.exit_of(journal)
        if header is None and gone is None and _is_old(journal) and reader.is_headless(journal):
            gone = Exit(int(journal.stat().st_mtime * 1000))  # its writer will never be known
        return Writer(
            identity=None if header is None else header.writer,
            rank=0 if spec is None else spec.rank,
            begin=0 if header is None else header.time,
            end=end_of(journal),
            gone=gone,
        )

    def exit_of(self, journal: Path) -> Exit | None:
        """Return the stored end of a journal's writer, if there is one."""
        try:
            found = _exit_decoder.decode(files.unseal(journal.with_suffix(".exit").read_bytes()))
            if found.wait_status is not None:
                os.waitstatus_to_exitcode(found.wait_status)  # raises if no process can end with it
        except (OSError, ValueError, OverflowError, RecursionError):
            return None
        return found

    def note_exit(self, journal: Path, gone: Exit) -> None:
        """Store how a writer ended; a wait status replaces a bare disappearance, never the other way."""
        known = self.exit_of(journal)
        if known is None or (known.wait_status is None and gone.wait_status is not None):
            files.replace(journal.with_suffix(".exit"), files.seal(msgspec.json.encode(gone)), durable=True)

    def say_ready(self, *, leaving: bool = False) -> None:
        """Note that this side process is up, or about to exit. Several side processes each append their lines."""
        with contextlib.suppress(OSError):  # a full disk: the side process works all the same, or will later
            fd = files.open_private(self._ready, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(fd, b"%d\n" % (-os.getpid() if leaving else os.getpid()))
            finally:
                os.close(fd)

    def ready_pid(self) -> int | None:
        """Return the pid of the side process that wrote last; negative: it is about to exit, reading no more."""
        words = self._words()
        return words[-1] if words else None

    def word_of(self, pid: int) -> int | None:
        """Return this side process's last line: its pid, negative if it is about to exit; None: no line yet."""
        return next((word for word in reversed(self._words()) if abs(word) == pid), None)

    def _words(self) -> list[int]:
        try:
            return [int(word) for word in self._ready.read_bytes().split()]
        except (OSError, ValueError):
            return []

    def reserve(self) -> None:
        """Note that this process will write here, though it has no journal file yet."""
        with contextlib.suppress(OSError):  # it only keeps the directory from being removed
            files.replace(self._next_writer, msgspec.json.encode(identity.me()))

    def next_writer(self) -> tuple[Identity, float] | None:
        """Return the last process that called ``reserve``, and when."""
        try:
            writer = _identity_decoder.decode(self._next_writer.read_bytes())
            return writer, self._next_writer.stat().st_mtime
        except (OSError, ValueError, RecursionError):
            return None

    def wake(self) -> None:
        """Tell the uploader to send the records at hand without further delay."""
        with contextlib.suppress(OSError):
            files.replace(self._wake, b"")

    def wake_time(self) -> int:
        """Return a number that changes with each ``wake``."""
        try:
            return self._wake.stat().st_mtime_ns
        except OSError:
            return 0


def _never_began(journal: Path) -> bool:
    """True if a journal's writer was gone before its first lines had reached the storage device."""
    return _is_old(journal) and reader.is_blank(journal)


def _is_old(journal: Path) -> bool:
    return time.time() - journal.stat().st_mtime > _BEGINNING_SECONDS


def another_owner(directory: Path) -> int | None:
    """Return a directory's owner if it is not this user; None if it is, and where there are no owners."""
    if not hasattr(os, "geteuid"):
        return None
    owner = directory.stat().st_uid
    ours = owner == os.geteuid() or owner == _owner_of_what_is_made_in(directory)
    return None if ours else owner


def _owner_of_what_is_made_in(directory: Path) -> int | None:
    """Return the owner of a file made here, as some file servers assign one to all files; None if none can be made."""
    probe = directory / f".owner.{secrets.token_hex(4)}"
    try:
        fd = files.open_private(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_uid
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            probe.unlink()


def end_of(journal: Path) -> End | None:
    """Return the end record of a journal file, which is its last one; None if there is none."""
    last = reader.read_last(journal)
    return last if isinstance(last, End) else None
