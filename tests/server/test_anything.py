"""Any metrics, parameters and tags go in: what comes back is equal, or was refused, counted and said."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlops_integrations as mlops
from mlops_integrations.journal import cursor
from real_mlflow import MlflowServer, comparable

NAMES = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    st.text("abcXYZ_-. /:损é", min_size=1, max_size=12),
    st.sampled_from(["a", "train/loss", "k" * 251, "损失", "a//b", "..", " "]),
)
NUMBERS = st.one_of(st.floats(), st.integers(-(2**70), 2**70))
STEPS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.one_of(st.text(max_size=30), st.sampled_from(["", "x" * 8_001, "a\nb", "\x00", "\ud800"]))


def refused(directory: Path) -> list[dict[str, Any]]:
    """What the server did not take."""
    path = directory / "refused.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line] if path.exists() else []


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    metrics=st.lists(st.tuples(NAMES, NUMBERS, STEPS), max_size=20),
    params=st.dictionaries(NAMES, TEXTS, max_size=8),
    tags=st.dictionaries(NAMES, TEXTS, max_size=8),
)
def test_equal_or_refused(
    server: MlflowServer, metrics: list[tuple[str, float, int]], params: dict[str, str], tags: dict[str, str]
) -> None:
    """Nothing else happens to any of it."""
    root = tempfile.mkdtemp()
    with mlops.start_run(tracking_uri=server.uri, uploader="thread", directory=root) as run:
        for number, (key, value, step) in enumerate(metrics):
            run.log_metric(key, value, step=step, timestamp=1_000_000 + number)
        run.log_params(params)
        run.set_tags(tags)
    assert run.finish(timeout=60)

    kept = server.client.get_run(run.run_id)
    aside = refused(run.directory)
    (state,) = cursor.load_all(run.directory)
    assert sum(state.refused.values()) == len(aside)

    def named(kind: str) -> set[str]:
        return {entry[kind]["key"] for entry in aside if kind in entry}

    expected = {
        (key, comparable(float(value)), 1_000_000 + number, step)
        for number, (key, value, step) in enumerate(metrics)
        if key not in named("metric")
    }
    there = {
        (metric.key, comparable(metric.value), metric.timestamp, metric.step)
        for key in kept.data.metrics
        for metric in server.client.get_metric_history(run.run_id, key)
    }
    assert there == expected
    lost = run._recorder._losses
    assert lost == {}
    texts = {key: spelled(value)[:6_000] for key, value in params.items() if key not in named("param")}
    assert {key: value for key, value in kept.data.params.items() if key in params} == texts
    tags_there = {key: value for key, value in kept.data.tags.items() if key in tags}
    assert tags_there == {key: spelled(value)[:8_000] for key, value in tags.items() if key not in named("tag")}


def spelled(text: str) -> str:
    """As it is kept: half surrogate pairs are spelled out."""
    return text.encode(errors="backslashreplace").decode()


def test_the_words_for_what_is_not_finite(server: MlflowServer) -> None:
    """NaN comes back as NaN, infinities as the largest floats that an SQL store keeps."""
    with mlops.start_run(tracking_uri=server.uri, uploader="thread") as run:
        for step, value in enumerate((math.nan, math.inf, -math.inf)):
            run.log_metric("a", value, step=step)
    assert run.finish(timeout=30)
    values = [value for _, _, _, value in sorted(server.points(run.run_id), key=lambda point: point[1])]
    assert values == ["NaN", comparable(math.inf), comparable(-math.inf)]
