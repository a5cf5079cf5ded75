"""Every record survives its way through a line of the journal, and no damaged line is taken for a record."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from mlops_integrations.journal import records
from mlops_integrations.journal.records import (
    Artifact,
    BadLineError,
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
    parse,
)
from mlops_integrations.recording import values

INT64 = st.integers(-(2**63), 2**63 - 1)
ANY_TEXT = st.text(st.characters())
"""Half surrogate pairs included."""
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MAYBE_TEXT = st.none() | TEXT
TIME = st.integers(0, 2**53)
IDENTITY = st.builds(Identity, TEXT, MAYBE_TEXT, st.none() | INT64, INT64, MAYBE_TEXT)
VALUE = st.floats().map(records.spell)
TEXTS = st.dictionaries(TEXT, TEXT)
RECORD = st.one_of(
    st.builds(Header, INT64, TEXT, IDENTITY, TIME, TEXT),
    st.builds(RunSpec, TEXT, TEXT, TIME, *[MAYBE_TEXT] * 8, source_type=TEXT),
    st.builds(Metrics, TIME, st.lists(st.tuples(TEXT, VALUE, INT64))),
    st.builds(Params, TIME, TEXTS),
    st.builds(Tags, TIME, TEXTS),
    st.builds(Artifact, TIME, TEXT, TEXT, INT64),
    st.builds(Losses, TIME, st.dictionaries(TEXT, INT64)),
    st.builds(End, TIME, TEXT, MAYBE_TEXT, st.booleans(), INT64),
)


@given(TIME, INT64, st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False)))
def test_points_are_read_as_metrics(time: int, step: int, points: dict[str, float]) -> None:
    """What is quickest to write is read as what everybody knows."""
    assert Metrics(time, [(key, value, step) for key, value in points.items()]) == parse(
        frame(Points(time, step, points))[:-1]
    )


@given(RECORD)
def test_round_trip(record: Record) -> None:
    """What is framed is one line, and parses to the same record."""
    line = frame(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert record == parse(line[:-1])


@given(st.lists(st.tuples(ANY_TEXT, st.floats(), INT64), min_size=1), ANY_TEXT)
def test_any_key_and_any_float(items: list[tuple[str, float, int]], text: str) -> None:
    """Whatever text and float a user hands in can be kept once it is spelled."""
    metrics = values.well_formed(Metrics(1, [(key, records.spell(value), step) for key, value, step in items]))
    tags = values.well_formed(Tags(1, {text: text}))
    assert metrics == parse(frame(metrics)[:-1])
    assert tags == parse(frame(tags)[:-1])
    assert [(records.spell(value), step) for _, value, step in items] == [item[1:] for item in metrics.values]


@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "NaN"), (float("inf"), "Infinity"), (-float("inf"), "-Infinity")]
)
def test_words_for_what_is_not_finite(value: float, word: str) -> None:
    """JSON has no number for these: they are kept as the words that servers take."""
    assert word == records.spell(value)
    assert word in records.NOT_FINITE


def test_half_of_a_surrogate_pair_is_no_record() -> None:
    """Text that is no Unicode raises before anything is written, and its keeper spells it out."""
    record = Metrics(1, [("loss\ud800", 1.0, 0)])
    with pytest.raises(UnicodeEncodeError):
        frame(record)
    assert Metrics(1, [("loss\\ud800", 1.0, 0)]) == values.well_formed(record)


def test_a_line_is_a_checksum_and_json() -> None:
    """Ordinary tools read the journal: ``cut -c10-`` leaves JSON with the record's type."""
    line = frame(Metrics(5, [("потеря", 0.5, 3)])).decode()
    assert json.loads(line[9:]) == {"type": "metrics", "time": 5, "values": [["потеря", 0.5, 3]]}


@given(st.binary(max_size=200))
def test_other_bytes_are_no_record(line: bytes) -> None:
    """Bytes that nobody framed are refused, whatever they are."""
    with pytest.raises(BadLineError):
        parse(line)


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"invented","time":1}',
        b'{"type":"metrics","time":1,"values":[["a",1.0]]}',
        b'{"type":"metrics","time":"x","values":[]}',
        b'{"type":"tags","time":1,"values":{"a":"\xff"}}',
        b'{"time":1}',
        b"[]",
        b"",
        b'{"type":"tags","time":1,"more":' + b"[" * 50_000 + b"]" * 50_000 + b',"values":{}}',
    ],
)
def test_right_checksum_wrong_content(body: bytes) -> None:
    """A line of a type unknown here, or that is no record, is a bad line; no other error escapes."""
    line = b"%08x %b" % (records.crc32(body), body)
    with pytest.raises(BadLineError):
        parse(line)


def test_fields_of_a_later_version_are_passed_over() -> None:
    """A record with a field that this version does not know is still that record."""
    body = b'{"type":"tags","time":1,"values":{"a":"b"},"later":[1,{"x":null}]}'
    assert Tags(1, {"a": "b"}) == parse(b"%08x %b" % (records.crc32(body), body))
