"""Delivers one run directory to one server: read, batch, send, save the cursor. One loop, in two modes.

``follow`` waits at the end of the journal until the run has ended; ``drain`` stops there. If it is killed at any line,
a later uploader resumes from the cursor: a value sent twice is the same row twice, since times are fixed when logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mlops_integrations.backends.protocol import Backend, Batch
from mlops_integrations.journal import cursor, files
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.ending import Ending
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.upload.artifact_uploads import Artifacts
from mlops_integrations.upload.batch_delivery import BatchDelivery
from mlops_integrations.upload.batch_sender import Sender
from mlops_integrations.upload.batches import requests_of
from mlops_integrations.upload.journal_feed import JournalFeed
from mlops_integrations.upload.pacing import Pacer
from mlops_integrations.upload.rejection import RejectedRecords
from mlops_integrations.upload.run_creation import RunCreation
from mlops_integrations.upload.run_status import RunStatus
from mlops_integrations.upload.server_calls import ServerCalls, StoppedByServerError, UploadContext
from mlops_integrations.upload.writer_processes import WriterProcesses

_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Result:
    """How a delivery ended."""

    delivered: bool
    """Everything in the journal is acknowledged or set aside."""
    closed: bool
    """The run's status on the server is its final one."""


class Uploader:
    """Delivers one run directory to one server. Its owner holds the lease.

    Raises:
        RunDirectoryError: the journal can't be read.
    """

    def __init__(
        self,
        directory: RunDirectory,
        backend: Backend,
        destination: str,
        writers: WriterProcesses,
        context: UploadContext,
        on_progress: Callable[[Cursor], None] = lambda _: None,
    ) -> None:
        self._directory = directory
        self._backend = backend
        self._writers = writers
        self._on_progress = on_progress
        path = cursor.cursor_path(directory.path, destination)
        # An unreadable cursor (a power failure may leave it empty) may have known a run: that is looked for.
        self.state = cursor.load(path) or Cursor(destination, intent=0 if path.exists() else None)
        self._pacer = Pacer(context.rng)
        self._calls = ServerCalls(self.state, path, self._pacer, context, self._tend)
        self._tend_at = 0.0
        self._creation = RunCreation(backend, self.state, self._calls)
        self._artifacts = Artifacts(directory.path, backend, self.state, self._calls, context.rng)
        self._feed = JournalFeed(directory, self.state)
        self._sender = Sender(backend, self.state, self._calls, self._feed.spec.uid)
        rejected = RejectedRecords(directory.refused, self.state)
        self._delivery = BatchDelivery(backend, self.state, self._calls, self._sender, rejected)
        self._status = RunStatus(backend, self.state, self._calls, self._creation, self._delivery, on_progress)

    def follow(self) -> Result:
        """Deliver until the run has ended for good.

        Raises:
            InterruptedUploadError: told to stop.
            StoppedByServerError: the server does not accept the run.
        """
        return self._deliver_all(follow=True)

    def drain(self) -> Result:
        """Deliver what is there now, and the status if the run has ended.

        Raises:
            InterruptedUploadError: told to stop.
            GaveUpError: no answer for too long.
            StoppedByServerError: the server does not accept the run.
        """
        return self._deliver_all(follow=False)

    def _deliver_all(self, *, follow: bool) -> Result:
        # A run that goes on may grow faster than it is delivered: a drain ends where the journal ends now.
        until = None if follow else self._directory.sizes()
        if self.state.stopped:
            self.state.trouble = None  # it may be solved by now: if not, it is noted again, with a new time
        try:
            return self._loop(until)
        except StoppedByServerError as error:
            self._calls.write_trouble(str(error), stopped=True)
            raise
        finally:
            self._feed.close()

    def _loop(self, until: Mapping[str, int] | None) -> Result:
        self._recognize()
        hurry = False
        while True:
            self._calls.checkpoint()
            # Asked before reading: records read afterwards come before this end, or the run goes on.
            ended = self._writers.ending()
            full = self._fill()
            hurry = self._calls.woken() or hurry or ended is not None
            if self.state.run_id is None:
                self._creation.open(
                    self._feed.spec, self._directory.sizes(), known_elsewhere=self._is_known_elsewhere()
                )
            orphaned = ended is not None and self._writers.final
            if self._feed.chunk:
                if self._pacer.may_send(self._calls.now(), full=full or until is not None, hurry=hurry):
                    self._deliver()
                    self._pacer.sent(self._calls.now())
                    self._artifacts.send_next(writers_are_gone=orphaned)
                    if until is not None and ended is None and self.state.covers(until):
                        return Result(delivered=True, closed=False)
                    continue
            elif not self._artifacts.send_next(writers_are_gone=orphaned):
                hurry = False
                result = self._settle(ended, drains=until is not None)
                if result is not None:
                    return result
            until_due = self._pacer.due - self._calls.now() if self._feed.chunk else _POLL_SECONDS
            self._calls.wait(min(until_due, _POLL_SECONDS))

    def _recognize(self) -> None:
        found = self._calls.ask(lambda: self._backend.recognize(self.state.dialect))
        if found.value is None:
            raise StoppedByServerError(found.message)
        if found.value != self.state.dialect:
            self.state.dialect, self.state.notes = found.value, list(self._backend.notes)
            self._calls.save()

    def _settle(self, ended: Ending | None, *, drains: bool) -> Result | None:
        """Bring the status to the server when nothing else is to be sent; return the result if that was all."""
        if ended is not None and self._writers.final:
            self._feed.pass_over_torn_ends()
        if self._feed.is_ahead:  # by records without content for the server
            self._save_positions()
        # Artifacts on their way come first; failing ones do not delay the status.
        on_their_way = self._artifacts.are_left and not self._artifacts.in_trouble
        closed = ended is not None and not on_their_way and self._close(ended)
        if self._artifacts.are_left:
            return Result(delivered=False, closed=closed) if drains and self._artifacts.given_up else None
        return Result(delivered=True, closed=closed) if closed or drains else None

    def _is_known_elsewhere(self) -> bool:
        others = cursor.load_all(self._directory.path)
        return any(other.run_id is not None and other.destination != self.state.destination for other in others)

    def _tend(self) -> None:
        now = self._calls.now()
        if now >= self._tend_at:
            self._tend_at = now + _POLL_SECONDS
            self._writers.poll()

    def _fill(self) -> bool:
        """Read into the chunk; True if it should be sent at once: it fills a request, or was on its way before."""
        limits, again = self._backend.limits, self._sender.interrupted
        full = self._feed.fill(limits, again)
        if again is not None and not self._feed.chunk:
            self._sender.commit()  # that chunk is not in the journal any more
            return self._feed.fill(limits)
        return full or again is not None

    def _deliver(self) -> None:
        self._status.reopen(self._feed.spec)
        chunk = self._feed.take()
        if chunk.conflicts:
            conflicts = Batch(params=chunk.conflicts)
            self._delivery.rejected.set_aside(conflicts, "param changed", "the run has another value")
        if self._sender.has_idempotency_tokens:
            # Files that grow in parallel may be read in another order next time; the tokens must be the same.
            chunk.metrics.sort(key=lambda metric: (metric[2], metric[0], metric[3], str(metric[1])))
        self._sender.begin(self._feed.positions)
        for batch in requests_of(chunk, self._backend.limits):
            self._delivery.send(batch)
        self._artifacts.note(chunk.artifacts)
        self._save_positions()

    def _save_positions(self) -> None:
        # A file name that is in the cursor, but lost by a power failure, would be given to another file.
        for name in self._feed.positions.keys() - self.state.positions.keys():
            files.sync_name(self._directory.path / name)
        self.state.positions.update(self._feed.positions)
        self._delivery.commit()
        self.state.bad_lines = self._feed.bad_lines
        self._calls.save()
        self._on_progress(self.state)

    def _close(self, ended: Ending) -> bool:
        """Bring the status to the server; True when it can't change any more."""
        self._status.close(self._feed.spec, ended)
        return self._writers.final
