"""Notebooks: the process outlives the training, so a cell that fails ends the runs that were opened in it.

IPython's own events report a cell's end. Nothing is registered before a run is opened, and nothing outside IPython.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from mlops_integrations.journal import ending

if TYPE_CHECKING:
    from mlops_integrations.recording.recorder import Recorder

_opened_in_cell: Final[list[Recorder]] = []
_watched: Final[list[object]] = []
"""The shell whose events we get; a process has one."""


def shell() -> Any:
    """Return the IPython shell of this process, or None. That IPython is imported proves nothing: libraries do it."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return None if get is None else get()


def opened(recorder: Recorder) -> None:
    """Called when a run was opened or re-opened, maybe in a notebook's cell; no effect outside IPython."""
    current = shell()
    if current is None:
        return
    if current not in _watched:
        current.events.register("post_run_cell", _after_cell)
        _watched[:] = [current]
    _opened_in_cell.append(recorder)


def forget() -> None:
    """In a forked child: forget the cell, which is the parent's."""
    _opened_in_cell.clear()
    _watched.clear()


def _after_cell(result: Any) -> None:
    recordings = _opened_in_cell.copy()
    _opened_in_cell.clear()
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return
    for recorder in recordings:
        if recorder.is_open:
            recorder.end(*ending.of_exception(error))
