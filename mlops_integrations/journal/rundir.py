"""The run directory: its name, its files, who writes in it, and how that ended.

A root (``MLOPS_DIR`` or ``./mlops_runs``) holds one directory a run and a link ``latest``. A run directory holds
journal files, each with one writer; a cursor for each destination; the lease of whoever delivers; ``refused.jsonl``;
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
"""Far more than a writer takes from making its file to its first lines."""

# Made once: see ``cursor``.
_exit_decoder: Final = msgspec.json.Decoder(Exit)
_identity_decoder: Final = msgspec.json.Decoder(Identity)


class RunDirectory:
    """The paths within one run directory, and what can be read there at any time, by any process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused = path / "refused.jsonl"
        self.artifacts = path / "artifacts"
        self.log = path / "uploader.log"
        self._wake = path / "wake"
        self._ready = path / "side_process"
        self._next_writer = path / "next_writer"

    def journals(self) -> list[Path]:
        """The journal files, oldest first; none where there is no such directory.

        Raises:
            OSError: the directory can't be read, which says nothing about its files.
        """
        try:
            names = [path.name for path in self.path.iterdir()]  # ``glob`` takes what it can't read for empty
        except FileNotFoundError:
            return []
        return [self.path / name for name in sorted(names) if name.startswith("journal-") and name.endswith(".jsonl")]

    def sizes(self) -> dict[str, int]:
        """Name and size in bytes of each journal file."""
        return {path.name: path.stat().st_size for path in self.journals()}

    def spec(self) -> RunSpec:
        """What run this is, as the newest journal file says; of several ranks', the newest of rank 0.

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
        """See that the run directory is this user's: what lies in another's may lead anywhere, also for root.

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
        """How the run ended, once no writer is left that may still write."""
        return ending.of_run([self._writer(path) for path in self.journals() if not _never_began(path)])

    def _writer(self, journal: Path) -> Writer:
        header, spec = reader.read_start(journal)
        gone = self.exit_of(journal)
        if header is None and gone is None and _is_old(journal) and reader.is_headless(journal):
            gone = Exit(int(journal.stat().st_mtime * 1000))  # who wrote it will never be known
        return Writer(
            identity=None if header is None else header.writer,
            rank=0 if spec is None else spec.rank,
            begin=0 if header is None else header.time,
            end=end_of(journal),
            gone=gone,
        )

    def exit_of(self, journal: Path) -> Exit | None:
        """What was found out about the end of a journal's writer."""
        try:
            found = _exit_decoder.decode(files.unseal(journal.with_suffix(".exit").read_bytes()))
            if found.wait_status is not None:
                os.waitstatus_to_exitcode(found.wait_status)  # raises for what is no end of a process
        except (OSError, ValueError, OverflowError, RecursionError):
            return None
        return found

    def note_exit(self, journal: Path, gone: Exit) -> None:
        """Write down what was found out; the kernel's word replaces a bare disappearance, never the other way."""
        known = self.exit_of(journal)
        if known is None or (known.wait_status is None and gone.wait_status is not None):
            files.replace(journal.with_suffix(".exit"), files.seal(msgspec.json.encode(gone)), durable=True)

    def say_ready(self, *, leaving: bool = False) -> None:
        """Note that this side process has come up, or that it is about to end. Of several, each has its lines."""
        with contextlib.suppress(OSError):  # a full disk: it works all the same, or will
            fd = files.open_private(self._ready, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(fd, b"%d\n" % (-os.getpid() if leaving else os.getpid()))
            finally:
                os.close(fd)

    def ready_pid(self) -> int | None:
        """Which side process spoke last; negative: it is about to end, and looks at nothing any more."""
        words = self._words()
        return words[-1] if words else None

    def word_of(self, pid: int) -> int | None:
        """What this side process said last: its number, or the negative of it; None: nothing yet."""
        return next((word for word in reversed(self._words()) if abs(word) == pid), None)

    def _words(self) -> list[int]:
        try:
            return [int(word) for word in self._ready.read_bytes().split()]
        except (OSError, ValueError):
            return []

    def reserve(self) -> None:
        """Note that this process is going to write here, though it has no journal yet."""
        with contextlib.suppress(OSError):  # it is only for who would remove the directory
            files.replace(self._next_writer, msgspec.json.encode(identity.me()))

    def next_writer(self) -> tuple[Identity, float] | None:
        """Which process was the last to say so, and when."""
        try:
            writer = _identity_decoder.decode(self._next_writer.read_bytes())
            return writer, self._next_writer.stat().st_mtime
        except (OSError, ValueError, RecursionError):
            return None

    def wake(self) -> None:
        """Tell the uploader not to wait any longer with what is there."""
        with contextlib.suppress(OSError):
            files.replace(self._wake, b"")

    def wake_time(self) -> int:
        """Changes with each ``wake``."""
        try:
            return self._wake.stat().st_mtime_ns
        except OSError:
            return 0


def _never_began(journal: Path) -> bool:
    """Whether a journal's writer was gone before its first lines had come to the storage device."""
    return _is_old(journal) and reader.is_blank(journal)


def _is_old(journal: Path) -> bool:
    return time.time() - journal.stat().st_mtime > _BEGINNING_SECONDS


def another_owner(directory: Path) -> int | None:
    """Whose a directory is, if not this user's; None where there are no owners."""
    if not hasattr(os, "geteuid"):
        return None
    owner = directory.stat().st_uid
    ours = owner == os.geteuid() or owner == _owner_of_what_is_made_in(directory)
    return None if ours else owner


def _owner_of_what_is_made_in(directory: Path) -> int | None:
    """Some file servers give all that a user makes to one and the same owner; None where nothing can be made."""
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
    """How the writer of a journal file said that it ended, which is its last record."""
    last = reader.read_last(journal)
    return last if isinstance(last, End) else None
