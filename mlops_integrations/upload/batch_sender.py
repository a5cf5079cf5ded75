"""Brings one batch after the other to the server, each once, though its request may be repeated many times.

Some servers recognize a write by its idempotency token. It is made from the content and the cursor, so the next
uploader makes the same one; a chunk on its way is stored in the cursor beforehand, as the journal grows meanwhile and
tokens expire. Other servers, and any after that time, are asked which records they have before a batch is sent again.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Final

from mlops_integrations.backends.protocol import (
    Backend,
    Batch,
    Kind,
    Metric,
    Outcome,
)
from mlops_integrations.clock import now_ms
from mlops_integrations.journal import ending
from mlops_integrations.journal.cursor import Cursor, Sending
from mlops_integrations.upload.server_calls import ServerCalls

SUSPECT_AFTER: Final = 4
"""Internal errors of the server at one request, before that request is suspected."""


def idempotency_token(uid: str, state: Cursor, *content: object) -> str:
    """Idempotency token of one write: a hash of at most 64 characters that reveals nothing.

    Args:
        uid: the run's uid.
        state: its cursor at this server.
        content: the content of the write.
    """
    since = 0 if state.sending is None else state.sending.since
    wish = () if state.as_new is None else (state.as_new,)  # another run's writes have other tokens
    text = repr((uid, state.destination, sorted(state.positions.items()), since, content, *wish))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Sender:
    """Sends the uploader's batches, one chunk of them at a time.

    Args:
        backend: the server.
        state: the cursor.
        calls: repeats calls of the server until there is an answer.
        uid: the run's uid.
    """

    def __init__(self, backend: Backend, state: Cursor, calls: ServerCalls, uid: str) -> None:
        self._backend = backend
        self._state = state
        self._calls = calls
        self._uid = uid
        self._doubtful = False
        """Part of this chunk may be on the server, though not under its present tokens."""
        self._doubled = 0

    @property
    def has_idempotency_tokens(self) -> bool:
        """True if the server recognizes writes by their tokens."""
        return self._backend.limits.token_seconds > 0.0

    @property
    def interrupted(self) -> Mapping[str, int] | None:
        """End of the chunk that an uploader was sending when it died: to be sent as it was, with the same tokens."""
        return None if self._state.sending is None else self._state.sending.positions

    def begin(self, positions: Mapping[str, int]) -> None:
        """Note that a chunk that ends there is about to be sent."""
        if not self.has_idempotency_tokens:
            # The next uploader may cut its chunks elsewhere: it must know how far this one may have come.
            self._doubtful = self._state.is_unsure
            known = self._state.unsure
            self._state.unsure = known | {name: max(end, known.get(name, 0)) for name, end in positions.items()}
            self._calls.save()
            return
        sending = self._state.sending
        if sending is None or sending.positions != positions:
            # A chunk other than the one that was on its way has other tokens.
            self._doubtful = sending is not None or self._state.is_unsure
            self._name(positions)

    def commit(self) -> None:
        """Note that the chunk is done; to be saved with the cursor's move."""
        self._state.sending = None
        self._state.doubled += self._doubled
        self._doubled = 0
        self._doubtful = False

    def post(self, batch: Batch, *, suspect_after: int = SUSPECT_AFTER) -> Outcome[None]:
        """Send until the server has taken or refused the batch.

        Args:
            batch: one request's worth.
            suspect_after: how many internal errors of the server make this request suspect.

        Raises:
            InterruptedUploadError: told to stop.
            GaveUpError: no answer for too long.
        """
        run_id, limits = self._state.run_id or "", self._backend.limits
        full = len(batch.metrics) == limits.metrics
        left, unclear, unacknowledged = batch, False, False

        def attempt() -> Outcome[None]:
            nonlocal left, unclear, unacknowledged
            if self._tokens_are_old():
                self._renew_tokens()
            may_be_there = (unclear or self._doubtful) and bool(left.metrics)
            if unacknowledged or may_be_there:
                missing = self._unsent(run_id, left, everything=unacknowledged)
                if missing.value is None:
                    return missing.bare()
                left = missing.value
            if not len(left):
                return Outcome(Kind.OK)
            name = idempotency_token(self._uid, self._state, left) if self.has_idempotency_tokens else ""
            outcome = self._backend.send(run_id, left, name)
            if outcome.forgotten:
                self._renew_tokens()
            unclear = outcome.ambiguous and not self.has_idempotency_tokens
            unacknowledged = outcome.unacknowledged
            return outcome

        def is_hopeless(attempt: int, outcome: Outcome[None]) -> bool:
            return outcome.suspect and attempt >= suspect_after and self._takes_another_write(run_id)

        outcome = self._calls.ask(attempt, full=full, is_hopeless=is_hopeless)
        if outcome.suspect and not outcome.ok:
            self._doubtful = True  # it may have been done all the same; its parts have other tokens
        if outcome.ok and self._doubtful and self.has_idempotency_tokens:
            self._doubled += len(left.metrics)
        return outcome

    def _takes_another_write(self, run_id: str) -> bool:
        """True if the server takes another write: then its internal error was due to the one request."""
        return self._backend.update_run(run_id, ending.RUNNING, None, uuid.uuid4().hex).ok

    def _unsent(self, run_id: str, batch: Batch, *, everything: bool) -> Outcome[Batch]:
        """Return the part that the server does not have, asked name by name: a failure costs one query, not all."""
        by_name: dict[str, list[Metric]] = {}
        for metric in batch.metrics:
            by_name.setdefault(metric[0], []).append(metric)
        missing: list[Metric] = []
        for metrics in by_name.values():
            part = Batch(metrics)
            found = self._calls.ask(
                lambda part=part: self._backend.missing(run_id, part, everything=everything)  # type: ignore[misc]
            )
            if found.value is None:
                return found
            missing += found.value.metrics
        texts = Batch((), batch.params, batch.tags)
        if everything and len(texts):
            found = self._calls.ask(lambda: self._backend.missing(run_id, texts, everything=True))
            if found.value is None:
                return found
            texts = found.value
        return Outcome(Kind.OK, Batch(missing, texts.params, texts.tags))

    def _tokens_are_old(self) -> bool:
        sending = self._state.sending
        lifetime = self._backend.limits.token_seconds * 1000
        return self.has_idempotency_tokens and sending is not None and now_ms() - sending.since > lifetime

    def _renew_tokens(self) -> None:
        """Give this chunk new tokens: the server forgot the old ones, and only its data show what was written."""
        self._doubtful = True
        if self._state.sending is not None:
            self._name(self._state.sending.positions)

    def _name(self, positions: Mapping[str, int]) -> None:
        before = 0 if self._state.sending is None else self._state.sending.since
        self._state.sending = Sending(dict(positions), max(now_ms(), before + 1))
        self._calls.save()
