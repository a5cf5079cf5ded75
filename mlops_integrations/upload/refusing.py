"""What a server refuses: found by halving the request, and set aside with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from mlops_integrations.backends.base import Batch, Outcome

_REASON_LENGTH: Final = 500


class Refusals:
    """The file ``refused.jsonl`` of a run directory, and the count of what went there by reason."""

    def __init__(self, path: Path, destination: str, counts: dict[str, int]) -> None:
        self._path = path
        self._destination = destination
        self._counts = counts

    def set_aside(self, batch: Batch, reason: str, message: str) -> None:
        """Write every item of the batch to the file, and count it.

        Args:
            batch: what is refused.
            reason: short, of a few kinds, to count by.
            message: the whole story.
        """
        about = {
            "time": int(time.time() * 1000),
            "destination": self._destination,
            "reason": reason,
            "message": message[:_REASON_LENGTH],
        }
        lines = [
            msgspec.json.encode(about | {"metric": {"key": key, "value": value, "timestamp": at, "step": step}})
            for key, value, at, step in batch.metrics
        ]
        lines += [msgspec.json.encode(about | {"param": {"key": k, "value": v}}) for k, v in batch.params]
        lines += [msgspec.json.encode(about | {"tag": {"key": k, "value": v}}) for k, v in batch.tags]
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(b"".join(line + b"\n" for line in lines))
        self._counts[reason] = self._counts.get(reason, 0) + len(batch)


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
