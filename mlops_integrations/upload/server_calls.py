"""Asks a server until it says yes or no: the one retry loop, with every wait interruptible.

What goes wrong meanwhile stands in the cursor as its trouble, for the training process and the user to see.
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
    """The uploader was told to stop. Nothing is lost: the cursor stands where it stood."""


class GaveUpError(Exception):
    """No answer for longer than this uploader has patience."""


class StoppedByServerError(Exception):
    """The server won't have this run as things are: trying again by itself is no use."""


class RunGoneError(StoppedByServerError):
    """The server has deleted the run, or does not know it."""


@dataclass(slots=True)
class UploadContext:
    """The world as the uploader sees it: time, chance, and what others want of it."""

    stop: Callable[[], bool] = lambda: False
    """Whether to stop; asked several times a second."""
    wake_time: Callable[[], int] = lambda: 0
    """Changes when somebody waits for what is there."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)
    patience: float | None = None
    """Seconds without an answer before giving up; None: never. May be changed while asking."""
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
        self._woken_at = 0  # whoever woke an uploader before this one came up is still waiting
        self._last_answer = context.clock()
        self._in_progress = 0
        """Calls that are being asked for: one may ask others before it is tried again."""

    def ask(
        self,
        call: Callable[[], Outcome[T]],
        *,
        full: bool = False,
        is_hopeless: Callable[[int, Outcome[T]], bool] = lambda _attempt, _outcome: False,
    ) -> Outcome[T]:
        """Call until the server has done it or refused it.

        Args:
            call: one attempt.
            full: whether this is as large a request as there is, for the pacing.
            is_hopeless: whether a failed attempt of this number is to count as a refusal.

        Raises:
            InterruptedUploadError: told to stop.
            GaveUpError: patience is at its end.
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
            # What was asked meanwhile may have been answered: of this call that says nothing.
            self.back_off(attempt, outcome, spent, since)

    def ask_until_seen(
        self, write: Callable[[], Outcome[None]], look: Callable[[], Outcome[T]], is_done: Callable[[T], bool]
    ) -> Outcome[None]:
        """Ask for a write; where something else has answered it, look whether it is done before asking again.

        Args:
            write: one attempt.
            look: reads what the write changes.
            is_done: whether what was read shows the change.
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
        """The server speaks to us: whatever the trouble was, it is over, unless another call still waits."""
        self._last_answer = self._context.clock()
        self._context.on_answer()
        if self._state.trouble is not None and self._in_progress <= 1:
            self._state.trouble = None
            self.save()

    def note_trouble(self, outcome: Outcome[T], *, stopped: bool = False) -> None:
        """Write down why nothing moves."""
        self.write_trouble(outcome.message, stopped=stopped, request_id=outcome.request_id)

    def write_trouble(self, message: str, *, stopped: bool, request_id: str | None = None) -> None:
        """Write down why nothing moves; the time of its beginning stays."""
        known = self._state.trouble
        since = known.since if known is not None else now_ms()
        fresh = Trouble(message, since, stopped, request_id)
        if fresh != known:
            self._state.trouble = fresh
            self.save()

    def back_off(self, attempt: int, outcome: Outcome[T], spent: float = 0.0, since: float | None = None) -> None:
        """Wait before the next attempt; somebody who waits for us ends it, unless the server asked for the pause.

        Args:
            attempt: its number, from 1.
            outcome: what became of it.
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
        """Give up if nothing has come of it for longer than we have patience.

        Raises:
            GaveUpError: so it is.
        """
        if self._context.patience is not None and self.now() - since > self._context.patience:
            raise GaveUpError(message)

    def wait(self, seconds: float, *, for_nobody: bool = True) -> None:
        """Sleep; unless ``for_nobody``, until somebody wakes us."""
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
        """Whether somebody has come to wait for us since the last time this was asked."""
        woken_at = self._context.wake_time()
        if woken_at == self._woken_at:
            return False
        self._woken_at = woken_at
        return True

    def checkpoint(self) -> None:
        """Do what must go on during every wait; raise if told to stop."""
        self._tend()
        if self._context.stop():
            raise InterruptedUploadError

    def save(self, *, durable: bool = False) -> None:
        """Bring the cursor to disk."""
        cursor.save(self._path, self._state, durable=durable)
