"""Brings the journal to the storage device about once a second: the window that a power failure can take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mlops_integrations.journal.rundir import RunDirectory

_EVERY_SECONDS: Final = 1.0


class JournalSync:
    """Syncs the journal files that have grown."""

    def __init__(self, run: RunDirectory, clock: Callable[[], float]) -> None:
        self._run = run
        self._clock = clock
        self._next = clock()
        self._synced: dict[Path, int] = {}

    def tick(self) -> None:
        """Sync if it is time to; call often."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + _EVERY_SECONDS
        for path in self._run.journals():
            fd = os.open(path, os.O_RDONLY)
            try:
                size = os.fstat(fd).st_size
                if self._synced.get(path) != size:
                    self._synced[path] = size
                    with contextlib.suppress(OSError):  # some file systems can't; delivery goes on all the same
                        os.fsync(fd)
            finally:
                os.close(fd)
