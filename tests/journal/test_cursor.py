"""The cursor: replaced as a whole, harmless when it is garbage, watched cheaply."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from mlops_integrations.journal import cursor, files
from mlops_integrations.journal.cursor import Cursor, CursorView, Trouble, cursor_path
from mlops_integrations.journal.ending import Ending

SERVER = "http://host:5000"
FULL = Cursor(
    SERVER,
    {"journal-0001.jsonl": 123},
    experiment_id="1",
    run_id="abc",
    url=f"{SERVER}/#/experiments/1/runs/abc",
    intent=1,
    ambiguous=True,
    parent_set=True,
    points=5,
    refused={"имя": 2},
    shortened=1,
    bad_lines=1,
    status="FINISHED",
    reason="SIGTERM",
    status_time=2,
    trouble=Trouble("away", 3, stopped=True),
)
SEALED = files.seal(msgspec.json.encode(FULL))


def test_round_trip(tmp_path: Path) -> None:
    """What is saved is what is loaded, durable or not."""
    path = cursor_path(tmp_path, SERVER)
    for durable in (False, True):
        cursor.save(path, FULL, durable=durable)
        assert cursor.load(path) == FULL
    assert [path] == list(tmp_path.iterdir())


def test_one_cursor_a_destination(tmp_path: Path) -> None:
    """Destinations don't share a file; the one saved last comes last."""
    first, second = "http://host:5000", "http://host:5000/prefix"
    for number, destination in enumerate((first, second)):
        path = cursor_path(tmp_path, destination)
        cursor.save(path, Cursor(destination))
        os.utime(path, (number, number))
    assert [first, second] == [found.destination for found in cursor.load_all(tmp_path)]


def test_missing(tmp_path: Path) -> None:
    """A destination without a file has no cursor."""
    assert cursor.load(cursor_path(tmp_path, SERVER)) is None
    assert cursor.load_all(tmp_path) == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00" * 100,
        b"null",
        b"[]",
        b"{}",
        b'{"destination": 1}',
        b'{"destination": "\xff"}',
        b'{"destination": "a", "positions": {"\xff": 1}}',
        b'{"destination": "a", "later": ' + b"[" * 100_000,
        msgspec.json.encode(FULL)[:-5],
    ],
    ids=["empty", "zeros", "null", "list", "object", "type", "no text", "no text inside", "nested", "torn"],
)
def test_garbage(tmp_path: Path, garbage: bytes) -> None:
    """A cursor that can't be read is none: delivery starts again, it does not fail."""
    path = cursor_path(tmp_path, SERVER)
    for content in (garbage, files.seal(garbage)):
        path.write_bytes(content)
        assert cursor.load(path) is None
        assert cursor.load_all(tmp_path) == []
        assert CursorView(tmp_path, SERVER).now() is None


@given(st.integers(0, len(SEALED) - 1), st.integers(0, 7))
def test_damaged(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    """Whichever bit of it is damaged, it is no cursor: a damaged position would be believed."""
    damaged = bytearray(SEALED)
    damaged[position] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(damaged)
    assert cursor.load(path) is None


def test_fields_of_a_later_version(tmp_path: Path) -> None:
    """A field not known here does no harm."""
    path = cursor_path(tmp_path, SERVER)
    path.write_bytes(files.seal(b'{"destination":"a","later":{"x":[1]},"points":3}'))
    assert Cursor("a", points=3) == cursor.load(path)


def test_view_notices_changes(tmp_path: Path) -> None:
    """Whoever looks sees the cursor as it is now: none yet, each replacement, even within one tick of the clock."""
    view = CursorView(tmp_path, SERVER)
    assert view.now() is None
    path = cursor_path(tmp_path, SERVER)
    for points in range(50):
        cursor.save(path, Cursor(SERVER, points=points))
        os.utime(path, (1.0, 1.0))
        assert Cursor(SERVER, points=points) == view.now()
        assert view.now() is view.now()


def test_view_keeps_what_it_saw(tmp_path: Path) -> None:
    """Garbage in the place of a cursor does not take back what was known."""
    view = CursorView(tmp_path, SERVER)
    path = cursor_path(tmp_path, SERVER)
    cursor.save(path, FULL)
    assert view.now() == FULL
    path.write_bytes(b"{")
    assert view.now() == FULL


def test_view_of_no_destination(tmp_path: Path) -> None:
    """A run without a server has no cursor."""
    assert CursorView(tmp_path, None).now() is None


@pytest.mark.parametrize(
    ("sizes", "ended", "covered"),
    [
        ({}, None, True),
        ({"journal-0001.jsonl": 123}, None, True),
        ({"journal-0001.jsonl": 124}, None, False),
        ({"journal-0001.jsonl": 123, "journal-0002.jsonl": 1}, None, False),
        ({"journal-0001.jsonl": 123}, Ending("FINISHED", "SIGTERM", 2), True),
        ({"journal-0001.jsonl": 123}, Ending("FAILED", "SIGTERM", 2), False),
        ({"journal-0001.jsonl": 123}, Ending("FINISHED", None, 2), False),
        ({"journal-0001.jsonl": 123}, Ending("FINISHED", "SIGTERM", 3), False),
    ],
)
def test_covers(sizes: dict[str, int], ended: Ending | None, covered: bool) -> None:
    """Delivered is what lies before the cursor, and the status only if it is just this one."""
    assert covered is FULL.covers(sizes, ended)


def test_stopped() -> None:
    """Trouble that passes is no stop."""
    assert FULL.stopped
    assert not Cursor(SERVER, trouble=Trouble("away", 3)).stopped
    assert not Cursor(SERVER).stopped
