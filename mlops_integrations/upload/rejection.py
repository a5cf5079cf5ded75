"""Finds the records that a server refuses by halving the request, and sets them aside with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mlops_integrations.backends.protocol import Batch, Outcome
from mlops_integrations.clock import now_ms
from mlops_integrations.journal import files
from mlops_integrations.journal.cursor import Cursor

_REASON_LENGTH: Final = 500
_SECOND_CHANCES: Final = (1.0, 4.0, 25.0, 60.0)
"""Seconds before records at which the server failed are sent again."""
_MORE_CHANCES: Final = (60.0,)
"""Further ones, if it has taken nothing at all: perhaps it fails at everything of this kind, for the moment."""


class RejectedRecords:
    """Refused records: written to the run directory's ``refused.jsonl``, and counted by reason in the cursor.

    Both happen at ``commit``, with the cursor's move: a chunk that is read again must not be counted twice.
    """

    def __init__(self, path: Path, state: Cursor) -> None:
        self._path = path
        self._state = state
        self._lines: list[bytes] = []
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def set_aside(self, batch: Batch, reason: str, message: str) -> None:
        """Set every item of the batch aside.

        Args:
            batch: the refused items.
            reason: short, of a few kinds, to count by.
            message: the full message.
        """
        about = {
            "time": now_ms(),
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
        """Write down and count the records set aside since the last time.

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


def deliver_all_but_rejected(
    batch: Batch,
    send: Callable[[Batch], Outcome[None]],
    set_aside: Callable[[Batch, Outcome[None]], None],
    refused: Outcome[None],
    wait: Callable[[float], None],
) -> int:
    """Deliver a refused batch except for the culprits.

    Items that the server refuses are set aside at once. Items at which it only fails may be innocent, and the server
    in trouble: they are sent again some time later, all of them together, a few times.

    Args:
        batch: the refused batch.
        send: sends one request.
        set_aside: called with each culprit.
        refused: the answer to the batch.
        wait: waits for so many seconds.

    Returns:
        How many items were taken.
    """
    chances = [*_SECOND_CHANCES, *_MORE_CHANCES]
    suspects: list[tuple[Batch, Outcome[None]]] = []

    def judge(part: Batch, why: Outcome[None]) -> None:
        if why.suspect:
            suspects.append((part, why))
        else:
            set_aside(part, why)

    taken = bisect(batch, send, judge, refused)
    while suspects and chances and (taken == 0 or len(chances) > len(_MORE_CHANCES)):
        wait(chances.pop(0))
        again = joined([part for part, _ in suspects])
        suspects.clear()
        outcome = send(again)
        taken += len(again) if outcome.ok else bisect(again, send, judge, outcome)
    for part, why in suspects:
        set_aside(part, why)
    return taken


def joined(parts: Sequence[Batch]) -> Batch:
    """Return one batch with the content of all."""
    return Batch(
        [item for part in parts for item in part.metrics],
        [item for part in parts for item in part.params],
        [item for part in parts for item in part.tags],
    )


def bisect(
    batch: Batch,
    send: Callable[[Batch], Outcome[None]],
    set_aside: Callable[[Batch, Outcome[None]], None],
    refused: Outcome[None],
) -> int:
    """Deliver a refused batch except for the culprits, which are found by halving it.

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
        taken += len(half) if outcome.ok else bisect(half, send, set_aside, outcome)
    return taken
