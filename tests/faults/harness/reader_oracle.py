"""What the reader must make of any bytes, worked out in another way: the whole file at once, no blocks, no offsets.

A line counts if its checksum is right and its JSON is a record. Everything else that is on a line is a bad line. What
follows the last newline is not there yet.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from mlops_integrations.journal import reader as reader_module
from mlops_integrations.journal.reader import JournalReader, read_last, read_start, read_tail
from mlops_integrations.journal.records import (
    Artifact,
    End,
    Header,
    Identity,
    Losses,
    Metrics,
    Params,
    Points,
    Record,
    RunSpec,
    Tags,
    frame,
)

RECORDS: Final[list[Record]] = [
    Header(1, "mlops-1", Identity("host", "boot", 4, 5, "6"), 7, "0.1.0"),
    RunSpec("mlops-1", "малый", 7, "http://host", "digits", parent="mlops-0", user="ann"),
    Metrics(8, [("loss", 0.5, 0), ("точность", "NaN", -1), ("top", "-Infinity", 2)]),
    Params(9, {"depth": "3", "line": "a\nb"}),
    Tags(10, {"стадия": "dev"}),
    Metrics(11, [("loss", 0.25, 2**63 - 1)]),
    Artifact(12, "artifacts/веса.pt", "веса.pt", 5),
    Metrics(12, [("loss", 0.125, 7), ("точность", 1e300, 7)]),
    Losses(12, {"disk: No space left on device": 2}),
    End(12, "FINISHED", None, provisional=False, points=4),
]
"""Of each type one, at least."""

LINES: Final = [frame(record) for record in RECORDS]
LINES[-3] = frame(Points(12, 7, {"loss": 0.125, "точность": 1e300}))  # read as the Metrics above
WHOLE: Final = b"".join(LINES)

_CHECKSUM: Final = re.compile(rb"[0-9a-fA-F]{8}")
_record_of: Final = msgspec.json.Decoder(Record | Points).decode


def expected(content: bytes) -> tuple[list[Record], int, int]:
    """The records that these bytes hold, how many lines are bad, and where the next record would begin."""
    *lines, tail = content.split(b"\n")
    records: list[Record] = []
    bad = 0
    end = 0
    for line in lines:
        end += len(line) + 1
        record = _parsed(line)
        if isinstance(record, Header) and record.format > 1:
            return records, bad, end
        if record is not None:
            records.append(record)
        else:
            bad += bool(line)
    assert end == len(content) - len(tail)
    return records, bad, end


def _parsed(line: bytes) -> Record | None:
    # Python takes more spellings of a number for one than these; the sum itself must be right all the same.
    spelled = _CHECKSUM.fullmatch(line[:8]) or line[:8].strip() != line[:8] or set(line[:8]) & set(b"+_")
    if not spelled or line[8:9] != b" ":
        return None
    try:
        if int(line[:8], 16) != crc32(line[9:]):
            return None
        record = _record_of(line[9:])
    except (ValueError, RecursionError):
        return None
    if isinstance(record, Points):
        return Metrics(record.time, [(key, value, record.step) for key, value in record.values.items()])
    return record


def check(path: Path, content: bytes, cuts: Sequence[int] = (), block: int = 256 * 1024) -> None:
    """See that the reader makes the same of them: read at once, as they come piece by piece, and from in between.

    Args:
        path: a file to write over.
        content: the bytes.
        cuts: where the file ends for a while; a follower reads up to there each time.
        block: how many bytes the reader takes at a time.
    """
    before = reader_module._BLOCK_BYTES
    reader_module._BLOCK_BYTES = block  # type: ignore[misc]
    try:
        _check_following(path, content, cuts)
        _check_from_within(path, content)
    finally:
        reader_module._BLOCK_BYTES = before  # type: ignore[misc]
    read_start(path)
    read_last(path)
    read_tail(path)


def _check_following(path: Path, content: bytes, cuts: Sequence[int]) -> None:
    path.write_bytes(b"")
    reader = JournalReader(path)
    found: list[Record] = []
    try:
        for begin, end in zip((0, *sorted(cuts)), (*sorted(cuts), len(content)), strict=True):
            with path.open("ab") as file:
                file.write(content[begin:end])
            found += reader
            assert (found, reader.bad_lines, reader.offset) == expected(content[:end])
    finally:
        reader.close()


def _check_from_within(path: Path, content: bytes) -> None:
    """A drain that goes on from the cursor reads what a reader would have read from there on."""
    whole = JournalReader(path)
    try:
        while whole.next() is not None:
            rest = JournalReader(path, whole.offset)
            try:
                assert list(rest) == expected(content)[0][_number_before(content, whole.offset) :]
            finally:
                rest.close()
    finally:
        whole.close()


def _number_before(content: bytes, offset: int) -> int:
    return len(expected(content[:offset])[0])
