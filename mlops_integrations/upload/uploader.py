"""Delivers one run directory to one server: read, batch, send, save the cursor. One loop, in two modes.

``follow`` waits at the end of the journal until the run has ended; ``drain`` stops there. Killed at any line, a later
uploader goes on from the cursor: what is sent twice then is the same row twice, since times were fixed when logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mlops_integrations.backends.protocol import (
    EXIT_REASON_TAG,
    Backend,
    Batch,
    Kind,
    Outcome,
)
from mlops_integrations.journal import cursor, ending, files
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.ending import Ending
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Record
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.upload.artifact_uploads import Artifacts
from mlops_integrations.upload.batch_sender import Sender, idempotency_token
from mlops_integrations.upload.batches import Chunk, requests_of
from mlops_integrations.upload.pacing import Pacer
from mlops_integrations.upload.rejection import RejectedRecords, deliver_all_but_rejected
from mlops_integrations.upload.run_creation import RunCreation
from mlops_integrations.upload.server_calls import RunGoneError, ServerCalls, StoppedByServerError, UploadContext
from mlops_integrations.upload.writer_processes import WriterProcesses

_OLDER_LENGTHS: Final = (5_000, 500, 250)
"""What servers of earlier years keep of a text, in characters: learnt by trying."""
_POLL_SECONDS: Final = 0.1
NOT_FINITE: Final = "not a finite number"


@dataclass(frozen=True, slots=True)
class Result:
    """How a delivery ended."""

    delivered: bool
    """Everything that is in the journal is acknowledged or set aside."""
    closed: bool
    """The run's status on the server is its true and last one."""


