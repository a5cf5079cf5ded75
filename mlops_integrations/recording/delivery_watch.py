"""Watches the delivery of a run from the training process, for calls and exits that wait for it.

The only feedback is state on disk: the cursor that the uploader writes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mlops_integrations.config.settings import Settings, environment_names
from mlops_integrations.journal import ending
from mlops_integrations.journal.cursor import Cursor, CursorView, Trouble
from mlops_integrations.journal.records import End
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording.messages import Messages
from mlops_integrations.upload.supervisor import Supervisor

_GLANCE_SECONDS: Final = 0.02
_CHECK_SECONDS: Final = 1.0
_SILENT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class EndOfFile:
    """The end of this process's journal file, and the sizes of journal files at that moment."""

    end: End
    sizes: Mapping[str, int] | None
    """Bytes of each journal file whose delivery is waited for; None where they could not be read."""
    own: Mapping[str, int] | None
    """Bytes of our own journal file alone; None where its end could not be written, or its size not be read."""


class DeliveryWatch:
    """The state of one run's delivery, as far as this process is concerned.

    Args:
        directory: the run directory.
        view: the cursor of the run's destination.
        settings: the run's settings.
        messages: the run's messages to the user.
        supervisor: keeps a side process or thread delivering.
        rank: this process's number among those that train together.
        off: True if nothing is recorded, so nothing is delivered.
        logged: returns the number of values that this process has logged in all.
    """

    def __init__(
        self,
        directory: RunDirectory,
        view: CursorView,
        settings: Settings,
        messages: Messages,
        supervisor: Supervisor,
        rank: int,
        off: bool,
        logged: Callable[[], int],
    ) -> None:
        self._logged = logged
        self._directory = directory
        self._view = view
        self._settings = settings
        self._messages = messages
        self._supervisor = supervisor
        self._rank = rank
        self._off = off
        self._file: EndOfFile | None = None
        self._is_open = False
        self._old_trouble: Trouble | None = None
        """Error found in the cursor at start: it may be stale, so it does not end a wait."""
        self._delivered_before: int | None = None
        """Points of the run that were on the server when this process began to record."""
        self._left_said = False

    @property
    def has_server(self) -> bool:
        """True while the run is delivered to a server."""
        return not self._off and self._settings.mode == "online"

    @property
    def points(self) -> int:
        """Number of this process's values on the server, as of the last look at the cursor."""
        seen = self._view.last
        return 0 if seen is None else max(0, seen.points - (self._delivered_before or 0))

    def opened(self, state: Cursor | None) -> None:
        """Called when a journal file was opened, the first or a further one; ``state`` is the cursor at that moment."""
        self._old_trouble = None if state is None else state.trouble
        if self._delivered_before is None:
            self._delivered_before = 0 if state is None else state.points
        self._is_open, self._left_said = True, False

    def ended(self, file: EndOfFile) -> None:
        """Called when the journal file has ended."""
        self._file, self._is_open = file, False

    def stop(self) -> None:
        """Called when nothing is recorded any more, so there is nothing to wait for."""
        self._off = True

    def wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wake the uploader, look after it, and wait for ``done()``; False on timeout, or if delivery has stopped."""
        deadline = time.monotonic() + seconds
        self._directory.wake()
        check_at = time.monotonic() + _CHECK_SECONDS
        say_at = time.monotonic() + _SILENT_SECONDS
        while not done():
            now = time.monotonic()
            if now >= deadline or self._has_stopped():
                self.say_news()
                return False
            if now >= say_at:
                say_at = deadline
                self.say_news()
                text = "waiting up to %.0f s for delivery (Ctrl-C ends the wait; no record is lost)"
                self._messages.always(text, seconds)
            if now >= check_at:
                with contextlib.suppress(OSError):
                    self._supervisor.check()
                check_at = now + _CHECK_SECONDS
            time.sleep(min(_GLANCE_SECONDS, deadline - now))
        return True

    def _has_stopped(self) -> bool:
        state = self._view.now()
        if state is None:
            return not self._directory.path.exists()
        return state.stopped and state.trouble != self._old_trouble

    def say_news(self) -> None:
        """Report the uploader's news in the cursor that was not reported yet."""
        state = self._view.now()
        if state is not None:
            self._messages.server_news(state)

    def covered(self, sizes: Mapping[str, int]) -> bool:
        """True if journal files of these sizes are on the server."""
        state = self._view.now()
        return state is not None and state.covers(sizes)

    def is_delivered(self) -> bool:
        """True if all of an ended run is on the server, including its status.

        For a run that another thread has re-opened since: everything up to its end. On a rank above 0: its own records
        only, since the run's end is up to rank 0. False if the run directory can't be read.
        """
        try:
            return self._is_delivered()
        except OSError:
            return False

    def _is_delivered(self) -> bool:
        state, file = self._view.now(), self._file
        if file is not None and file.sizes is not None and (self._is_open or self._rank > 0):
            return state is not None and state.covers(file.sizes)
        ended = None if self._is_open else file
        if ended is None and not self._directory.journals():
            return True
        own = (file.own if file is not None else None) or {}
        if state is None or not state.covers(own):
            return False
        wanted = self._directory.ending()  # may differ from this process's end: other processes write theirs, too
        if wanted is None:
            return bool(own)  # another process still records: its records, and the run's end, are up to that process
        if state.status is None or not state.covers(self._directory.sizes()):
            return False
        closed = state.status != ending.RUNNING or wanted.status == ending.RUNNING
        return closed and (ended is None or state.status_time >= wanted.time)

    def is_awaited(self) -> bool:
        """True if something of an ended run is undelivered, and the user was not told yet."""
        ended = self._file is not None and not self._is_open
        return self.has_server and ended and not self._left_said and not self.is_delivered()

    def wait(self, seconds: float) -> bool:
        """Wait until all of an ended run is on the server and its side process has ended; True if it is delivered."""
        try:
            delivered = self.wait_until(self.is_delivered, seconds)
        except KeyboardInterrupt:
            self.say_what_is_left()  # after that, interpreter exit does not wait again
            raise
        if delivered:
            self._left_said = True  # ours is delivered, even if other processes go on logging into this run
        if delivered and not self._is_open and self._file is not None and not self._file.end.provisional:
            self._supervisor.wait_for_end(_CHECK_SECONDS)
        return delivered

    def say_what_is_left(self) -> None:
        """Report the news, and undelivered records with the command that delivers them."""
        self.say_news()
        if not self._left_said and self.has_server and not self.is_delivered():
            self._left_said = True
            total = self._logged()
            destination = self._settings.destination
            named = destination is not None and environment_names(destination)
            self._messages.undelivered(min(self.points, total), total, destination, named=named)
