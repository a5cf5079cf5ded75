"""Delivers batches to one run on the server: surely refused items are not sent, refused ones are set aside.

The counts move with the cursor: a chunk that is read again must not be counted twice.
"""

from __future__ import annotations

from mlops_integrations.backends.protocol import Backend, Batch, Kind, Outcome
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.upload.batch_sender import Sender
from mlops_integrations.upload.fitting import fit, shorter_texts
from mlops_integrations.upload.rejection import RejectedRecords, deliver_all_but_rejected
from mlops_integrations.upload.server_calls import RunGoneError, ServerCalls


class BatchDelivery:
    """Delivers each batch: its items are taken, shortened, or set aside with a reason.

    Args:
        backend: the server.
        state: the cursor.
        calls: repeats calls of the server until there is an answer.
        sender: sends one request.
        rejected: keeps the records that the server does not take.
    """

    def __init__(
        self, backend: Backend, state: Cursor, calls: ServerCalls, sender: Sender, rejected: RejectedRecords
    ) -> None:
        self._backend = backend
        self._state = state
        self._calls = calls
        self._sender = sender
        self.rejected = rejected
        self._taken = 0
        self._shortened = 0

    def send(self, batch: Batch) -> None:
        """Deliver all of a batch that the server takes, and set the rest aside.

        Raises:
            InterruptedUploadError: told to stop.
            GaveUpError: no answer for too long.
            RunGoneError: the run was deleted on the server.
        """
        batch = self._fitted(batch)
        if len(batch) == 0:
            return
        refused = self._sender.post(batch)
        taken = len(batch)
        if not refused.ok:
            self._ask_whether_the_run_is_the_trouble()
            taken = deliver_all_but_rejected(batch, self._post_part, self._set_aside, refused, self._calls.wait)
            self._ask_whether_the_run_is_the_trouble()  # once more: the run may have been deleted meanwhile
        if batch.metrics:
            self._taken += taken

    def commit(self) -> None:
        """Count the delivered records and write down the refused ones; to be saved with the cursor's move.

        Raises:
            OSError: the file of refused records can't be written.
        """
        self.rejected.commit()
        self._sender.commit()
        self._state.points += self._taken
        self._state.shortened += self._shortened
        self._taken = self._shortened = 0

    def _fitted(self, batch: Batch) -> Batch:
        fitted = fit(batch, self._backend.limits, self._backend.name_fault, self._state.dialect)
        for part in fitted.rejected:
            self.rejected.set_aside(part.items, part.reason, part.message)
        self._shortened += fitted.shortened
        return fitted.batch

    def _post_part(self, part: Batch) -> Outcome[None]:
        return self._sender.post(part, suspect_after=1)

    def _set_aside(self, batch: Batch, refused: Outcome[None]) -> None:
        for shorter in shorter_texts(batch):
            if self._sender.post(shorter).ok:
                self._shortened += 1
                return
        self.rejected.set_aside(batch, refused.code or "refused", refused.message)

    def _ask_whether_the_run_is_the_trouble(self) -> None:
        run_id = self._state.run_id or ""
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
