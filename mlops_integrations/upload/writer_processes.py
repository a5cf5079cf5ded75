"""Finds out whether the processes that write in a run directory are gone, and how they ended.

Polled by the uploader, or by the watcher, of a run directory; the findings are written beside the journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mlops_integrations.journal import identity, reader, rundir
from mlops_integrations.journal.ending import Ending, Exit
from mlops_integrations.journal.identity import Life
from mlops_integrations.journal.records import Identity
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.upload import exit_status
from mlops_integrations.upload.exit_status import ProcessDescriptor


class WriterProcesses:
    """Every journal file's writer.

    Args:
        directory: the run directory.
        presume_dead: writers that can't be judged from here count as dead (``sync --close``).
        pidfds: descriptors of processes, by pid and start time, opened when these surely lived.
    """

    def __init__(
        self,
        directory: RunDirectory,
        *,
        presume_dead: bool = False,
        pidfds: Mapping[tuple[int, str | None], int] | None = None,
    ) -> None:
        self._pidfds = dict(pidfds or {})
        self._directory = directory
        self._presume_dead = presume_dead
        self._processes: dict[Path, _Process] = {}
        self._by_writer: dict[Identity, _Process] = {}
        """A process that re-opens a run has many files, but one entry and descriptor here."""

    def poll(self) -> None:
        """Check every writer, and write down the end of those that are newly gone."""
        for path in self._directory.journals():
            if path not in self._processes:
                header, _ = reader.read_start(path)
                if header is not None:
                    process = self._by_writer.get(header.writer)
                    if process is None:
                        pidfd = self._pidfds.pop((header.writer.pid, header.writer.start_time), None)
                        process = self._by_writer[header.writer] = _Process(header.writer, pidfd)
                    self._processes[path] = process
                    process.paths.append(path)
                    if process.exit is not None:
                        self._directory.note_exit(path, process.exit)
        for process in self._by_writer.values():
            if not process.gone:
                self._look(process)

    def _look(self, process: _Process) -> None:
        last_sign = max(path.stat().st_mtime for path in process.paths)
        out_of_memory = process.out_of_memory()
        if process.ended(last_sign):
            # Its end was not watched: its last sign of life is the best guess of when it ended.
            at = time.time() if process.watched else last_sign
            self._note(process, Exit(int(at * 1000), process.wait_status(), out_of_memory))
        elif self._presume_dead and process.life is Life.UNKNOWN:
            self._note(process, Exit(int(last_sign * 1000)))

    def _note(self, process: _Process, gone: Exit) -> None:
        for path in process.paths:
            self._directory.note_exit(path, gone)
        process.exit = gone
        process.let_go()

    def ending(self) -> Ending | None:
        """How the run ended; None while a writer may still write."""
        return self._directory.ending()

    @property
    def final(self) -> bool:
        """True when no writer can change any more how the run ended: each has recorded its end, or is gone."""
        ends = ((process, rundir.end_of(path)) for path, process in self._processes.items())
        return all(process.gone or (end is not None and not end.provisional) for process, end in ends)

    @property
    def ended(self) -> bool:
        """True when every writer has ended the run for good, or is gone."""
        return bool(self._processes) and self.final

    @property
    def over(self) -> bool:
        """True when every writer is dead or has ended the run for good: the side process's linger time begins.

        An ended run counts although its process lives: a search over hundreds of runs must not leave as many uploaders.
        """
        return self.all_gone or self.ended

    @property
    def nobody_to_wait_for_now(self) -> bool:
        """Like ``over``, but asks the kernel now, without ``poll``. Changes nothing: for signal handlers."""
        processes = list(self._by_writer.values())
        return self.over or (bool(processes) and all(process.gone or process.has_ended() for process in processes))

    @property
    def all_gone(self) -> bool:
        """True when no writer's process is left, apart from those that can never be judged from here."""
        processes = self._processes.values()
        known = [one for one in processes if one.gone or one.watched or one.life is not Life.UNKNOWN]
        return bool(known) and all(process.gone for process in known)

    @property
    def unknown(self) -> list[Identity]:
        """The writers that can't be judged from here."""
        return [
            process.writer for process in self._processes.values() if process.life is Life.UNKNOWN and not process.gone
        ]

    def close(self) -> None:
        """Close the descriptors of the processes."""
        for process in self._processes.values():
            process.let_go()


class _Process:
    """One writer's process, held by a file descriptor where the system has those."""

    def __init__(self, writer: Identity, pidfd: int | None) -> None:
        self.writer = writer
        self.paths: list[Path] = []
        self.exit: Exit | None = None
        self.gone = False
        self.life = identity.life_of(writer)
        self.watched = self.life is Life.ALIVE or pidfd is not None
        fd = exit_status.open_process(writer.pid) if pidfd is None and self.watched else pidfd
        self._pidfd = None if fd is None else ProcessDescriptor(fd)
        # The pid may have passed to another process between the two checks.
        if pidfd is None and self._pidfd is not None and identity.life_of(writer) is not Life.ALIVE:
            self._pidfd.close()
            self._pidfd = None
        self._oom = exit_status.OomCounter(writer.pid) if self.watched else None

    def ended(self, last_sign: float) -> bool:
        pidfd = self._number()
        if pidfd is not None:
            return exit_status.has_ended(pidfd)
        self.life = identity.life_of(self.writer, last_sign)
        return self.life is Life.DEAD

    def has_ended(self) -> bool:
        pidfd = self._number()
        return pidfd is not None and exit_status.has_ended(pidfd)

    def wait_status(self) -> int | None:
        return exit_status.wait_status(self.writer, self._number())

    def out_of_memory(self) -> bool:
        return self._oom is not None and self._oom.recently()

    def let_go(self) -> None:
        self.gone = True
        if self._pidfd is not None:
            self._pidfd.close()
            self._pidfd = None

    def _number(self) -> int | None:
        return None if self._pidfd is None else self._pidfd.number
