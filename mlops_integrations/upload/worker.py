"""Delivers one run in the background: takes the lease, follows the journal, releases the lease when asked to.

The side process and the thread both run this; they differ in when to stop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from mlops_integrations.config.settings import Access
from mlops_integrations.journal import cursor
from mlops_integrations.journal.lease import Lease, live_holder
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.untrusted import escaped
from mlops_integrations.upload.fsync import JournalSync
from mlops_integrations.upload.server_calls import InterruptedUploadError, StoppedByServerError, UploadContext
from mlops_integrations.upload.uploader import Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses

logger: Final = logging.getLogger("mlops_integrations.upload")

_STANDBY_SECONDS: Final = 0.2


class UploadWorker:
    """Background job: delivers one run directory, or (no destination) only watches for the trainer's death.

    Args:
        directory: the run directory.
        kind: how the lease names this holder, "side process" or "thread".
        stop: returns True to stop; asked several times a second.
        destination: the server; None: only watch.
        access: the access to the server.
        pidfds: descriptors of writers' processes, by pid and start time, opened when these surely lived.
        say_leaving: called with True when nothing is left to do; with False if there is work again.
    """

    def __init__(
        self,
        directory: RunDirectory,
        kind: str,
        stop: Callable[[], bool],
        destination: str | None,
        access: Access,
        pidfds: Mapping[tuple[int, str | None], int] | None = None,
        say_leaving: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._say_leaving = say_leaving
        self._access = access
        self.writers = WriterProcesses(directory, pidfds=pidfds)
        self._directory = directory
        self._stop = stop
        self._lease = Lease(directory.path, kind)
        self._sync = JournalSync(directory)
        self._destination = destination
        self._refused_by_server = False
        self._disk_trouble: str | None = None
        self._other: str | None = None

    def run(self) -> None:
        """Run until the run has ended for good and is fully delivered, or until told to stop."""
        with self._sync.going_on():
            self._go_on()

    def _go_on(self) -> None:
        try:
            while not self._stop():
                try:
                    if not self._directory.journals():
                        logger.warning("mlops: the run directory was deleted: there is nothing left to deliver")
                        return
                    self.writers.poll()
                    if self._finished() and self._left():
                        return
                    self._attempt()
                except OSError as error:
                    self._say_disk_trouble(error)
                time.sleep(_STANDBY_SECONDS)
        finally:
            self.writers.close()

    def _finished(self) -> bool:
        """True when nothing is left to do: all is delivered, by any uploader, or will be delivered by hand."""
        ended = self._directory.ending()
        if ended is None or not self.writers.final:
            return False
        if self._destination is None or self._refused_by_server:
            return True
        state = cursor.load(cursor.cursor_path(self._directory.path, self._destination))
        return state is not None and state.covers(self._directory.sizes(), ended)

    def _left(self) -> bool:
        """Announce the exit, then look again: a process that re-opens the run sees the announcement, or we its file."""
        self._say_leaving(True)
        if self._finished():
            return True
        self._say_leaving(False)
        return False

    def _attempt(self) -> None:
        """Deliver if the lease is available."""
        if self._destination is None or self._refused_by_server or self._lease.asked():
            return
        if not self._lease.acquire():
            self._say_who_delivers()
            return
        try:
            self._follow(self._destination)
        except InterruptedUploadError:
            logger.info("interrupted")
        except StoppedByServerError as error:
            self._refused_by_server = True
            logger.warning("mlops: stopped: %s", escaped(str(error)))
        finally:
            self._lease.release()

    def _follow(self, destination: str) -> None:
        from mlops_integrations.backends.registry import open_backend

        backend = open_backend(destination, self._access)
        context = UploadContext(stop=self._is_wanted_elsewhere, wake_time=self._directory.wake_time)
        Uploader(self._directory, backend, destination, self.writers, context).follow()

    def _is_wanted_elsewhere(self) -> bool:
        return not self._lease.keep() or self._stop() or self._lease.asked()

    def _say_who_delivers(self) -> None:
        holder = live_holder(self._directory.path)
        if holder is not None and holder.token != self._other:
            self._other = holder.token
            logger.info("%s delivers; taking over when it is gone", holder)

    def _say_disk_trouble(self, error: OSError) -> None:
        text = str(error)
        if text != self._disk_trouble:
            self._disk_trouble = text
            logger.warning("mlops: the run directory can't be used, trying again: %s", escaped(text))
