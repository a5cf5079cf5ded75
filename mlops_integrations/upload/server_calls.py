"""Calls a server until it accepts or refuses: the one retry loop, with every wait interruptible.

Trouble meanwhile is stored in the cursor, for the training process and the user to see.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from mlops_integrations.backends.protocol import Kind, Outcome
from mlops_integrations.clock import now_ms
from mlops_integrations.journal import cursor
from mlops_integrations.journal.cursor import Cursor, Trouble
from mlops_integrations.upload.pacing import DENIED_BACKOFF, Pacer, backoff

T = TypeVar("T")

_CHECK_SECONDS: Final = 0.1


class InterruptedUploadError(Exception):
    """The uploader was told to stop. Nothing is lost: a later one resumes from the cursor."""


class GaveUpError(Exception):
    """No answer for longer than this uploader's patience."""


class StoppedByServerError(Exception):
    """The server does not accept this run as things are: automatic retries are of no use."""


class RunGoneError(StoppedByServerError):
    """The server has deleted the run, or does not know it."""


@dataclass(slots=True)
class UploadContext:
    """The uploader's surroundings: time, randomness, and requests from other parts."""

    stop: Callable[[], bool] = lambda: False
    """Returns True to stop; asked several times a second."""
    wake_time: Callable[[], int] = lambda: 0
    """Changes when somebody waits for the records at hand."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)
    patience: float | None = None
    """Seconds without an answer before giving up; None: never. May be changed during a call."""
    on_answer: Callable[[], None] = lambda: None
    """Called at each answer of the server."""


class ServerCalls:
    """Server calls on behalf of one cursor."""

    def __init__(
        self, state: Cursor, path: Path, pacer: Pacer, context: UploadContext, tend: Callable[[], None] = lambda: None
    ) -> None:
        self._tend = tend
        self._state = state
        self._path = path
        self._pacer = pacer
        self._context = context
        self._woken_at = 0  # a wake from before this uploader started still counts
        self._last_answer = context.clock()
        self._in_progress = 0
        """Calls in progress: one may make others before it is retried."""

    def ask(
        self,
        call: Callable[[], Outcome[T]],
        *,
        full: bool = False,
        is_hopeless: Callable[[int, Outcome[T]], bool] = lambda _attempt, _outcome: False,
    ) -> Outcome[T]:
        """Call until the server has done or refused it.

        Args:
            call: one attempt.
            full: True for a request of the largest size, for the pacing.
            is_hopeless: decides if a failed attempt of this number counts as a refusal.

        Raises:
            InterruptedUploadError: told to stop.
            GaveUpError: no answer for too long.
        """
        self._in_progress += 1
        try:
            return self._ask(call, full, is_hopeless)
        finally:
            self._in_progress -= 1

    def _ask(
        self, call: Callable[[], Outcome[T]], full: bool, is_hopeless: Callable[[int, Outcome[T]], bool]
    ) -> Outcome[T]:
        attempt, since = 0, self.now()
        while True:
            self.checkpoint()
            began = self._context.clock()
            outcome = call()
            spent = self._context.clock() - began
            if outcome.ok:
                self._pacer.observe(spent, full=full)
            if outcome.kind in {Kind.OK, Kind.REFUSED}:
                self.answered()
                return outcome
            attempt += 1
            if is_hopeless(attempt, outcome):
                self.answered()
                return Outcome(Kind.REFUSED, None, outcome.message, outcome.code, suspect=outcome.suspect)
            self.note_trouble(outcome)
            # Other calls may have been answered meanwhile; that says nothing about this one: so ``since``.
            self.back_off(attempt, outcome, spent, since)

    def ask_until_seen(
        self, write: Callable[[], Outcome[None]], look: Callable[[], Outcome[T]], is_done: Callable[[T], bool]
    ) -> Outcome[None]:
        """Request a write; after a reply other than the documented one, look if it is done before a new request.

        Args:
            write: one attempt.
            look: reads what the write changes.
            is_done: decides if the result of ``look`` shows the change.
        """
        unacknowledged = False

        def attempt() -> Outcome[None]:
            nonlocal unacknowledged
            if unacknowledged:
                seen = look()
                if seen.value is None or is_done(seen.value):
                    return seen.bare()
            outcome = write()
            unacknowledged = outcome.unacknowledged
            return outcome

        return self.ask(attempt)

    def answered(self) -> None:
        """Note that the server answered: clears the trouble in the cursor, unless another call still waits."""
        self._last_answer = self._context.clock()
        self._context.on_answer()
        if self._state.trouble is not None and self._in_progress <= 1:
            self._state.trouble = None
            self.save()

    def note_trouble(self, outcome: Outcome[T], *, stopped: bool = False) -> None:
        """Store in the cursor why delivery makes no progress."""
        self.write_trouble(outcome.message, stopped=stopped, request_id=outcome.request_id)

    def write_trouble(self, message: str, *, stopped: bool, request_id: str | None = None) -> None:
        """Store in the cursor why delivery makes no progress; the time at which that began stays."""
        known = self._state.trouble
        since = known.since if known is not None else now_ms()
        fresh = Trouble(message, since, stopped, request_id)
        if fresh != known:
            self._state.trouble = fresh
            self.save()

    def back_off(self, attempt: int, outcome: Outcome[T], spent: float = 0.0, since: float | None = None) -> None:
        """Wait before the next attempt; a wake ends it, unless the server asked for the pause or denied access.

        Args:
            attempt: its number, from 1.
            outcome: its outcome.
            spent: seconds that it took.
            since: when the first attempt began. Default: the time of the server's last answer.
        """
        context = self._context
        self.check_patience(self._last_answer if since is None else since, outcome.message)
        seconds = backoff(attempt, outcome.retry_after, context.rng, spent)
        if outcome.kind is Kind.DENIED:
            seconds = max(seconds, min(DENIED_BACKOFF, 2.0 ** min(attempt, 16)))
        asked_for = outcome.retry_after is not None or outcome.kind is Kind.DENIED
        self.wait(seconds, for_nobody=asked_for)

    def now(self) -> float:
        """The clock's time."""
        return self._context.clock()

    def check_patience(self, since: float, message: str) -> None:
        """Give up if there was no success for longer than our patience.

        Raises:
            GaveUpError: there was none.
        """
        if self._context.patience is not None and self.now() - since > self._context.patience:
            raise GaveUpError(message)

    def wait(self, seconds: float, *, for_nobody: bool = True) -> None:
        """Sleep; unless ``for_nobody``, a wake ends it."""
        end = self._context.clock() + seconds
        while True:
            self.checkpoint()
            if not for_nobody and self.woken():
                return
            left = end - self._context.clock()
            if left <= 0:
                return
            self._context.sleep(min(left, _CHECK_SECONDS))

    def woken(self) -> bool:
        """True if a wake came since the last time this was asked."""
        woken_at = self._context.wake_time()
        if woken_at == self._woken_at:
            return False
        self._woken_at = woken_at
        return True

    def checkpoint(self) -> None:
        """Do the work that must go on during every wait; raise if told to stop."""
        self._tend()
        if self._context.stop():
            raise InterruptedUploadError

    def save(self, *, durable: bool = False) -> None:
        """Save the cursor to disk."""
        cursor.save(self._path, self._state, durable=durable)
