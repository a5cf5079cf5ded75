"""Work that no log call waits for: queues, each with one thread that does its jobs in order.

All copies of ``log_artifact(wait=False)`` in this process share one queue. Interpreter exit waits for them, up to the
finish timeout; a file that is not copied by then stays as the hard link that holds it, if there is one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

logger: Final = logging.getLogger("mlops_integrations")

Job = TypeVar("Job")


class BackgroundQueue(Generic[Job]):
    """A queue of jobs, and a daemon thread that does one after the other and lives while there are any.

    Args:
        name: the thread's name.
        do: does one job; an exception is reported, and the others go on.
    """

    def __init__(self, name: str, do: Callable[[Job], None]) -> None:
        self._name = name
        self._do = do
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._at_work = False

    def add(self, job: Job) -> None:
        """Queue a job; it is done after those added before."""
        with self._changed:
            self._jobs.append(job)
            if self._at_work:
                return
            self._at_work = True
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # at the interpreter's exit no thread can be started any more
            self._work()

    def wait(self, seconds: float) -> bool:
        """Wait until all jobs are done; False if ``seconds`` are not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._at_work, max(0.0, seconds))

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._at_work = False
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
            try:
                self._do(job)
            except Exception:  # an internal error must not keep the other jobs from being done
                logger.exception("mlops: internal error in %s: the others go on", self._name)


Copy: TypeAlias = tuple[Callable[[], None], Callable[[Exception], None]]
"""Two functions: one makes a copy, the other is called with the exception if that fails."""


def _make(copy: Copy) -> None:
    make, failed = copy
    try:
        make()
    except Exception as error:  # the border of a thread: the run that ordered the copy reports it
        failed(error)


def _new_copies() -> BackgroundQueue[Copy]:
    return BackgroundQueue("mlops-copies", _make)


_copies = _new_copies()


def later(copy: Callable[[], None], failed: Callable[[Exception], None]) -> None:
    """Make a copy in the background.

    Args:
        copy: makes it.
        failed: called in that thread with the exception that ``copy`` raises.
    """
    _copies.add((copy, failed))


def wait(seconds: float) -> bool:
    """Wait until all copies are made; False if ``seconds`` are not enough."""
    return _copies.wait(seconds)


def forget() -> None:
    """In a forked child: drop the jobs, which the parent does. Touches no lock."""
    global _copies
    _copies = _new_copies()
