"""A format once released stays readable for ever: files written by earlier versions, and what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from mlops_integrations.journal.reader import JournalReader, read_last, read_start

DATA = Path(__file__).parents[1] / "data"
JOURNALS = sorted(DATA.glob("journal-format-*.jsonl"))


def test_there_are_golden_files() -> None:
    """Every released format has its file."""
    assert [path.name for path in JOURNALS] == ["journal-format-1.jsonl"]


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_golden_file(path: Path) -> None:
    """Every record comes back as it was written; damage in the middle and at the end costs no other."""
    expected = json.loads(path.with_suffix(".expected.json").read_text("utf-8"))
    reader = JournalReader(path)
    found = [json.loads(msgspec.json.encode(record)) for record in reader]
    reader.close()
    # Fields that a later version adds have their defaults; those of the file's time are as they were.
    same_fields = [
        {name: record.get(name) for name in fields} for record, fields in zip(found, expected["records"], strict=True)
    ]
    assert expected["records"] == same_fields
    assert expected["bad_lines"] == reader.bad_lines
    assert expected["torn_bytes"] == path.stat().st_size - reader.offset


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_ends_of_a_golden_file(path: Path) -> None:
    """The first lines and the last whole record are found as well."""
    records = json.loads(path.with_suffix(".expected.json").read_text("utf-8"))["records"]
    header, spec = read_start(path)
    last = read_last(path)
    assert header is not None
    assert spec is not None
    assert last is not None
    assert (records[0]["writer"]["pid"], records[1]["name"]) == (header.writer.pid, spec.name)
    assert records[-1]["time"] == msgspec.to_builtins(last)["time"]