class Uploader:
    """One run directory on its way to one server. Its owner holds the lease.

    Raises:
        RunDirectoryError: the journal can't be read.
    """

    def __init__(
        self,
        run: RunDirectory,
        backend: Backend,
        destination: str,
        writers: WriterProcesses,
        context: UploadContext,
        on_progress: Callable[[Cursor], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._backend = backend
        self._writers = writers
        self._clock = context.clock
        self._on_progress = on_progress
        path = cursor.cursor_path(run.path, destination)
        # A cursor that can't be read (a power failure may leave it empty) knew of a run: it is looked for.
        self.state = cursor.load(path) or Cursor(destination, intent=0 if path.exists() else None)
        self._pacer = Pacer(context.rng)
        self._calls = ServerCalls(self.state, path, self._pacer, context, self._tend)
        self._creation = RunCreation(backend, self.state, self._calls)
        self._rejected = RejectedRecords(run.refused, self.state)
        self._artifacts = Artifacts(run.path, backend, self.state, self._calls, context.rng)
        self._bad_lines_before = self.state.bad_lines
        self._tend_at = 0.0
        self._taken = 0
        self._shortened = 0
        self._readers: dict[Path, JournalReader] = {}
        self._waiting: tuple[JournalReader, Record] | None = None
        self._positions: dict[str, int] = {}
        self._chunk = Chunk()
        self._spec = run.spec()
        self._sender = Sender(backend, self.state, self._calls, self._spec.uid)

    def follow(self) -> Result:
        """Deliver until the run has ended for good.

        Raises:
            InterruptedUploadError: told to stop.
            StoppedByServerError: the server won't have the run.
        """
        return self._deliver_all(follow=True)

    def drain(self) -> Result:
        """Deliver what is there now, and the status if the run has ended.

        Raises:
            InterruptedUploadError: told to stop.
            GaveUpError: no answer for too long.
            StoppedByServerError: the server won't have the run.
        """
        return self._deliver_all(follow=False)

    def _deliver_all(self, *, follow: bool) -> Result:
        # A run that goes on may grow faster than it is delivered: a drain ends where the journal ends now.
        until = None if follow else self._run.sizes()
        if self.state.stopped:
            self.state.trouble = None  # somebody may have mended it: if not, it is found, and dated, anew
        try:
            return self._loop(until)
        except StoppedByServerError as error:
            self._calls.write_trouble(str(error), stopped=True)
            raise
        finally:
            for reader in self._readers.values():
                reader.close()

    def _loop(self, until: Mapping[str, int] | None) -> Result:
        self._recognize()
        hurry = False
        while True:
            self._calls.checkpoint()
            # Asked before reading: what is read afterwards lies before this end, or the run goes on.
            ended = self._writers.ending()
            full = self._fill()
            hurry = self._calls.woken() or hurry or ended is not None
            if self.state.run_id is None:
                self._creation.open(self._spec, self._run.sizes(), known_elsewhere=self._is_known_elsewhere())
            orphaned = ended is not None and self._writers.final
            if self._chunk:
                if self._pacer.may_send(self._clock(), full=full or until is not None, hurry=hurry):
                    self._deliver()
                    self._pacer.sent(self._clock())
                    self._artifacts.send_next(writers_are_gone=orphaned)
                    if until is not None and ended is None and self.state.covers(until):
                        return Result(delivered=True, closed=False)
                    continue
            elif not self._artifacts.send_next(writers_are_gone=orphaned):
                hurry = False
                result = self._settle(ended, drains=until is not None)
                if result is not None:
                    return result
            until_due = self._pacer.due - self._clock() if self._chunk else _POLL_SECONDS
            self._calls.wait(min(until_due, _POLL_SECONDS))

    def _recognize(self) -> None:
        found = self._calls.ask(lambda: self._backend.recognize(self.state.dialect))
        if found.value is None:
            raise StoppedByServerError(found.message)
        if found.value != self.state.dialect:
            self.state.dialect, self.state.notes = found.value, list(self._backend.notes)
            self._calls.save()

    def _settle(self, ended: Ending | None, *, drains: bool) -> Result | None:
        """Nothing more is to be sent at the moment: the status is due, and perhaps that was all."""
        if ended is not None and self._writers.final:
            self._pass_over_torn_ends()
        self._skip_records_without_content()
        # Files that are just on their way come first; those that fail do not hold the status up.
        on_their_way = self._artifacts.are_left and not self._artifacts.in_trouble
        closed = ended is not None and not on_their_way and self._close(ended)
        if self._artifacts.are_left:
            return Result(delivered=False, closed=closed) if drains and self._artifacts.given_up else None
        return Result(delivered=True, closed=closed) if closed or drains else None

    def _is_known_elsewhere(self) -> bool:
        others = cursor.load_all(self._run.path)
        return any(other.run_id is not None and other.destination != self.state.destination for other in others)

    def _tend(self) -> None:
        now = self._clock()
        if now >= self._tend_at:
            self._tend_at = now + _POLL_SECONDS
            self._writers.poll()

    def _fill(self) -> bool:
        """Read into the chunk; True when it is to go at once: it fills a request, or was on its way before."""
        limits, chunk, again = self._backend.limits, self._chunk, self._sender.interrupted
        if self._waiting is not None:
            reader, record = self._waiting
            if not chunk.has_room(record, limits):
                return True
            self._waiting = None
            chunk.add(record)
            self._positions[reader.path.name] = reader.offset
        for reader in self._readers_in_turn():
            position = reader.offset
            end = None if again is None else again.get(reader.path.name, 0)
            while (end is None or reader.offset < end) and (record := reader.next()) is not None:  # type: ignore[assignment]
                if not chunk.has_room(record, limits):
                    self._waiting = reader, record
                    self._positions[reader.path.name] = position
                    return True
                chunk.add(record)
                position = reader.offset
                if chunk.full(limits):
                    self._positions[reader.path.name] = position
                    return True
            # Bad lines at the end are passed over, too.
            self._positions[reader.path.name] = reader.offset
        if again is not None and not chunk:
            self._sender.commit()  # it is not in the journal any more
            return self._fill()
        return again is not None

    def _readers_in_turn(self) -> Iterator[JournalReader]:
        """Readers of the files with something unread, and of the newest one, opened when their turn comes."""
        journals = self._run.journals()
        for path in journals:
            newest = path == journals[-1]
            begin = self._positions.get(path.name, self.state.positions.get(path.name, 0))
            if path not in self._readers and (newest or path.stat().st_size > begin):
                self._readers[path] = JournalReader(path, begin)
                self._spec = self._run.spec() if newest else self._spec
            if path in self._readers:
                yield self._readers[path]
                if not newest:
                    self._let_go_if_read(path)

    def _let_go_if_read(self, path: Path) -> None:
        """A run may be re-opened a thousand times: of the older files, only those with something unread stay open."""
        reader = self._readers[path]
        if reader.offset >= path.stat().st_size:
            self._bad_lines_before += reader.bad_lines
            reader.close()
            del self._readers[path]

    def _deliver(self) -> None:
        if self.state.status not in {None, ending.RUNNING} and self._spec.rank == 0:
            self._set_status(ending.RUNNING, None, None)
        chunk, self._chunk = self._chunk, Chunk()
        if chunk.conflicts:
            self._rejected.set_aside(Batch(params=chunk.conflicts), "param changed", "the run has another value")
        if self._sender.has_idempotency_tokens:
            # Files that grow at once are read in another order the next time; the names must be the same.
            chunk.metrics.sort(key=lambda metric: (metric[2], metric[0], metric[3], str(metric[1])))
        self._sender.begin(self._positions)
        for batch in requests_of(chunk, self._backend.limits):
            self._send(batch)
        self._artifacts.note(chunk.artifacts)
        self._save_positions()

    def _save_positions(self) -> None:
        # A name in the cursor that a power failure took from the directory would be given to another file.
        for name in self._positions.keys() - self.state.positions.keys():
            files.sync_name(self._run.path / name)
        self.state.positions.update(self._positions)
        self._rejected.commit()
        self._sender.commit()
        # Counted with the move of the cursor: a chunk that is read again must not be counted twice.
        self.state.points += self._taken
        self.state.shortened += self._shortened
        self._taken = self._shortened = 0
        self.state.bad_lines = self._bad_lines_before + sum(reader.bad_lines for reader in self._readers.values())
        self._calls.save()
        self._on_progress(self.state)

    def _pass_over_torn_ends(self) -> None:
        """Nobody will complete what a dead writer left half written."""
        for reader in self._readers.values():
            size = reader.path.stat().st_size
            if reader.offset < size and not reader.too_new and self._positions.get(reader.path.name) != size:
                self._bad_lines_before += 1
                self._positions[reader.path.name] = size

    def _skip_records_without_content(self) -> None:
        if any(self.state.positions.get(name) != offset for name, offset in self._positions.items()):
            self._save_positions()

    def _send(self, batch: Batch) -> None:
        batch = self._fit(batch)
        if len(batch) == 0:
            return
        refused = self._sender.post(batch)
        taken = len(batch)
        if not refused.ok:
            self._ask_whether_the_run_is_the_trouble()
            taken = deliver_all_but_rejected(batch, self._post_part, self._set_aside, refused, self._calls.wait)
            self._ask_whether_the_run_is_the_trouble()  # once more: it may have been deleted in the middle of this
        if batch.metrics:
            self._taken += taken

    def _post_part(self, part: Batch) -> Outcome[None]:
        return self._sender.post(part, suspect_after=1)

    def _fit(self, batch: Batch) -> Batch:
        """The batch without what the server surely refuses, and with its texts cut to what it keeps."""
        names = {item[0] for part in (batch.metrics, batch.params, batch.tags) for item in part}
        faults = {name: self._backend.name_fault(name) for name in names}
        for fault in set(faults.values()) - {None}:
            assert fault is not None
            refused = Batch(
                [item for item in batch.metrics if faults[item[0]] == fault],
                [item for item in batch.params if faults[item[0]] == fault],
                [item for item in batch.tags if faults[item[0]] == fault],
            )
            self._rejected.set_aside(refused, fault, fault)
        limits = self._backend.limits
        metrics = [item for item in batch.metrics if faults[item[0]] is None]
        if limits.finite:
            words = [item for item in metrics if isinstance(item[1], str)]
            self._rejected.set_aside(Batch(words), NOT_FINITE, f"{self.state.dialect} takes finite numbers only")
            metrics = [item for item in metrics if not isinstance(item[1], str)]
        return Batch(
            metrics,
            [self._cut(item, limits.param_length) for item in batch.params if faults[item[0]] is None],
            [self._cut(item, limits.tag_length) for item in batch.tags if faults[item[0]] is None],
        )

    def _cut(self, item: tuple[str, str], length: int) -> tuple[str, str]:
        key, value = item
        if self._backend.limits.one_line and ("\n" in value or "\r" in value):
            value = value.replace("\n", "\\n").replace("\r", "\\r")
        if value == item[1] and len(value) <= length:
            return item
        self._shortened += 1
        return key, value[:length]

    def _ask_whether_the_run_is_the_trouble(self) -> None:
        run_id = self.state.run_id or ""
        found = self._calls.ask(lambda: self._backend.get_run(run_id))
        if found.kind is Kind.REFUSED:
            raise RunGoneError(
                f"{found.message}. Everything is kept: `sync --as-new` makes another run, "
                "`sync --to` goes to another server"
            )
        if found.value is not None and not found.value.active:
            raise RunGoneError(
                f"run {run_id} was deleted on the server. Everything is kept: restore the run and `sync`, "
                "`sync --as-new` makes another one, `sync --to` goes to another server"
            )

    def _set_aside(self, batch: Batch, refused: Outcome[None]) -> None:
        for shorter in _shortened(batch):
            if self._sender.post(shorter).ok:
                self._shortened += 1
                return
        self._rejected.set_aside(batch, refused.code or "refused", refused.message)

    def _close(self, ended: Ending) -> bool:
        """Bring the status to the server; True when it can't change any more."""
        if (self.state.status, self.state.reason, self.state.status_time) != (ended.status, ended.reason, ended.time):
            self._creation.delete_twins(self._spec)
            self._set_parent()
            self._set_status(ended.status, ended.reason, ended.time)
        return self._writers.final

    def _set_parent(self) -> None:
        if self._spec.parent is not None and not self.state.parent_set:
            parent = self._creation.parent_run_id(self._spec)
            if parent is not None:
                self._send(Batch(tags=[("mlflow.parentRunId", parent)]))
                self.state.parent_set = True

    def _set_status(self, status: str, reason: str | None, time: int | None) -> None:
        run_id = self.state.run_id or ""
        if self._spec.rank == 0 or status == ending.FAILED:  # else that is for the process of rank 0 to say
            if reason != self.state.reason:
                self._send(Batch(tags=[(EXIT_REASON_TAG, reason or "")]))
            at = None if status == ending.RUNNING else time
            token = idempotency_token(self._spec.uid, self.state, "runs/update", status, at)
            updated = self._calls.ask_until_seen(
                lambda: self._backend.update_run(run_id, status, at, token),
                lambda: self._backend.get_run(run_id),
                lambda run: run.status == status,
            )
            if not updated.ok:
                raise StoppedByServerError(updated.message)
        self.state.status, self.state.reason, self.state.status_time = status, reason, time or 0
        self._rejected.commit()
        self._calls.save(durable=True)
        self._on_progress(self.state)


def _shortened(batch: Batch) -> Iterator[Batch]:
    """The one text of a batch, shorter and shorter, if it is that long."""
    for length in _OLDER_LENGTHS:
        params = [(key, value[:length]) for key, value in batch.params if len(value) > length]
        tags = [(key, value[:length]) for key, value in batch.tags if len(value) > length]
        if params or tags:
            yield Batch(params=params, tags=tags)
