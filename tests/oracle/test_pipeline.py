"""Trainings through the gateway: all that was logged is there, once, whatever the service does meanwhile."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlops_integrations as mlops
from mlops_integrations.cli.arguments import main
from mlops_integrations.journal import cursor
from oracle_gateway import Gateway
from real_mlflow import MlflowServer, rest_runs

from .conftest import API_KEY_ID, Keys


def state_of(run: mlops.Run) -> cursor.Cursor:
    """What the uploader knows."""
    (state,) = cursor.load_all(run.directory)
    return state


def test_a_training(gateway: Gateway, server: MlflowServer, tmp_path: Any) -> None:
    """Metrics, parameters, tags and status are those that were logged; files stay in the run directory, counted."""
    (tmp_path / "model.txt").write_text("weights")
    with mlops.start_run(
        experiment_name="through the gateway",
        run_name="baseline",
        tracking_uri=gateway.uri,
        params={"lr": 0.1, "long": "x" * 7_000},
        tags={"team": "vision", "empty": ""},
    ) as run:
        for step in range(250):
            run.log_metrics({"train/loss": 1 / (step + 1), "acc": step}, step=step, timestamp=1_500_000_000_000 + step)
        run.log_metric("odd", math.nan)
        run.log_artifact(tmp_path / "model.txt")
    assert run.finish(timeout=60)

    (kept,) = rest_runs(server.uri, run.uid)
    assert kept.run_id == run.run_id
    assert (kept.name, kept.status) == ("baseline", "FINISHED")
    assert kept.params == {"lr": "0.1", "long": "x" * 6_000}
    assert {"team": "vision", "empty": ""}.items() <= kept.tags.items()
    assert kept.curve("train/loss") == [(step, 1 / (step + 1)) for step in range(250)]
    assert kept.curve("acc") == [(step, float(step)) for step in range(250)]
    assert "odd" not in kept.last
    assert len(gateway.points()) == 500
    state = state_of(run)
    assert state.dialect == "oracle-aidp"
    assert state.refused == {"not a finite number": 1}
    assert state.artifacts_kept == {"Oracle AI Data Platform has no call that takes files of a run": 1}
    assert (run.directory / "artifacts").exists()
    assert run.url is None


def test_recorded_first_and_delivered_later(
    gateway: Gateway, server: MlflowServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """``sync`` to the service names the run by its id, for a page of it is not known; a second one asks nothing."""
    with mlops.start_run(experiment_name="later", params={"lr": 0.1}) as run:
        for step in range(2_500):
            run.log_metric("loss", step, step=step)
    assert main(["sync", str(run.directory), "--to", gateway.uri]) == 0
    (kept,) = rest_runs(server.uri, run.uid)
    assert f"FINISHED, run {kept.run_id}" in capsys.readouterr().out
    assert kept.curve("loss") == [(step, float(step)) for step in range(2_500)]
    assert len(gateway.points()) == 2_500
    assert all(len(json.dumps(seen.body)) < 1_000_000 for seen in gateway.done)
    asked = len(gateway.seen)
    assert main(["sync", str(run.directory), "--to", gateway.uri]) == 0
    assert len(gateway.seen) == asked


@pytest.fixture
def service(server: MlflowServer, keys: Keys) -> Iterator[Gateway]:
    """One gateway for all examples."""
    running = Gateway(server.uri, {API_KEY_ID: keys.private.public_key()})
    yield running
    running.close()
    assert running.violations == []


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metrics=st.dictionaries(TEXT, st.floats(), max_size=4),
    params=st.dictionaries(TEXT, TEXT, max_size=4),
    tags=st.dictionaries(TEXT, TEXT, max_size=4),
)
def test_anything_comes_back_or_is_counted(
    service: Gateway, server: MlflowServer, metrics: dict[str, float], params: dict[str, str], tags: dict[str, str]
) -> None:
    """Whatever names, texts and numbers go in: equal afterwards, or set aside with a reason."""
    run = mlops.start_run(
        experiment_name="anything", tracking_uri=service.uri, params=params, tags=tags, uploader="thread"
    )
    run.log_metrics(metrics, step=1)
    assert run.finish(timeout=60)
    (kept,) = rest_runs(server.uri, run.uid)
    path = run.directory / "refused.jsonl"
    aside = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    refused = {kind: {entry[kind]["key"] for entry in aside if kind in entry} for kind in ("metric", "param", "tag")}
    assert all(entry["reason"] for entry in aside)
    assert sum(state_of(run).refused.values()) == len(aside)
    kinds = (("metric", metrics, kept.last), ("param", params, kept.params), ("tag", tags, kept.tags))
    for kind, logged, there in kinds:
        for key, value in logged.items():
            assert (key in there) != (key in refused[kind]), (kind, key)
            assert there.get(key, value) == value or key in refused[kind]
