"""Fuzzes the journal's reader.

``python tests/faults/harness/fuzz_reader.py -runs=1000000 -seed=1``, with libFuzzer's options. Half of the inputs are
bytes as they come; the other half are edits of a journal that holds every type of record, so that what lies behind the
checksum is reached, too. A failure prints the input, which as an argument repeats it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mlops_integrations"]):
    import mlops_integrations.journal.reader
    import mlops_integrations.journal.records  # noqa: F401

from zlib import crc32

from reader_oracle import LINES, WHOLE, check

_MOST_EDITS = 8


def edited(data: atheris.FuzzedDataProvider) -> bytes:
    """The journal after some edits: bits, holes, cuts, lines doubled and moved, lines with a checksum that is right."""
    content = bytearray(WHOLE)
    for _ in range(data.ConsumeIntInRange(0, _MOST_EDITS)):
        at = data.ConsumeIntInRange(0, len(content))
        length = data.ConsumeIntInRange(0, 64)
        match data.ConsumeIntInRange(0, 6):
            case 0 if at < len(content):
                content[at] ^= 1 << data.ConsumeIntInRange(0, 7)
            case 1:
                content[at : at + length] = bytes(min(length, len(content) - at))
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = data.ConsumeBytes(length)
            case 4:
                content[at:at] = LINES[data.ConsumeIntInRange(0, len(LINES) - 1)]
            case 5:
                body = data.ConsumeBytes(length)
                content += b"%08x %b\n" % (crc32(body), body)
            case 6:
                del content[at:]
            case _:
                pass
    return bytes(content)


def main() -> None:
    """Fuzz."""
    with tempfile.TemporaryDirectory(prefix="fuzz-reader-") as directory:
        path = Path(directory) / "journal-0001.jsonl"

        def one(raw: bytes) -> None:
            data = atheris.FuzzedDataProvider(raw)
            block = data.ConsumeIntInRange(1, 300)
            parts = [data.ConsumeIntInRange(0, 2_000) for _ in range(data.ConsumeIntInRange(0, 3))]
            content = edited(data) if data.ConsumeBool() else data.ConsumeBytes(4_096)
            check(path, content, [min(part, len(content)) for part in parts], block)

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
