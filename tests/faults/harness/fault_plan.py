"""What may become of a request, and which becomes of which: drawn from a seed, so that it can be had again."""

from __future__ import annotations

import enum
import random
from typing import Final

_STICKY: Final = 0.25
"""How often a failure is no moment's, but lasts for some requests."""
_STICKY_CODE: Final = 0.6
"""Likewise of internal errors, which look as if the request were to blame."""
_LULL: Final = 12
"""Requests without internal errors after some in a row."""
_AT_CREATION: Final = 0.4
"""How often the creation of a run, which comes but once, is done with no clear answer."""


class Fault(enum.Enum):
    """What becomes of one request."""

    LOST_RESET = "done, reset"
    LOST_CLOSED = "done, closed"
    LOST_HUNG = "done, no answer"
    LATE = "done after the client's time-out"
    HALF = "done, half an answer"
    HALF_RESET = "done, half an answer and a reset"
    HALF_JSON = "done, half a JSON text"
    PAGE_DONE = "done, 200 with a page for people"
    GATEWAY_DONE = "done, 504"
    INTERNAL_DONE = "done, 500, INTERNAL_ERROR"
    RESET = "reset"
    RESET_IN_BODY = "reset in the middle of the body"
    HUNG = "no answer"
    THROTTLED = "429"
    THROTTLED_SECONDS = "429, Retry-After in seconds"
    THROTTLED_DATE = "429, Retry-After as a date"
    INTERNAL = "500"
    INTERNAL_CODE = "500, INTERNAL_ERROR"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    UNAVAILABLE_SECONDS = "503, Retry-After in seconds"
    UNAVAILABLE_CODE = "503, TEMPORARILY_UNAVAILABLE"
    GATEWAY = "504"
    PAGE = "200 with a page for people"
    NOT_FOUND = "404 with a page for people"
    REDIRECT = "redirected"
    DENIED = "401 for a while"
    RESTART = "restart"


DONE_FIRST = {
    Fault.LOST_RESET, Fault.LOST_CLOSED, Fault.LOST_HUNG, Fault.HALF, Fault.HALF_RESET, Fault.HALF_JSON,
    Fault.PAGE_DONE, Fault.GATEWAY_DONE, Fault.INTERNAL_DONE,
}  # fmt: skip
SLOW = {Fault.LOST_HUNG, Fault.LATE, Fault.HUNG}
"""These cost the client's time-out, which is real time."""
STATUSES = {
    Fault.THROTTLED: 429, Fault.THROTTLED_SECONDS: 429, Fault.THROTTLED_DATE: 429, Fault.INTERNAL: 500,
    Fault.INTERNAL_CODE: 500, Fault.BAD_GATEWAY: 502, Fault.UNAVAILABLE: 503, Fault.UNAVAILABLE_SECONDS: 503,
    Fault.UNAVAILABLE_CODE: 503, Fault.GATEWAY: 504, Fault.GATEWAY_DONE: 504, Fault.PAGE: 200, Fault.PAGE_DONE: 200,
    Fault.NOT_FOUND: 404, Fault.INTERNAL_DONE: 500,    Fault.REDIRECT: 302, Fault.DENIED: 401,
}  # fmt: skip
CODES = {
    Fault.INTERNAL_CODE: "INTERNAL_ERROR", Fault.INTERNAL_DONE: "INTERNAL_ERROR",
    Fault.UNAVAILABLE_CODE: "TEMPORARILY_UNAVAILABLE",
}  # fmt: skip


class Plan:
    """Which request fails, and how: drawn from a seed, so that the same requests fail the same way.

    Args:
        seed: what all is drawn from.
        slow: how many faults may cost the client's time-out.
        least: how many requests fail at least, as a share.
    """

    def __init__(self, seed: str, slow: int, least: float = 0.05) -> None:
        self._rng = random.Random(seed)
        self._rate = self._rng.uniform(least, 0.6)
        self._slow = slow
        self._sticky: tuple[Fault, str | None] | None = None
        self._left = self._lull = 0

    def draw(self, call: str) -> Fault | None:
        """What becomes of the next request."""
        rng = self._rng
        if self._sticky is not None and self._sticky[1] in {None, call}:
            fault, self._left = self._sticky[0], self._left - 1
            if self._left >= 0:
                return fault
            # What lasts comes to an end. Who goes on with internal errors for minutes, and does all else, is not
            # ill but refuses the request.
            self._sticky, self._lull = None, _LULL
            return None
        if call == "runs/create" and rng.random() < _AT_CREATION:
            return Fault.LATE if rng.random() < 0.5 else rng.choice(sorted(DONE_FIRST - SLOW, key=str))
        if rng.random() >= self._rate:
            return None
        self._lull = max(0, self._lull - 1)
        often = [Fault.INTERNAL_CODE, Fault.INTERNAL_DONE]
        choice = [fault for fault in [*Fault, *often] if self._slow or fault not in SLOW]
        fault = rng.choice([fault for fault in choice if not self._lull or CODES.get(fault) != "INTERNAL_ERROR"])
        if fault is Fault.NOT_FOUND and call == "experiments/get-by-name":
            return None  # by that a client knows a server before 1.3, and can't know better
        self._slow -= fault in SLOW
        if fault in STATUSES and rng.random() < (_STICKY_CODE if CODES.get(fault) == "INTERNAL_ERROR" else _STICKY):
            everywhere = fault is Fault.NOT_FOUND or rng.random() < 0.5
            self._sticky, self._left = (fault, None if everywhere else call), rng.randint(1, 7)
        return fault

    def some(self, most: int) -> int:
        """A number from 1."""
        return self._rng.randint(1, most)
