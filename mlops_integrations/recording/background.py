"""Copies that nobody waits for: one thread of this process makes them, one after the other.

Knows neither runs nor artifacts: it has jobs, and whom to tell of one that failed. The interpreter's exit waits for
them within its time; what is not copied then stays as it was held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

Job: TypeAlias = tuple[Callable[[], None], Callable[[Exception], None]]
"""What to do, and whom to tell if it fails."""


class _Copies:
    """The jobs that are left, and the thread that does them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._at_work = False

    def add(self, job: Job) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._at_work:
                return
            self._at_work = True
        try:
            threading.Thread(target=self._work, name="mlops-copies", daemon=True).start()
        except RuntimeError:  # at the interpreter's exit no thread can be started any more
            self._work()

    def wait(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work, max(0.0, seconds))

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._at_work = False
                    self._changed.notify_all()
                    return
                job, failed = self._jobs.popleft()
            try:
                job()
            except Exception as error:  # the border of a thread: whoever ordered the copy is told
                failed(error)


_copies = _Copies()


def later(job: Callable[[], None], failed: Callable[[Exception], None]) -> None:
    """Do this in a thread of ours.

    Args:
        job: what to do.
        failed: called in that thread with the exception that leaves the job.
    """
    _copies.add((job, failed))


def wait(seconds: float) -> bool:
    """Wait until all is copied; whether it is."""
    return _copies.wait(seconds)


def forget() -> None:
    """In a forked child: its parent copies. Touches no lock."""
    global _copies
    _copies = _Copies()
