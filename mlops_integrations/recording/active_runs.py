"""The active run: the one that an integration or ``start_run`` opened last and that is still open."""

from __future__ import annotations

import os
import weakref
from typing import Final

from mlops_integrations.recording.run import Run

_stack: Final[list[Run]] = []
_users: Final[weakref.WeakSet[Run]] = weakref.WeakSet()
"""Runs opened by ``start_run``, not by an integration."""


def started(run: Run, *, by_user: bool = False) -> None:
    """Make a run of ``start_run`` or of an integration the active run, for as long as it is open."""
    _stack[:] = [*(known for known in _stack if known.is_open), run]
    if by_user:
        _users.add(run)


def active_run() -> Run | None:
    """The run that an integration or ``start_run`` opened last and that is still open, or None."""
    return next((run for run in reversed(_stack) if run.is_open), None)


def users_run() -> Run | None:
    """The run that ``start_run`` opened last and that has not ended since, or None."""
    return next(
        (run for run in reversed(_stack) if run.is_open and not run._recorder.is_reopened and run in _users), None
    )


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stack.clear)
