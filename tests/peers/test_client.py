"""The client on servers of all ages: the 14 endpoints of the 2018 document, or a clear error where one is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.entities import Metric, MetricClause, ParamClause, RunStatus, SourceType
from mlops_integrations.errors import AlreadyExistsError, NotFoundError, NotSupportedByServer, ServerError
from peer_servers import PeerServer


def test_experiments(peer: PeerServer, client: mlops.TrackingClient, tmp_path: Path) -> None:
    """Create Experiment, Get Experiment, List Experiments."""
    location = f"file://{tmp_path}" if peer.peer.version >= "0.4" else None
    made = client.create_experiment("experiments", artifact_location=location)
    found = client.get_experiment(made)
    assert (found.experiment_id, found.name) == (made, "experiments")
    if location is not None:
        assert found.artifact_location == location
    assert client.get_experiment_by_name("experiments").experiment_id == made
    assert {"Default", "experiments"} <= {experiment.name for experiment in client.list_experiments()}
    with pytest.raises(AlreadyExistsError if peer.peer.is_typed else ServerError):
        client.create_experiment("experiments")
    with pytest.raises(NotFoundError if peer.peer.is_typed else ServerError):
        client.get_experiment(987654)
    with pytest.raises(NotFoundError):
        client.get_experiment_by_name("there is none of this name")


def test_an_experiments_runs(peer: PeerServer, client: mlops.TrackingClient, experiment: str) -> None:
    """Get Experiment tells the runs with the preview API; later ones don't, but for file stores of 1.x."""
    run_id = client.create_run(experiment).info.run_id
    runs = client.get_experiment(experiment).runs
    assert runs is None or [run.run_id for run in runs] == [run_id]
    assert runs is not None or peer.peer.dialect == "mlflow"


def test_a_run_with_all_its_fields(peer: PeerServer, client: mlops.TrackingClient, experiment: str) -> None:
    """Create Run and Get Run: every field of the document."""
    made = client.create_run(
        experiment,
        "baseline",
        start_time=1_500_000_000_000,
        user_id="ann",
        source_type="PROJECT",
        source_name="git://x",
        source_version="abc123",
        entry_point_name="main",
    )
    info = client.get_run(made.info.run_id).info
    assert (info.run_id, info.experiment_id) == (made.info.run_id, experiment)
    assert (info.user_id, info.start_time, info.end_time) == ("ann", 1_500_000_000_000, None)
    assert (info.source_type, info.source_name) == (SourceType.PROJECT, "git://x")
    assert (info.source_version, info.entry_point_name) == ("abc123", "main")
    assert info.status is RunStatus.RUNNING
    assert info.artifact_uri
    if peer.peer.keeps_names:
        assert info.name == "baseline"


@pytest.mark.parametrize("kind", SourceType)
def test_source_types(client: mlops.TrackingClient, experiment: str, kind: SourceType) -> None:
    """Create Run, Get Run: each source type of the document."""
    run_id = client.create_run(experiment, source_type=kind).info.run_id
    assert client.get_run(run_id).info.source_type is kind


def test_statuses(peer: PeerServer, client: mlops.TrackingClient, experiment: str) -> None:
    """Update Run: each status of the document."""
    run_id = client.create_run(experiment).info.run_id
    for status in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"):
        info = client.update_run(run_id, status, 1_600_000_000_000)
        assert (str(info.status), info.end_time) == (status, 1_600_000_000_000)
        assert str(client.get_run(run_id).info.status) == status


def test_metrics_and_params(peer: PeerServer, client: mlops.TrackingClient, experiment: str) -> None:
    """Log Metric, Log Param, Get Metric, Get Param, Get Metric History."""
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "loss", 0.5, 1_000, 1)
    client.log_metric(run_id, "loss", 0.25, 2_000, 2)
    client.log_param(run_id, "lr", "0.1")
    steps = (1, 2) if peer.peer.keeps_steps else (None, None)
    history = [Metric("loss", 0.5, 1_000, steps[0]), Metric("loss", 0.25, 2_000, steps[1])]
    assert list(client.get_metric_history(run_id, "loss")) == history
    assert client.get_metric(run_id, "loss") == history[-1]
    assert client.get_param(run_id, "lr").value == "0.1"
    assert list(client.get_metric_history(run_id, "nothing")) == []
    for look in (client.get_metric, client.get_param):
        with pytest.raises(ServerError):
            look(run_id, "nothing")


def test_tags(peer: PeerServer, client: mlops.TrackingClient, experiment: str) -> None:
    """Set on runs from 0.6 on; before that, a clear error, and the experiment stays readable."""
    if not peer.peer.keeps_tags:
        with pytest.raises(NotSupportedByServer):
            client.create_run(experiment, tags={"k": "v"})
    else:
        run = client.create_run(experiment, tags={"k": "v"})
        client.set_tag(run.info.run_id, "k2", "v2")
        tags = {tag.key: tag.value for tag in client.get_run(run.info.run_id).data.tags}
        assert {"k": "v", "k2": "v2"}.items() <= tags.items()
    assert client.get_experiment(experiment).experiment_id == experiment


def test_searching(peer: PeerServer, client: mlops.TrackingClient, experiment: str) -> None:
    """Search Runs: both kinds of clauses, every comparator that a server takes; what it would ignore is an error."""
    ids = [client.create_run(experiment).info.run_id for _ in range(3)]
    for number, run_id in enumerate(ids):
        client.log_metric(run_id, "loss", number)
        client.log_param(run_id, "opt", "sgd" if number else "adam")

    def found(*where: Any) -> set[int]:
        return {ids.index(run.info.run_id) for run in client.search_runs([experiment], where)}

    if peer.peer.version == "0.2.1":
        with pytest.raises(ServerError):  # searching is a GET there, and fails under Python 3
            found(MetricClause("loss", "<", 1))
        return
    assert found() == {0, 1, 2}
    expected = {"<": {0}, "<=": {0, 1}, ">": {2}, ">=": {1, 2}, "==": {1}, "!=": {0, 2}}
    assert expected == {comparator: found(MetricClause("loss", comparator, 1)) for comparator in expected}
    assert (found(ParamClause("opt", "==", "adam")), found(ParamClause("opt", "!=", "adam"))) == ({0}, {1, 2})
    assert found(ParamClause("opt", "==", "sgd"), MetricClause("loss", ">", 1)) == {2}
    with pytest.raises(NotSupportedByServer):
        found(ParamClause("opt", "~", "s"))
    in_words: Callable[[], set[str]] = lambda: {  # noqa: E731
        run.info.run_id for run in client.search_runs([experiment], "metrics.loss > 1")
    }
    if peer.peer.dialect == "mlflow-preview":
        with pytest.raises(NotSupportedByServer, match="words"):
            in_words()
    else:
        assert in_words() == {ids[2]}


def test_artifacts(peer: PeerServer, client: mlops.TrackingClient, experiment: str, tmp_path: Path) -> None:
    """List Artifacts and Get Artifact."""
    run = client.create_run(experiment).info
    assert list(client.list_artifacts(run.run_id)) == []
    root = Path((run.artifact_uri or "").removeprefix("file://"))
    (root / "d").mkdir(parents=True)
    (root / "d" / "f.bin").write_bytes(bytes(range(256)))
    assert [(file.path, file.is_dir) for file in client.list_artifacts(run.run_id)] == [("d", True)]
    assert [(file.path, file.file_size) for file in client.list_artifacts(run.run_id, "d")] == [("d/f.bin", 256)]
    assert client.download_artifact(run.run_id, "d/f.bin", tmp_path / "down").read_bytes() == bytes(range(256))
