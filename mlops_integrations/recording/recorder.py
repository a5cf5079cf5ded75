"""The recorder behind a ``Run``: its journal file, its losses, its end, and the supervisor of its delivery.

Knows how to keep records and what to tell the user; knows nothing of metrics, parameters and frameworks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from mlops_integrations.clock import now_ms
from mlops_integrations.config.settings import Settings
from mlops_integrations.journal import ending, identity, rundir
from mlops_integrations.journal.cursor import CursorView
from mlops_integrations.journal.records import FORMAT, End, Header, Losses, Points, Record, RunSpec
from mlops_integrations.journal.root import point_latest_to
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.recording import values
from mlops_integrations.recording.delivery_watch import DeliveryWatch, EndOfFile
from mlops_integrations.recording.messages import Messages
from mlops_integrations.upload.supervisor import Supervisor
from mlops_integrations.version import VERSION

LOOK_MS: Final = 5_000

DISABLED: Final = "tracking is disabled"
FORKED: Final = "logged in a forked process, which does not own the run"
DELETED: Final = "the run directory was deleted"
NO_DIRECTORY: Final = "no directory can be written"


class Recorder:
    """Records one run in this process. ``off`` is the reason why it does not, or None."""

    def __init__(
        self,
        spec: RunSpec,
        directory: RunDirectory,
        settings: Settings,
        off: str | None,
        opened: Callable[[Recorder], None],
    ) -> None:
        self._opened = opened
        self.spec = spec
        self.directory = directory
        self.settings = settings
        self.off = off
        self.lock = threading.RLock()
        self.messages = Messages(directory.path, quiet=settings.quiet or spec.rank > 0, silent=off == DISABLED)
        self.view = CursorView(directory.path, settings.tracking_uri)
        self.look_at = 0
        """Time (ms since 1970) of the next periodic check; each log call compares the current time with it.

        The check is also due if this is more than ``LOOK_MS`` away: the clock was set back.
        """
        self.when_opened: Callable[[], None] | None = None
        """Called once, when a journal file has been opened."""
        self.before_end: Callable[[float], None] | None = None
        """Called before the end is written, to record pending values; gets the seconds that it may take."""
        self._supervisor = Supervisor(directory, settings)
        self.delivery = DeliveryWatch(
            directory, self.view, settings, self.messages, self._supervisor, spec.rank, off is not None, self._logged
        )
        self._was_opened = False
        self._writer: JournalWriter | None = None
        self._end: End | None = None
        self._not_before = 0
        """Least time (ms) of our header and end, whatever the clock says: after earlier ends, as the last counts."""
        self._before: End | None = None
        """The run's end before it was re-opened."""
        self._losses: dict[str, int] = {}
        self._losses_written = 0
        self._points = 0
        self._points_before = 0
        self._in_training = 0
        self.training_error: tuple[str, str | None] | None = None
        """Status and reason of the training that ended last, if it did not end well."""

    @property
    def is_open(self) -> bool:
        """True while the run is recorded and has not ended."""
        return self.off is None and self._end is None

    @property
    def is_reopened(self) -> bool:
        """True if the run had ended before it was opened last."""
        return self._before is not None

    @property
    def is_forked(self) -> bool:
        """True for the copy of a run in a forked process, where it does nothing."""
        return self.off == FORKED

    def open(self) -> None:
        """Open a journal file of our own in the run directory, and start its delivery.

        Raises:
            OSError: the run directory can't be written.
        """
        now = now_ms()
        state = self.view.now()
        is_first, self._was_opened = not self._was_opened, True
        if is_first:
            ends = (rundir.end_of(path) for path in self.directory.journals())
            self._not_before = max((end.time + 1 for end in ends if end is not None), default=0)
        self._points_before += self._points
        self._points, self._losses_written = 0, 0
        self._writer = JournalWriter(
            self.directory.path,
            Header(FORMAT, self.spec.uid, identity.me(), max(now, self._not_before), VERSION),
            self.spec,
        )
        self._before, self._end = self._end, None
        self.delivery.opened(state)
        self.look_at = now + LOOK_MS
        if is_first:
            point_latest_to(self.directory.path)
        self._opened(self)
        self._supervisor.start()
        tell, self.when_opened = self.when_opened, None
        if tell is not None:
            tell()

    def begin(self) -> None:
        """Open the run, unless it was opened before; a failure is reported, not raised."""
        if self.off is None and self._end is None:
            self._reopened(0)

    def reopen(self) -> None:
        """Re-open an ended run, or open one that was not opened yet; no effect on an open one."""
        if self.off is None:
            self._reopened(0)

    def say_where(self) -> None:
        """Report where the run is recorded and where it goes, once."""
        if self.off is None:
            spec = self.spec
            experiment = f"id {spec.experiment_id}" if spec.experiment_id else spec.experiment_name
            label = f"{spec.name}-{spec.uid[-4:]}"
            self.messages.started(label, self.settings.tracking_uri, experiment, delivers=self.delivery.has_server)

    def append(self, record: Record | Points, count: int, *, points: bool = False) -> None:
        """Write a record of ``count`` items, re-opening an ended run. Items that are lost are counted and reported."""
        writer = self._writer or self._reopened(count)
        if writer is None:
            return
        try:
            kept = writer.append(record)
        except UnicodeEncodeError:
            record = values.well_formed(record)
            kept = writer.append(record)
        if not kept and writer.closed:
            # Another thread has ended the run in between.
            again = self._reopened(count)
            if again is None:
                return
            kept, writer = again.append(record), again
        if not kept:
            error = writer.error
            self.lose(f"disk: {error.strerror if error else 'short write'}", count, str(error or ""))
        elif points:
            self._points += count

    def _reopened(self, count: int) -> JournalWriter | None:
        with self.lock:
            if self.off is not None:
                self.lose(self.off, count)
                return None
            if self._writer is None or self._writer.closed:
                try:
                    self.open()
                except OSError as error:
                    self.lose(f"disk: {error.strerror}", count, str(error))
            return self._writer

    def lose(self, reason: str, count: int, detail: str = "", about: str = "", *, every: bool = False) -> None:
        """Count items that are not kept, and report the reason the first time.

        Args:
            reason: the key to count by.
            count: number of items.
            detail: a text that is reported besides the reason.
            about: the item, such as a metric's name; the first few are reported each.
            every: report each item, however many there are.
        """
        self._losses[reason] = self._losses.get(reason, 0) + count
        text = f"not kept: {reason}" + (f" ({detail[:300]})" if detail else "")
        self.messages.once_per(reason, about, "%s", text, every=every)

    def swallow(self, error: Exception) -> None:
        """Count an internal error, which must not reach the training, and report it once."""
        self.lose("internal error", 1, f"training goes on: {type(error).__name__}: {error}")

    def look(self, now: int) -> None:
        """Check, every few seconds, that the directory exists and the side process is well, and report news."""
        self.look_at = now + LOOK_MS
        writer = self._writer
        if writer is None:
            return
        if self._is_deleted(writer):
            return
        with contextlib.suppress(OSError):  # the directory can't be read at the moment: looked at again soon
            self._supervisor.check()
        self.delivery.say_news()
        self._write_losses(writer)

    def _is_deleted(self, writer: JournalWriter) -> bool:
        """True if our journal file was deleted: from here on everything is lost, and there is nothing to wait for.

        The directory is not made again: it was deleted for a reason.
        """
        if writer.exists():
            return False
        with self.lock:
            if self.off is None:
                self.off, self._writer = DELETED, None
                writer.close()
                self.delivery.stop()
                lost = max(0, self._logged() - self.delivery.points)
                self.lose(DELETED, lost, f"{self.directory.path}, with {lost:,} points that had not been delivered")
        return True

    # -- ending -------------------------------------------------------------------------------------------------

    def training_began(self) -> None:
        """Called when a training has begun: if it has not ended when the interpreter exits, the run is FAILED."""
        self._in_training += 1
        self.training_error = None
        self.reopen()

    def training_ended(self, status: str = ending.FINISHED, reason: str | None = None) -> None:
        """Called when the training that began last has ended, with its status and reason."""
        self._in_training = max(0, self._in_training - 1)
        self.training_error = None if status == ending.FINISHED else (status, reason)

    def end(self, status: str, reason: str | None, *, provisional: bool = False, seconds: float | None = None) -> None:
        """Write the last record of this journal file, unless that is done; ``before_end`` may take ``seconds``."""
        if self.before_end is not None and self.is_open:
            self.before_end(self.settings.finish_timeout if seconds is None else seconds)
        with self.lock:
            writer = self._writer
            if writer is None or self._end is not None or self._is_deleted(writer):
                if self.off == DELETED:
                    self._say_losses()
                return
            if provisional and status == ending.FINISHED:
                if self.training_error is not None:
                    # The exit says nothing: a framework has turned the error that ended its training into an exit.
                    status, reason = self.training_error
                elif self._in_training:
                    status, reason = ending.FAILED, ending.NOT_ENDED
                elif self._before is not None:
                    # Something was logged after the run had ended, which does not change how it ended.
                    status, reason = self._before.status, self._before.reason
            self._losses_written = 0  # once more, near the end, for readers of the file's tail only
            self._write_losses(writer)
            self._end = End(max(now_ms(), self._not_before), status, reason, provisional, self._points)
            self._not_before = self._end.time + 1
            self._in_training = 0
            kept = writer.finish(self._end)
            self._writer = None
            self.delivery.ended(self._end_of_file(self._end, writer.path.name, kept=kept))
            self._say_losses()
        self.directory.wake()

    def _logged(self) -> int:
        return self._points_before + self._points

    def _end_of_file(self, end: End, name: str, *, kept: bool) -> EndOfFile:
        try:
            sizes = self.directory.sizes()
        except OSError:  # as in ``look``
            return EndOfFile(end, None, None)
        own = {name: sizes.get(name, 0)}
        return EndOfFile(end, own if self.spec.rank > 0 else sizes, own if kept else None)

    def _say_losses(self) -> None:
        """Report the losses by reason at the end of a journal file; the next file counts from 0."""
        lost = {reason: count for reason, count in self._losses.items() if count}
        if sum(lost.values()) > 1:  # a single one was said when it happened
            self.messages.always("not kept in all: %s", ", ".join(f"{count:,} x {why}" for why, count in lost.items()))
        self._losses = {}

    def _write_losses(self, writer: JournalWriter) -> None:
        count = sum(self._losses.values())
        if count != self._losses_written and writer.append(Losses(now_ms(), dict(self._losses))):
            self._losses_written = count

    def close(self, status: str, reason: str | None, timeout: float | None = None) -> bool:
        """End the run and wait until all of it is on the server.

        Args:
            status: "FINISHED", "FAILED" or "KILLED".
            reason: why.
            timeout: seconds to wait at most; with 0 only ``before_end`` may wait. Default: ``MLOPS_FINISH_TIMEOUT``.

        Returns:
            True if everything is acknowledged.
        """
        seconds = self.settings.finish_timeout if timeout is None else timeout
        began = time.monotonic()
        self.end(status, reason, seconds=seconds or None)
        if not self.delivery.has_server or seconds <= 0.0:
            return self.delivery.has_server and self.delivery.is_delivered()
        delivered = self.delivery.wait(seconds - (time.monotonic() - began))
        self.delivery.say_what_is_left()
        return delivered

    def disown(self) -> None:
        """In a forked child: stop recording, as the run is the parent's alone. Touches no lock of the parent."""
        self.lock = threading.RLock()
        self.off = self.off or FORKED
        self.delivery.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
