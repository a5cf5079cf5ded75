"""How far a delivery has got: points delivered of total, rate, time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from mlops_integrations.cli.formatting import counted, duration
from mlops_integrations.cli.terminal import Terminal

_REWRITE_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 5.0


class Ticker:
    """Tells when the next progress message is due: on a terminal five times a second, elsewhere every 5 s."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = _REWRITE_SECONDS if terminal.rewrites else _LINE_SECONDS
        self._clock = clock
        self.said_at = clock()

    def is_due(self) -> bool:
        """True if the next message is due."""
        return self._clock() - self.said_at >= self._every

    def said(self) -> float:
        """Store the time at which a message is printed, and return it."""
        self.said_at = self._clock()
        return self.said_at


class Progress:
    """Prints progress now and then: on a terminal by rewriting one line, elsewhere by a line every few seconds.

    Args:
        terminal: where to print.
        total: number of points that are to be delivered, as far as is known.
        runs: number of runs.
    """

    def __init__(self, terminal: Terminal, total: int, runs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._total = total
        self._runs = runs
        self._clock = clock
        self._began = clock()
        self._ticker = Ticker(terminal, clock)
        self._run = 0
        self._label = ""
        self._done_before = 0
        self.delivered = 0
        """Points acknowledged in all."""

    def summary(self) -> str:
        """Return the end of a sentence: points, time and rate; empty if nothing was delivered."""
        if not self.delivered:
            return ""
        seconds = max(self._clock() - self._began, 1e-3)
        points = counted(self.delivered, "point")
        return f". {points} in {duration(seconds)} ({self.delivered / seconds:,.0f} points/s)"

    def begin(self, label: str) -> None:
        """Start the next run."""
        self._run += 1
        self._label = label
        self._done_before = self.delivered
        if self._terminal.rewrites:
            self._say(None)

    def at(self, points: int) -> None:
        """Set the number of points of the current run that are delivered."""
        self.delivered = self._done_before + points
        self.tick(None)

    def tick(self, trouble: str | None) -> None:
        """Print the progress, if that is due."""
        if self._ticker.is_due():
            self._say(trouble)

    def _say(self, trouble: str | None) -> None:
        seconds = self._ticker.said() - self._began
        total = max(self._total, self.delivered)
        rate = self.delivered / seconds if seconds > 0 else 0.0
        text = f"{self._label}: {self.delivered:,} of {total:,} points"
        if self._runs > 1:
            text = f"run {self._run} of {self._runs}, {self._label}; of all {self.delivered:,} of {total:,} points"
        if trouble is not None:
            text += f", waiting: {trouble}"
        elif rate > 0:
            text += f", {rate:,.0f} points/s, {duration((total - self.delivered) / rate)} left"
        self._terminal.progress(text)
