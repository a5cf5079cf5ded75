"""The reader is total: any bytes in, it ends, and what it returns was written so."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Record,
    RunSpec,
    Tags,
    frame,
)

SMALL: list[Record] = [
    Header(1, "mlops-1", Identity("host", "boot", 4, 5, "6"), 7, "0.1.0"),
    RunSpec("mlops-1", "малый", 7),
    Metrics(8, [("loss", 0.5, 0), ("точность", "NaN", -1)]),
    Params(9, {"depth": "3"}),
    Tags(10, {"стадия": "dev"}),
    Metrics(11, [("loss", 0.25, 2**63 - 1)]),
    Artifact(12, "artifacts/веса.pt", "веса.pt", 5),
    Losses(12, {"disk: No space left on device": 2}),
    End(12, "FINISHED", None, provisional=False, points=3),
]
"""Of each type one, at least."""
LINES = [frame(record) for record in SMALL]
WHOLE = b"".join(LINES)
ENDS = [sum(map(len, LINES[: count + 1])) for count in range(len(LINES))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write over."""
    return tmp_path_factory.mktemp("reader") / "journal-0001.jsonl"


def read(path: Path, content: bytes) -> tuple[list[Record], JournalReader]:
    """All records of this content, and the reader at its end."""
    path.write_bytes(content)
    reader = JournalReader(path)
    found = list(reader)
    reader.close()
    return found, reader


def test_truncated_at_every_byte(place: Path) -> None:
    """Cut anywhere, the file gives exactly the whole records before the cut; completed, the same reader goes on."""
    for cut in range(len(WHOLE) + 1):
        place.write_bytes(WHOLE[:cut])
        whole = sum(end <= cut for end in ENDS)
        reader = JournalReader(place)
        assert SMALL[:whole] == list(reader)
        assert (ENDS[whole - 1] if whole else 0) == reader.offset
        with place.open("ab") as file:
            file.write(WHOLE[cut:])
        assert SMALL[whole:] == list(reader)
        assert (len(WHOLE), 0) == (reader.offset, reader.bad_lines)
        reader.close()


def test_goes_on_from_any_record(place: Path) -> None:
    """The offset after a record is where another reader begins with the next one."""
    place.write_bytes(WHOLE)
    first = JournalReader(place)
    for count in range(1, len(SMALL) + 1):
        assert SMALL[count - 1] == first.next()
        another = JournalReader(place, first.offset)
        assert SMALL[count:] == list(another)
        another.close()
    first.close()


def test_every_bit_flip(place: Path) -> None:
    """One damaged bit costs the line it is in (a lost newline: both of its lines), which is counted, and no other."""
    for position in range(len(WHOLE)):
        line = sum(end <= position for end in ENDS)
        is_newline = position == ENDS[line] - 1
        untouched = SMALL[:line] + SMALL[line + 1 + is_newline :]
        for bit in range(8):
            damaged = bytearray(WHOLE)
            damaged[position] ^= 1 << bit
            found, reader = read(place, bytes(damaged))
            if found == SMALL:
                # The same checksum, spelled otherwise.
                assert position < ENDS[line] - len(LINES[line]) + 8
                assert reader.bad_lines == 0
                continue
            assert untouched == found
            splits = damaged[position] == ord("\n")
            torn_end = is_newline and line == len(LINES) - 1
            first_of_a_split_is_empty = splits and position == ENDS[line] - len(LINES[line])
            assert (0 if torn_end else 1 + splits - first_of_a_split_is_empty) == reader.bad_lines


@settings(max_examples=300)
@given(st.lists(st.sampled_from(LINES) | st.binary(max_size=60), max_size=8).map(b"".join))
def test_random_bytes_end(place: Path, content: bytes) -> None:
    """Whatever the bytes are, reading ends, within the file, with nothing but records that were written."""
    found, reader = read(place, content)
    assert all(record in SMALL for record in found)
    assert 0 <= reader.offset <= len(content)
    read_start(place)
    read_last(place)
    read_tail(place)


