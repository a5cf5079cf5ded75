"""A training's metrics, parameters, tags, files and status, on servers of all ages, read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from fault_proxy import FaultProxy, Handler
from mlops_integrations.journal import cursor
from peer_servers import PeerServer


def delivered(run: Any) -> cursor.Cursor:
    """What the uploader knows."""
    (state,) = cursor.load_all(run.directory)
    return state


def refused(run: Any) -> list[dict[str, Any]]:
    """What the server did not take."""
    path = run.directory / "refused.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_training(peer: PeerServer, client: mlops.TrackingClient, tmp_path: Path) -> None:
    """Everything that this release can keep is there; what it can't keep is counted, and stays in the run directory."""
    (tmp_path / "model.txt").write_text("weights")
    values = [1 / (step + 1) for step in range(30)]
    with mlops.start_run(
        experiment_name="pipeline",
        run_name="baseline",
        tracking_uri=peer.uri,
        uploader="thread",
        params={"lr": 0.1, "lines": "one\ntwo", "long": "x" * 200},
        tags={"team": "vision"},
    ) as run:
        for step, value in enumerate(values):
            run.log_metrics({"loss": value, "acc": step}, step=step, timestamp=1_500_000_000_000 + step)
        run.log_metric("odd", math.inf)
        run.log_artifact(tmp_path / "model.txt", "checkpoints")
    assert run.finish(timeout=60)

    kept = client.get_run(run.run_id or "")
    history = list(client.get_metric_history(run.run_id or "", "loss"))
    assert [(metric.timestamp - 1_500_000_000_000) for metric in history] == list(range(30))
    assert [metric.value for metric in history] == pytest.approx(values, rel=1e-6)
    assert {metric.step for metric in history} == (set(range(30)) if peer.peer.keeps_steps else {None})
    params = {param.key: param.value for param in kept.data.params}
    one_line = peer.peer.dialect != "mlflow"
    assert params == {"lr": "0.1", "lines": "one\\ntwo" if one_line else "one\ntwo", "long": "x" * 200}
    assert delivered(run).shortened == one_line
    tags = {tag.key: tag.value for tag in kept.data.tags}
    assert tags.get("team") == ("vision" if peer.peer.keeps_tags else None)
    tags_aside = [entry["tag"]["key"] for entry in refused(run) if "tag" in entry]  # 1.0 takes no infinity either
    assert tags_aside == ([] if peer.peer.keeps_tags else ["team"])
    assert str(kept.info.status) == "FINISHED"
    assert kept.info.end_time is not None
    assert delivered(run).dialect == peer.peer.dialect == client.dialect
    assert [file.path for file in client.list_artifacts(run.run_id or "", "checkpoints")] == ["checkpoints/model.txt"]


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_other_endings(peer: PeerServer, client: mlops.TrackingClient, status: str) -> None:
    """Each status arrives."""
    run = mlops.start_run(experiment_name="endings", tracking_uri=peer.uri, uploader="thread")
    run.log_metric("a", 1)
    run.finish(status, timeout=30)
    assert str(client.get_run(run.run_id or "").info.status) == status


def test_a_run_is_made_once(peer: PeerServer, client: mlops.TrackingClient) -> None:
    """Though the reply to its creation is lost: it is found again by our uid."""
    proxy, lost = FaultProxy(peer.uri), []

    def fault(handler: Handler, forward: Any) -> bool:
        if handler.call != "runs/create" or lost:
            return False
        lost.append(forward())
        handler.reset()
        return True

    proxy.fault = fault
    try:
        run = mlops.start_run(experiment_name="once", tracking_uri=proxy.uri, uploader="thread")
        run.log_metric("a", 1)
        assert run.finish(timeout=60)
    finally:
        proxy.close()
    assert len(lost) == 1
    experiment = client.get_experiment_by_name("once")
    runs = client.get_experiment(experiment.experiment_id).runs
    if runs is None:
        runs = tuple(found.info for found in client.search_runs([experiment.experiment_id]))
    assert [found.run_id for found in runs] == [run.run_id]


def test_a_value_is_kept_once(peer: PeerServer, client: mlops.TrackingClient) -> None:
    """Though replies are lost: stores that would keep a value twice are asked before it is sent again."""
    proxy, lost = FaultProxy(peer.uri), []

    def fault(handler: Handler, forward: Any) -> bool:
        if handler.call not in {"runs/log-metric", "runs/log-batch"} or len(lost) == 3:
            return False
        lost.append(forward())
        handler.reset()
        return True

    proxy.fault = fault
    try:
        run = mlops.start_run(experiment_name="kept once", tracking_uri=proxy.uri, uploader="thread")
        for step in range(10):
            run.log_metric("a", step, step=step, timestamp=1_000 + step)
        assert run.finish(timeout=60)
    finally:
        proxy.close()
    assert lost
    assert [metric.value for metric in client.get_metric_history(run.run_id or "", "a")] == list(range(10))


def test_names(peer: PeerServer, client: mlops.TrackingClient) -> None:
    """What this release refuses is set aside with its reason; everything else arrives, and reading still works."""
    names = ["train/loss", "a b", "x-y_z.1", "a:b", "a@b", "//", "k" * 251]
    with mlops.start_run(experiment_name="names", tracking_uri=peer.uri, uploader="thread") as run:
        for name in names:
            run.log_metric(name, 1.0)
    assert run.finish(timeout=60)
    there = {metric.key for metric in client.get_run(run.run_id or "").data.metrics}
    aside = {entry["metric"]["key"] for entry in refused(run)}
    assert there | aside == set(names)
    assert there.isdisjoint(aside)
    assert {"a b", "x-y_z.1"} <= there
    assert ("train/loss" in there) == peer.peer.takes_slashes
    assert {"a@b", "//", "k" * 251} <= aside


def test_fast_enough_to_watch(peer: PeerServer) -> None:
    """The run and its first point are there while the training goes on."""
    run = mlops.start_run(experiment_name="watch", tracking_uri=peer.uri, uploader="thread")
    run.log_metric("a", 1)
    assert run.wait(timeout=30) is not None
    assert run.flush(timeout=30)
    run.finish(timeout=30)
