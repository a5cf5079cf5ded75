"""Decides when to send, and how long to wait after a failure. Pure: times go in, seconds come out.

Many runs share one server: a run uses about a tenth of its time at most, unless there is a backlog and the server
keeps up.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final

_REST_FACTOR: Final = 9.0
_SHORTEST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 300.0
"""Thousands of runs keep to a tenth of a server only if they may wait long: with shorter pauses it never recovers."""
_JITTER: Final = 0.2
_SMOOTHING: Final = 0.3
_STRAINED_FACTOR: Final = 4.0
_REMEMBERED_FULL_BATCHES: Final = 64

_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 60.0
_LONGEST_RETRY_AFTER: Final = 300.0
_RETRY_AFTER_SPREAD: Final = 0.5
DENIED_BACKOFF: Final = 30.0


class Pacer:
    """Computes the pause between requests from how long they take."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._smoothed: float | None = None
        self._full: deque[float] = deque(maxlen=_REMEMBERED_FULL_BATCHES)
        self.due = float("-inf")
        """Time at which to send records that do not fill a request."""

    def observe(self, seconds: float, *, full: bool) -> None:
        """Note that a request took this long."""
        self._smoothed = seconds if self._smoothed is None else self._smoothed + _SMOOTHING * (seconds - self._smoothed)
        if full:
            self._full.append(seconds)

    def may_send(self, now: float, *, full: bool, hurry: bool) -> bool:
        """True if the records at hand should be sent now.

        Args:
            now: the clock's time.
            full: they fill a request, or are all that will come.
            hurry: somebody waits for them.
        """
        return hurry or (full and not self.strained) or now >= self.due

    def sent(self, now: float) -> None:
        """Note that the records at hand were sent."""
        self.due = now + self.pause()

    def pause(self) -> float:
        """Return the seconds to wait before sending records that do not fill a request."""
        if self._smoothed is None:
            return 0.0
        seconds = min(max(_REST_FACTOR * self._smoothed, _SHORTEST_PAUSE), _LONGEST_PAUSE)
        return seconds * self._rng.uniform(1.0 - _JITTER, 1.0 + _JITTER)

    @property
    def strained(self) -> bool:
        """True while the server needs much longer for a full request than before: full ones are paced too."""
        # The faster of the last two: a single slow one (a store that tidies up) says nothing.
        lately = min(self._full[-1], self._full[-2]) if len(self._full) > 1 else 0.0
        return lately > 0.0 and lately >= _STRAINED_FACTOR * min(self._full)


def backoff(attempt: int, retry_after: float | None, rng: random.Random, spent: float = 0.0) -> float:
    """Return the seconds to wait after failed attempt ``attempt`` (from 1): the server's wish, then full jitter.

    A server may name the same moment to thousands of runs: jitter spreads them after it. It also spreads those that
    waited in vain (for ``spent`` seconds): a server that choked on too many requests must not get all of them at once.
    """
    # The exponent is bounded before it is used: an outage of days must not overflow.
    ceiling = min(_FIRST_BACKOFF * 2.0 ** min(attempt, 16), _LONGEST_BACKOFF)
    asked = min(retry_after or 0.0, _LONGEST_RETRY_AFTER)
    return asked + rng.uniform(0.0, max(ceiling, min(spent, _LONGEST_BACKOFF), _RETRY_AFTER_SPREAD * asked))
