"""The runs opened in this process: ends them at interpreter exit, and disowns them in a forked child.

We install no signal handler and no exception hook. ``atexit`` reports the exit, ``os.register_at_fork`` a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, Final

from mlops_integrations.journal import ending
from mlops_integrations.recording import background, notebook

if TYPE_CHECKING:
    from mlops_integrations.recording.recorder import Recorder

_FORGET_ABOVE: Final = 64

_recorders: Final[list[Recorder]] = []
"""Runs in the order of their opening. From 64 on, ended ones with nothing left to deliver are removed."""

_everyone: Final[weakref.WeakSet[Recorder]] = weakref.WeakSet()
_seen_to: Final[list[object]] = []
"""The finalizer of a process that multiprocessing has started, once a run was opened there."""


def opened(recorder: Recorder) -> None:
    """Called when a run was opened or re-opened."""
    if recorder in _recorders:
        _recorders.remove(recorder)
    if len(_recorders) >= _FORGET_ABOVE:
        for known in [known for known in _recorders if not known.is_open and not known.delivery.is_awaited()]:
            with contextlib.suppress(ValueError):  # another thread may do the same
                _recorders.remove(known)
    _recorders.append(recorder)
    _everyone.add(recorder)
    notebook.opened(recorder)
    _see_multiprocessing_exit()


def uncaught_exception() -> BaseException | None:
    """Return the exception that is ending this process, or None. An interactive interpreter outlives it: None, too."""
    if hasattr(sys, "ps1") or notebook.shell() is not None:
        return None
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def _see_multiprocessing_exit() -> None:
    """Register a finalizer: processes of ``multiprocessing`` may end without ``atexit``, calling only finalizers."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None and not _seen_to:
        _seen_to.append(util.Finalize(None, _at_exit, exitpriority=1))


def _at_exit() -> None:
    """End every open run provisionally, then wait once, for all of them together."""
    error = uncaught_exception()
    status, reason = (ending.FINISHED, None) if error is None else ending.of_exception(error)
    before = time.monotonic() + max((known.settings.finish_timeout for known in _recorders), default=0.0)
    for recorder in _recorders.copy():
        try:
            recorder.end(status, reason, provisional=True, seconds=max(0.0, before - time.monotonic()))
        except Exception as failure:  # of one run: the others must be ended all the same
            recorder.lose("internal error", 1, f"the run's end was not recorded: {failure!r}")
    waiting = [recorder for recorder in _recorders if recorder.delivery.is_awaited()]
    deadline = time.monotonic() + max((known.settings.finish_timeout for known in waiting), default=0.0)
    try:
        background.wait(max((known.settings.finish_timeout for known in _recorders), default=0.0))
        for recorder in waiting:
            recorder.delivery.wait(deadline - time.monotonic())
    except KeyboardInterrupt:
        pass  # a second Ctrl-C: no more waiting; undelivered records are reported below
    for recorder in waiting:
        recorder.delivery.say_what_is_left()
    for recorder in _recorders.copy():
        if recorder.is_open:  # a daemon thread has re-opened it meanwhile
            recorder.end(status, reason, provisional=True)
            recorder.delivery.wait(min(1.0, deadline - time.monotonic()))
            recorder.delivery.say_what_is_left()
        recorder.delivery.say_news()


def _after_fork() -> None:
    """In the child: disown the parent's runs. Touches no lock, starts nothing, prints nothing."""
    _recorders.clear()
    _seen_to.clear()
    notebook.forget()
    background.forget()
    for recorder in list(_everyone):
        recorder.disown()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