@given(st.integers(1, len(WHOLE) - 1), st.data())
def test_hole_of_zeros(place: Path, start: int, data: st.DataObject) -> None:
    """Pages that never reached the device read as zeros: the records around them are kept, the hole is counted."""
    length = data.draw(st.integers(1, len(WHOLE) - start))
    found, reader = read(place, WHOLE[:start] + bytes(length) + WHOLE[start + length :])
    touched = [index for index, end in enumerate(ENDS) if start < end and end - len(LINES[index]) < start + length]
    after = touched[-1] + 1
    ends_torn = start + length >= ENDS[touched[-1]]
    rest = SMALL[after + ends_torn :] if ends_torn else SMALL[after:]
    assert SMALL[: touched[0]] + rest == found
    assert (0 if ends_torn and touched[-1] == len(LINES) - 1 else 1) == reader.bad_lines


def test_torn_line_then_a_record_on_a_line_of_its_own(place: Path) -> None:
    """What a short write left behind is one bad line; the record after it is read."""
    found, reader = read(place, WHOLE + LINES[2][:-9] + b"\n" + LINES[3] + LINES[4])
    assert [*SMALL, SMALL[3], SMALL[4]] == found
    assert reader.bad_lines == 1


def test_torn_end_waits_for_its_rest(place: Path) -> None:
    """A torn last line is no bad line: it may only not be there yet."""
    found, reader = read(place, WHOLE + LINES[2][:-1])
    assert found == SMALL
    assert (len(WHOLE), 0) == (reader.offset, reader.bad_lines)


def test_lines_longer_than_a_block(place: Path) -> None:
    """Records larger than what is read at once come whole."""
    large = Params(1, {f"key {number}": "x" * 100_000 for number in range(10)})
    found, reader = read(place, WHOLE + frame(large) + LINES[2])
    assert [*SMALL, large, SMALL[2]] == found
    assert reader.offset == place.stat().st_size


def test_endless_line_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged storage may hold a line without end: it is one bad line, and takes no memory."""
    monkeypatch.setattr(reader_module, "LONGEST_LINE_BYTES", 1_000_000)
    found, reader = read(place, WHOLE + b"x" * 5_000_000 + b"\n" + LINES[2])
    assert [*SMALL, SMALL[2]] == found
    assert (place.stat().st_size, 1) == (reader.offset, reader.bad_lines)


def test_later_format_is_refused(place: Path) -> None:
    """A file of format 2 is not misread: nothing of it is returned, and it is told."""
    line = frame(Header(2, "mlops-1", SMALL[0].writer, 7, "9.0"))  # type: ignore[union-attr]
    found, reader = read(place, line + LINES[1] + LINES[2])
    assert found == []
    assert (reader.too_new, reader.bad_lines) == (True, 0)
    assert read_start(place) == (None, None)


def test_start_last_and_tail(place: Path) -> None:
    """The first lines and the last record are found without reading what lies between."""
    place.write_bytes(WHOLE + b"torn")
    assert (SMALL[0], SMALL[1]) == read_start(place)
    assert SMALL[-1] == read_last(place)
    assert read_tail(place) == SMALL


def test_tail_of_a_large_file(place: Path) -> None:
    """Of a large file the tail holds only whole records, the last one included."""
    place.write_bytes(WHOLE + LINES[2] * 2_000 + LINES[-1])
    tail = read_tail(place)
    assert SMALL[-1] == tail[-1]
    assert all(record == SMALL[2] for record in tail[:-1])
    assert 1 < len(tail) < 2_000
    assert SMALL[-1] == read_last(place)


@pytest.mark.parametrize("content", [b"", b"\n", b"junk\n", LINES[0][:-1], LINES[2]])
def test_start_that_is_not_there(place: Path, content: bytes) -> None:
    """What is missing is None, not an error."""
    place.write_bytes(content)
    assert read_start(place) == (None, None)


def test_empty_file_has_no_last_record(place: Path) -> None:
    """Nor has one whose last line is damaged."""
    place.write_bytes(b"")
    assert read_last(place) is None
    place.write_bytes(WHOLE + b"junk\n")
    assert read_last(place) is None


def test_missing_file(tmp_path: Path) -> None:
    """A file that does not exist is the caller's to know."""
    with pytest.raises(FileNotFoundError):
        JournalReader(tmp_path / "journal-0001.jsonl")
