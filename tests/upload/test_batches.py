"""Chunks and requests: nothing lost, nothing too large, everything in order."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from mlops_integrations.backends.protocol import Batch, Limits
from mlops_integrations.journal.records import Artifact, End, Losses, Metrics, Params, Record, Tags
from mlops_integrations.upload.batches import Chunk, requests_of

LIMITS = Limits(metrics=10, params=4, tags=3, request_bytes=3_000, param_length=6_000, tag_length=8_000)
LARGE = Limits(metrics=1_000, params=100, tags=100, request_bytes=1_000_000, param_length=6_000, tag_length=8_000)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text('"\\\n/я', max_size=400)
VALUE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["NaN", "Infinity", "-Infinity"])
METRICS = st.builds(
    Metrics, st.integers(0, 2**53), st.lists(st.tuples(TEXT, VALUE, st.integers(-(2**63), 2**63 - 1)), max_size=25)
)
PARAMS = st.builds(Params, st.just(1), st.dictionaries(st.sampled_from("abcdefgh"), TEXT, max_size=6))
TAGS = st.builds(Tags, st.just(1), st.dictionaries(st.sampled_from("abcdefgh"), TEXT, max_size=6))
OTHER = st.sampled_from([Losses(1, {"a": 1}), End(1, "FINISHED")])


def filled(records: list[Record]) -> Chunk:
    """A chunk of all these records."""
    chunk = Chunk()
    for record in records:
        chunk.add(record)
    return chunk


def size_on_the_wire(batch: Batch) -> int:
    """Bytes of the request that MLflow's dialect makes of it."""
    body: dict[str, Any] = {
        "run_id": "r" * 32,
        "metrics": [dict(zip(("key", "value", "timestamp", "step"), item, strict=True)) for item in batch.metrics],
        "params": [{"key": key, "value": value} for key, value in batch.params],
        "tags": [{"key": key, "value": value} for key, value in batch.tags],
    }
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


@given(st.lists(METRICS | PARAMS | TAGS | OTHER, max_size=12))
def test_nothing_is_lost_and_all_is_within_limits(records: list[Record]) -> None:
    """Each metric is sent once, in order; of params the first value, of tags the last; no request is over a limit."""
    batches = list(requests_of(filled(records), LIMITS))
    metrics = [
        (key, value, record.time, step)
        for record in records
        if isinstance(record, Metrics)
        for key, value, step in record.values
    ]
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for record in records:
        if isinstance(record, Params):
            params = record.values | params
        elif isinstance(record, Tags):
            tags |= record.values
    assert metrics == [item for batch in batches for item in batch.metrics]
    assert params == dict(item for batch in batches for item in batch.params)
    assert tags == dict(item for batch in batches for item in batch.tags)
    assert len(metrics) + len(params) + len(tags) == sum(map(len, batches))
    for batch in batches:
        assert len(batch) > 0
        assert len(batch.metrics) <= LIMITS.metrics
        assert len(batch.params) <= LIMITS.params
        assert len(batch.tags) <= LIMITS.tags
        assert size_on_the_wire(batch) <= LIMITS.request_bytes or len(batch) == 1


def test_requests_are_as_large_as_they_may_be() -> None:
    """2,500 points are three requests, not more."""
    chunk = filled([Metrics(1, [("train/loss", 0.1, step) for step in range(2_500)])])
    assert [len(batch) for batch in requests_of(chunk, LARGE)] == [1_000, 1_000, 500]


def test_params_then_tags_then_metrics_each_apart() -> None:
    """A refused param must not take metrics with it."""
    chunk = filled([Metrics(1, [("m", 1.0, 0)]), Tags(1, {"t": "1"}), Params(1, {"p": "1"})])
    expected = [Batch(params=[("p", "1")]), Batch(tags=[("t", "1")]), Batch(metrics=[("m", 1.0, 1, 0)])]
    assert expected == list(requests_of(chunk, LARGE))


@pytest.mark.parametrize("character", ["x", '"', "\\", "\n", "\x00", "я", "🔥"])
def test_bytes_count_as_they_go_over_the_wire(character: str) -> None:
    """Escaped characters and those of several bytes are counted as what they become."""
    chunk = filled([Params(1, {f"p{number}": character * 6_000 for number in range(100)})])
    batches = list(requests_of(chunk, LARGE))
    assert sum(map(len, batches)) == 100
    assert max(map(size_on_the_wire, batches)) <= LARGE.request_bytes


def test_item_larger_than_a_request() -> None:
    """It goes alone: the server may judge."""
    chunk = filled([Tags(1, {"small": "x", "large": "x" * 10_000, "last": "x"})])
    assert [[key for key, _ in batch.tags] for batch in requests_of(chunk, LIMITS)] == [["small"], ["large"], ["last"]]


def test_param_given_again() -> None:
    """The same value is no news; another one is a conflict, and the first stands."""
    chunk = filled([Params(1, {"a": "1", "b": "1"}), Params(2, {"a": "2", "b": "1"}), Params(3, {"a": "3"})])
    assert chunk.params == {"a": "1", "b": "1"}
    assert chunk.conflicts == [("a", "2"), ("a", "3")]


def test_chunk_without_content() -> None:
    """Records that are not for the server fill no chunk; an artifact's does, so that the cursor passes it."""
    assert not filled([Losses(1, {"a": 1}), End(1, "FINISHED"), Metrics(1, [])])
    assert filled([Artifact(1, "f", "p", 1)])


def test_room() -> None:
    """Records go in whole, as many as fill the requests that are sent anyway; a large one goes into an empty chunk."""
    chunk = filled([Metrics(1, [("a", 1.0, step) for step in range(7)])])
    assert chunk.has_room(Metrics(1, [("a", 1.0, 0)] * 3), LIMITS)
    assert not chunk.has_room(Metrics(1, [("a", 1.0, 0)] * 4), LIMITS)
    assert chunk.has_room(Params(1, dict.fromkeys("abcdefgh", "")), LIMITS)
    assert chunk.has_room(End(1, "FINISHED"), LIMITS)
    assert Chunk().has_room(Metrics(1, [("a", 1.0, 0)] * 100), LIMITS)
    assert not chunk.full(LIMITS)
    chunk.add(Metrics(1, [("a", 1.0, 0)] * 3))
    assert chunk.full(LIMITS)
