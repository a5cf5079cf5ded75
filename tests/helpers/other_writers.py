"""Runs that look as if another process had recorded them."""

from __future__ import annotations

from typing import Any

import msgspec

import mlops_integrations as mlops
from mlops_integrations.journal import reader, records


def move_writer(run: mlops.Run, **identity: Any) -> None:
    """Make the journal of a run look as if it were written by another process."""
    (path,) = run.directory.glob("journal-*.jsonl")
    header, _ = reader.read_start(path)
    assert header is not None
    writer = msgspec.structs.replace(header.writer, **identity)
    _, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(records.frame(msgspec.structs.replace(header, writer=writer)) + rest)


def drop_last_record(run: mlops.Run) -> None:
    """Make a finished run look as if its process had been killed."""
    (path,) = run.directory.glob("journal-*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
