"""Brings a run's status to the server: RUNNING again when more is delivered, the final one once all is there."""

from __future__ import annotations

from collections.abc import Callable

from mlops_integrations.backends.protocol import EXIT_REASON_TAG, Backend, Batch
from mlops_integrations.journal import ending
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.ending import Ending
from mlops_integrations.journal.records import RunSpec
from mlops_integrations.upload.batch_delivery import BatchDelivery
from mlops_integrations.upload.batch_sender import idempotency_token
from mlops_integrations.upload.run_creation import RunCreation
from mlops_integrations.upload.server_calls import ServerCalls, StoppedByServerError


class RunStatus:
    """The status of a run at one server; the cursor holds the last one that was brought there.

    Args:
        backend: the server.
        state: the cursor.
        calls: repeats calls of the server until there is an answer.
        creation: knows the run's parent and its twins.
        delivery: delivers the tags that go with a status.
        on_progress: called when the status has changed.
    """

    def __init__(
        self,
        backend: Backend,
        state: Cursor,
        calls: ServerCalls,
        creation: RunCreation,
        delivery: BatchDelivery,
        on_progress: Callable[[Cursor], None],
    ) -> None:
        self._backend = backend
        self._state = state
        self._calls = calls
        self._creation = creation
        self._delivery = delivery
        self._on_progress = on_progress

    def reopen(self, spec: RunSpec) -> None:
        """Tell the server that an ended run goes on, if this run directory is that of rank 0.

        Raises:
            StoppedByServerError: the server does not accept it.
        """
        if self._state.status not in {None, ending.RUNNING} and spec.rank == 0:
            self._set(spec, ending.RUNNING, None, None)

    def close(self, spec: RunSpec, ended: Ending) -> None:
        """Tell the server how the run ended, unless it knows already.

        Raises:
            StoppedByServerError: the server does not accept it.
        """
        state = self._state
        if (state.status, state.reason, state.status_time) != (ended.status, ended.reason, ended.time):
            self._creation.delete_twins(spec)
            self._set_parent(spec)
            self._set(spec, ended.status, ended.reason, ended.time)

    def _set_parent(self, spec: RunSpec) -> None:
        if spec.parent is not None and not self._state.parent_set:
            parent = self._creation.parent_run_id(spec)
            if parent is not None:
                self._delivery.send(Batch(tags=[("mlflow.parentRunId", parent)]))
                self._state.parent_set = True

    def _set(self, spec: RunSpec, status: str, reason: str | None, time: int | None) -> None:
        run_id = self._state.run_id or ""
        if spec.rank == 0 or status == ending.FAILED:  # else the process of rank 0 reports it
            if reason != self._state.reason:
                self._delivery.send(Batch(tags=[(EXIT_REASON_TAG, reason or "")]))
            at = None if status == ending.RUNNING else time
            token = idempotency_token(spec.uid, self._state, "runs/update", status, at)
            updated = self._calls.ask_until_seen(
                lambda: self._backend.update_run(run_id, status, at, token),
                lambda: self._backend.get_run(run_id),
                lambda run: run.status == status,
            )
            if not updated.ok:
                raise StoppedByServerError(updated.message)
        self._state.status, self._state.reason, self._state.status_time = status, reason, time or 0
        self._delivery.rejected.commit()
        self._calls.save(durable=True)
        self._on_progress(self._state)
