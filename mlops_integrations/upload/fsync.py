"""Brings the journal to the storage device about once a second: the window that a power failure can lose.

In a thread of its own: the uploader waits for a server meanwhile, perhaps for minutes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlops_integrations.journal import files
from mlops_integrations.journal.rundir import RunDirectory

_EVERY_SECONDS: Final = 1.0


class JournalSync:
    """Syncs the journal files that have grown."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._synced: dict[Path, int] = {}

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Sync every second while this block runs."""
        over = threading.Event()
        thread = threading.Thread(target=self._go_on, args=(over,), name="mlops-fsync", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be started: delivery goes on all the same
            thread.start()
        try:
            yield
        finally:
            over.set()

    def _go_on(self, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):  # the directory was deleted, or can't be read now
                self.sync()
            over.wait(_EVERY_SECONDS)

    def sync(self) -> None:
        """Sync the files that have grown since the last time, and the names of new files.

        Raises:
            OSError: the directory can't be read.
        """
        for path in self._directory.journals():
            size = path.stat().st_size
            if self._synced.get(path) != size:
                _sync_content(path)
                if path not in self._synced:
                    files.sync_name(path)
                self._synced[path] = size


def _sync_content(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems can't; delivery goes on all the same
            os.fsync(fd)
    finally:
        os.close(fd)
