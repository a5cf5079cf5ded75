"""Creates a run on the server exactly once, even if requests, replies or uploaders are lost.

``runs/create`` is not idempotent. So the intention is on disk before the request, the run carries our uid, and an
uploader that finds an intention without an id looks for the run before requesting another. After a failure that may
have been a success it looks several times: a slow server may still be working on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

from msgspec import structs

from mlops_integrations.backends.protocol import Backend, Kind, Outcome, ServerRun
from mlops_integrations.clock import now_ms
from mlops_integrations.journal import cursor
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.records import UID_PREFIX, RunSpec
from mlops_integrations.upload.batch_sender import idempotency_token
from mlops_integrations.upload.server_calls import RunGoneError, ServerCalls, StoppedByServerError

T = TypeVar("T")

_LOOK_PAUSES: Final = (1.0, 4.0, 25.0)
"""Seconds before each search for a run whose creation had no clear answer: after 1, 5 and 30 s in all."""


class RunCreation:
    """Finds or creates the run on the server and stores its id in the cursor."""

    def __init__(self, backend: Backend, state: Cursor, calls: ServerCalls) -> None:
        self._backend = backend
        self._state = state
        self._calls = calls

    def open(self, spec: RunSpec, sizes: Mapping[str, int], *, known_elsewhere: bool = False) -> None:
        """Find or create the run, and store its id in the cursor.

        Args:
            spec: the run.
            sizes: of its journal files.
            known_elsewhere: it was delivered before, to another address, which may be the same server's.

        Raises:
            StoppedByServerError: the server does not accept the run; the text says why and what to do.
        """
        spec = self._as_wished(spec)
        left_behind = self._state.intent is not None
        before = sizes if left_behind or known_elsewhere else {}
        if spec.resume_run_id is not None:
            self._adopt(self._sure(self._calls.ask(lambda: self._backend.get_run(spec.resume_run_id or ""))), before)
            return
        if self._state.experiment_id is None:
            name, number = spec.experiment_name, spec.experiment_id
            token = idempotency_token(spec.uid, self._state, "experiments/create", name)
            opened = self._calls.ask(lambda: self._backend.open_experiment(name, number, token))
            if opened.kind is Kind.REFUSED:
                raise StoppedByServerError(f"{opened.message}. `sync --experiment NAME` puts the run into another one")
            self._state.experiment_id = _value(opened)
        if spec.rank > 0:
            self._adopt(self._await(spec.uid), before)
            return
        self._state.intent = now_ms()
        self._state.ambiguous |= left_behind
        self._calls.save(durable=True)
        pauses = (0.0, *_LOOK_PAUSES) if left_behind else (0.0,) * known_elsewhere
        self._adopt(self._look(spec.uid, pauses) or self._create(spec), before)

    def _as_wished(self, spec: RunSpec) -> RunSpec:
        """Return the run as ``sync --as-new`` and ``--experiment`` ask for it, whatever was recorded."""
        if self._state.as_new is not None:
            spec = structs.replace(spec, resume_run_id=None)
        if self._state.elsewhere is not None:
            spec = structs.replace(spec, experiment_id=None, experiment_name=self._state.elsewhere)
        return spec

    def _create(self, spec: RunSpec) -> ServerRun:
        experiment_id = self._state.experiment_id or ""
        parent = self.parent_run_id(spec)
        attempt = forgotten = 0
        began = self._calls.now()
        while True:
            token = idempotency_token(spec.uid, self._state, "runs/create", forgotten)
            made = self._backend.create_run(experiment_id, spec, parent, token)
            if made.ok:
                self._calls.answered()
                self._state.parent_set = parent is not None
                return ServerRun(_value(made), experiment_id, "RUNNING", active=True, empty=True)
            if made.kind is Kind.REFUSED:
                raise StoppedByServerError(made.message)
            attempt += 1
            forgotten += made.forgotten
            self._calls.note_trouble(made)
            if made.ambiguous:
                self._state.ambiguous = True
                self._calls.save(durable=True)
                found = self._look(spec.uid, _LOOK_PAUSES)
                if found is not None:
                    return found
                # The searches were answered, the creation was not.
                self._calls.note_trouble(made)
                self._calls.check_patience(began, made.message)
            else:
                self._calls.back_off(attempt, made)

    def _await(self, uid: str) -> ServerRun:
        """Wait for the run that rank 0 creates, and return it."""
        began, attempt = self._calls.now(), 0
        while True:
            found = self._look(uid, (0.0,))
            if found is not None:
                return found
            attempt += 1
            missing: Outcome[None] = Outcome(Kind.RETRY, message="the process of rank 0 has not made the run yet")
            self._calls.check_patience(began, missing.message)
            self._calls.back_off(attempt, missing)

    def _look(self, uid: str, pauses: tuple[float, ...]) -> ServerRun | None:
        for pause in pauses:
            self._calls.wait(pause)
            runs = self._found(uid)
            if runs:
                # Among twins, the one that was already written to.
                return min(runs, key=lambda run: run.empty)
        return None

    def _found(self, uid: str) -> list[ServerRun]:
        experiment_id = self._state.experiment_id or ""
        return _value(self._calls.ask(lambda: self._backend.find_runs(experiment_id, uid)))

    def _sure(self, outcome: Outcome[ServerRun]) -> ServerRun:
        if outcome.kind is Kind.REFUSED:
            raise RunGoneError(f"{outcome.message}. `sync --as-new` makes another run")
        run = _value(outcome)
        if not run.active:
            text = f"run {run.run_id} is deleted on the server: restore it there, or `sync --as-new` makes another one"
            raise RunGoneError(text)
        return run

    def _adopt(self, run: ServerRun, before: Mapping[str, int] | None = None) -> None:
        if before and not run.empty:
            self._state.unsure = dict(before)  # its content came from these files, through another cursor
        self._state.run_id = run.run_id
        self._state.experiment_id = run.experiment_id
        self._state.url = self._backend.run_url(run.experiment_id, run.run_id)
        self._state.status, self._state.reason = run.status, run.reason
        self._calls.save(durable=True)

    def parent_run_id(self, spec: RunSpec) -> str | None:
        """Return the parent's id on this server, or None while it has none."""
        if spec.parent is None or not spec.parent.startswith(UID_PREFIX):
            return spec.parent
        if spec.parent_directory is not None:
            path = cursor.cursor_path(Path(spec.parent_directory), self._state.destination)
            known = cursor.load(path)
            if known is not None and known.run_id is not None:
                return known.run_id
        runs = self._found(spec.parent)
        return runs[0].run_id if runs else None

    def delete_twins(self, spec: RunSpec) -> None:
        """Delete empty runs of our uid that a late creation left behind; note them in the cursor."""
        if not self._state.ambiguous:
            return
        for run in self._found(spec.uid):
            if run.run_id != self._state.run_id and run.empty:
                twin = run.run_id
                token = idempotency_token(spec.uid, self._state, "runs/delete", twin)
                if self._delete(run.run_id, token).ok:
                    self._state.deleted_twins.append(twin)
        self._state.ambiguous = False
        self._calls.save()

    def _delete(self, run_id: str, token: str) -> Outcome[None]:
        return self._calls.ask_until_seen(
            lambda: self._backend.delete_run(run_id, token),
            lambda: self._backend.get_run(run_id),
            lambda run: not run.active,
        )


def _value(outcome: Outcome[T]) -> T:
    if not outcome.ok or outcome.value is None:
        raise StoppedByServerError(outcome.message)
    return outcome.value
