"""What a server refuses: found by halving the request, and set aside with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from mlops_integrations.backends.base import Batch, Outcome
from mlops_integrations.journal import files
from mlops_integrations.journal.cursor import Cursor

_REASON_LENGTH: Final = 500


class Refusals:
    """What goes to the file ``refused.jsonl`` of a run directory, and is counted by reason in the cursor.

    Both happen at ``commit``, with the cursor's move: a chunk that is read again must not be counted twice.
    """

    def __init__(self, path: Path, state: Cursor) -> None:
        self._path = path
        self._state = state
        self._lines: list[bytes] = []
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def set_aside(self, batch: Batch, reason: str, message: str) -> None:
        """Take every item of the batch.

        Args:
            batch: what is refused.
            reason: short, of a few kinds, to count by.
            message: the whole story.
        """
        about = {
            "time": int(time.time() * 1000),
            "destination": self._state.destination,
            "reason": reason,
            "message": message[:_REASON_LENGTH],
        }
        for key, value, at, step in batch.metrics:
            metric = {"key": key, "value": value, "timestamp": at, "step": step}
            self._take(reason, key, about | {"metric": metric})
        for kind, items in (("param", batch.params), ("tag", batch.tags)):
            for key, value in items:
                self._take(reason, key, about | {kind: {"key": key, "value": value}})

    def _take(self, reason: str, key: str, line: Mapping[str, object]) -> None:
        self._lines.append(msgspec.json.encode(line))
        self._counts[reason] = self._counts.get(reason, 0) + 1
        self._first.setdefault(reason, key)

    def commit(self) -> None:
        """Write down and count what was taken since the last time.

        Raises:
            OSError: the file can't be written.
        """
        if not self._lines:
            return
        fd = files.open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(fd, "ab") as file:
            file.write(b"".join(line + b"\n" for line in self._lines))
        for reason, count in self._counts.items():
            self._state.refused[reason] = self._state.refused.get(reason, 0) + count
            self._state.refused_first.setdefault(reason, self._first[reason])
        self._lines, self._counts, self._first = [], {}, {}


def divide(
    batch: Batch,
    send: Callable[[Batch], Outcome[None]],
    set_aside: Callable[[Batch, Outcome[None]], None],
    refused: Outcome[None],
) -> int:
    """Deliver all of a refused batch but the culprits.

    Returns:
        How many items were taken.
    """
    if len(batch) <= 1:
        set_aside(batch, refused)
        return 0
    taken = 0
    for half in batch.halves():
        if len(half) == 0:
            continue
        outcome = send(half)
        taken += len(half) if outcome.ok else divide(half, send, set_aside, outcome)
    return taken
