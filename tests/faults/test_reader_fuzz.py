"""The reader under fire: any bytes, in any pieces, from any place.

It ends, returns no wrong record, keeps each whole one and counts the rest: ``reader_oracle`` says what that is.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

import reader_oracle
from mlops_integrations.journal.records import frame
from reader_oracle import LINES, RECORDS, WHOLE, check

SEEDS = int(os.environ.get("FAULT_SEEDS", "1"))

EDITS = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 4_000), st.integers(0, 7)),
    st.tuples(st.just("zeros"), st.integers(0, 4_000), st.integers(0, 400)),
    st.tuples(st.just("drop"), st.integers(0, 4_000), st.integers(0, 400)),
    st.tuples(st.just("line"), st.integers(0, 4_000), st.integers(0, len(LINES) - 1)),
    st.tuples(st.just("swap"), st.integers(0, 4_000), st.integers(0, 4_000)),
    st.tuples(st.just("newline"), st.integers(0, 4_000), st.just(0)),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write over."""
    return tmp_path_factory.mktemp("reader") / "journal-0001.jsonl"


def after(edits: list[tuple[str, int, int]]) -> bytes:
    """The small journal after these edits."""
    content = bytearray(WHOLE)
    for what, place, more in edits:
        at = place % (len(content) + 1)
        if what == "flip" and at < len(content):
            content[at] ^= 1 << more
        elif what == "zeros":
            content[at : at + more] = bytes(len(content[at : at + more]))
        elif what == "drop":
            del content[at : at + more]
        elif what == "line":
            content[at:at] = LINES[more]
        elif what == "swap":
            to = more % (len(content) + 1)
            piece = content[at : at + 64]
            content[at : at + 64] = content[to : to + 64]
            content[to : to + 64] = piece
        elif what == "newline":
            content[at:at] = b"\n"
    return bytes(content)


def test_truncated_at_every_byte_and_completed(place: Path) -> None:
    """A journal of every record type, cut at each byte: what is whole is read, the rest when it has come."""
    for cut in range(len(WHOLE) + 1):
        check(place, WHOLE[:cut])
        check(place, WHOLE, [cut])


def test_every_bit_flipped(place: Path) -> None:
    """Each single bit of it: no wrong record, every other line is kept, the damaged one counted."""
    for position in range(len(WHOLE)):
        for bit in range(8):
            damaged = bytearray(WHOLE)
            damaged[position] ^= 1 << bit
            check(place, bytes(damaged))
            found = reader_oracle.expected(bytes(damaged))[0]
            assert [record for record in found if record not in RECORDS] == []
            assert len(found) >= len(RECORDS) - 2


@settings(max_examples=max(300, SEEDS))
@given(
    st.lists(EDITS, max_size=8).map(after) | st.lists(st.sampled_from(LINES) | st.binary(max_size=80)).map(b"".join),
    st.lists(st.integers(0, 3_000), max_size=4),
    st.sampled_from([1, 2, 7, 64, 4_096, 256 * 1024]),
)
def test_edited_and_random_bytes(place: Path, content: bytes, cuts: list[int], block: int) -> None:
    """Edited at random, arriving in pieces, read in blocks of any size, and gone on with from every record."""
    check(place, content, [min(cut, len(content)) for cut in cuts], block)


@settings(max_examples=max(100, SEEDS // 4))
@given(st.binary(min_size=1, max_size=200))
def test_a_right_checksum_makes_no_record(place: Path, body: bytes) -> None:
    """A line with the checksum of what is no record is a bad line."""
    line = b"%08x %b\n" % (reader_oracle.crc32(body), body.replace(b"\n", b" "))
    check(place, WHOLE + line + frame(RECORDS[2]))


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_fuzzer(tmp_path: Path) -> None:
    """A fuzzer that sees which branches it takes finds nothing either; a failure prints the input that repeats it."""
    tests = Path(reader_oracle.__file__).parent
    command = [sys.executable, str(tests / "fuzz_reader.py"), f"-runs={max(10_000, 100 * SEEDS)}", "-seed=1"]
    path = os.pathsep.join([str(tests), *(entry for entry in sys.path if entry)])
    done = subprocess.run(
        [*command, "-max_len=4096"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert (0, True) == (done.returncode, "Done" in done.stderr), f"{' '.join(command)}\n{done.stderr[-3000:]}"
