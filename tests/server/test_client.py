"""``TrackingClient`` against a real server: what is written is what is read, by every call of the 2018 document."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.entities import (
    Metric,
    MetricClause,
    Param,
    ParamClause,
    RunStatus,
    RunTag,
    SourceType,
)
from mlops_integrations.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    NotFoundError,
    NotSupportedByServer,
    ServerError,
    UnreachableError,
)
from real_mlflow import MlflowServer, free_port


@pytest.fixture(scope="module")
def client(server: MlflowServer) -> mlops.TrackingClient:
    """A client of the server."""
    return mlops.TrackingClient(server.uri)


@pytest.fixture
def experiment(client: mlops.TrackingClient, request: pytest.FixtureRequest) -> str:
    """An experiment of the test's own."""
    return client.create_experiment(f"client {request.node.name}")


def test_experiments(client: mlops.TrackingClient, tmp_path: Path) -> None:
    """Made, found by id and by name, listed; a second one of the name is refused."""
    made = client.create_experiment("client 损失", artifact_location=str(tmp_path), tags={"team": "vision"})
    by_id, by_name = client.get_experiment(made), client.get_experiment_by_name("client 损失")
    assert by_id == by_name
    assert (by_id.name, by_id.lifecycle_stage, by_id.tags) == ("client 损失", "active", (RunTag("team", "vision"),))
    assert by_id.artifact_location is not None
    assert by_id.artifact_location.endswith(str(tmp_path))
    assert by_id.creation_time is not None
    assert made in [experiment.experiment_id for experiment in client.list_experiments()]
    assert client.get_experiment(int(made)) == by_id
    with pytest.raises(AlreadyExistsError) as caught:
        client.create_experiment("client 损失")
    assert (caught.value.code, caught.value.status) == ("RESOURCE_ALREADY_EXISTS", 400)


def test_many_experiments(own_server: MlflowServer) -> None:
    """Lists go on over the server's pages."""
    own_server.start()
    client = mlops.TrackingClient(own_server.uri)
    from mlops_integrations.backends.rest import store

    names = [f"e{number}" for number in range(7)]
    for name in names:
        client.create_experiment(name)
    page, store._PAGE = store._PAGE, 3
    try:
        assert {*names, "Default"} == {experiment.name for experiment in client.list_experiments()}
    finally:
        store._PAGE = page


def test_a_run_with_all_its_fields(client: mlops.TrackingClient, experiment: str) -> None:
    """Every field of the 2018 document comes back, though today's servers keep some as tags."""
    run = client.create_run(
        experiment,
        "baseline",
        start_time=1_500_000_000_000,
        user_id="ann",
        tags={"stage": "dev"},
        source_type="NOTEBOOK",
        source_name="train.ipynb",
        source_version="abc123",
        entry_point_name="main",
    )
    info = client.get_run(run.info.run_id).info
    assert (info.name, info.user_id, info.start_time, info.end_time) == ("baseline", "ann", 1_500_000_000_000, None)
    assert (info.source_type, info.source_name) == (SourceType.NOTEBOOK, "train.ipynb")
    assert (info.source_version, info.entry_point_name) == ("abc123", "main")
    assert (info.status, info.lifecycle_stage, info.experiment_id) == (RunStatus.RUNNING, "active", experiment)
    assert info.artifact_uri is not None
    assert RunTag("stage", "dev") in run.data.tags


@pytest.mark.parametrize("status", [status for status in RunStatus if status is not RunStatus.UNKNOWN])
def test_statuses(client: mlops.TrackingClient, status: RunStatus) -> None:
    """Each one that there is, SCHEDULED too."""
    run = client.create_run("0")
    updated = client.update_run(run.info.run_id, status.value, 1_600_000_000_000, "renamed")
    assert (updated.status, updated.end_time, updated.name) == (status, 1_600_000_000_000, "renamed")
    assert client.get_run(run.info.run_id).info.status is status


def test_a_runs_content(client: mlops.TrackingClient, experiment: str) -> None:
    """Metrics, parameters and tags, one by one and many at once."""
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "loss", 0.5, timestamp=1_000, step=3)
    client.log_metric(run_id, "loss", 0.25, timestamp=2_000, step=4)
    client.log_param(run_id, "lr", 0.1)
    client.set_tag(run_id, "k", "v")
    client.log_batch(
        run_id,
        [Metric("acc", step / 1_500, 10 + step, step) for step in range(1_500)],
        [Param(f"p{number}", "x" * number) for number in range(250)],
        [RunTag(f"t{number}", str(number)) for number in range(150)],
    )
    data = client.get_run(run_id).data
    assert client.get_metric(run_id, "loss") == Metric("loss", 0.25, 2_000, 4)
    assert client.get_param(run_id, "lr") == Param("lr", "0.1")
    assert [metric.value for metric in client.get_metric_history(run_id, "loss")] == [0.5, 0.25]
    assert len(list(client.get_metric_history(run_id, "acc"))) == 1_500
    assert len(data.params) == 251
    assert {"k", "t149"} <= {tag.key for tag in data.tags}


def test_numbers(client: mlops.TrackingClient, experiment: str) -> None:
    """Every float comes back as it went in; infinities as this store keeps them."""
    run_id = client.create_run(experiment).info.run_id
    values = [0.1, -0.0, 1e-320, 1.7976931348623157e308, 0.123456789012345678, 2.0**53 + 2]
    for step, value in enumerate(values):
        client.log_metric(run_id, "value", value, step=step)
    assert [metric.value for metric in client.get_metric_history(run_id, "value")] == values
    client.log_metric(run_id, "odd", math.nan, step=-(2**63))
    (odd,) = client.get_metric_history(run_id, "odd")
    assert math.isnan(odd.value)
    assert odd.step == -(2**63)


def test_history_in_flat_memory(client: mlops.TrackingClient, experiment: str) -> None:
    """A long history goes by page by page."""
    run_id = client.create_run(experiment).info.run_id
    client.log_batch(run_id, [Metric("m", float(step), step, step) for step in range(60_000)])
    tracemalloc.start()
    count = sum(1 for _ in client.get_metric_history(run_id, "m"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 60_000
    assert peak < 30e6, f"{peak:,} bytes for a page of 25,000"


def test_searching(client: mlops.TrackingClient, experiment: str) -> None:
    """Both kinds of conditions, every comparator, strings in the server's own language, order."""
    ids = {}
    for number in range(4):
        run_id = ids[number] = client.create_run(experiment).info.run_id
        client.log_metric(run_id, "val/loss", number)
        client.log_param(run_id, "opt", "sgd" if number % 2 else "it's")

    def found(*where: MetricClause | ParamClause | str) -> set[int]:
        conditions = where[0] if where and isinstance(where[0], str) else where
        runs = client.search_runs([experiment], conditions)  # type: ignore[arg-type]
        known = {run_id: number for number, run_id in ids.items()}
        return {known[run.info.run_id] for run in runs}

    expected = {"<": {0, 1}, "<=": {0, 1, 2}, ">": {3}, ">=": {2, 3}, "==": {2}, "!=": {0, 1, 3}}
    for comparator, numbers in expected.items():
        assert found(MetricClause("val/loss", comparator, 2)) == numbers
    assert found(ParamClause("opt", "==", "it's")) == {0, 2}
    assert found(ParamClause("opt", "!=", "it's"), MetricClause("val/loss", ">", 1.5)) == {3}
    assert found("metrics.`val/loss` = 3") == {3}
    assert found() == {0, 1, 2, 3}
    ordered = client.search_runs([experiment], order_by=["metrics.`val/loss` DESC"])
    assert [run.info.run_id for run in ordered] == [ids[number] for number in (3, 2, 1, 0)]
    assert set(ids.values()) <= {run.info.run_id for run in client.search_runs()}


def test_searches_that_can_not_be(client: mlops.TrackingClient, experiment: str) -> None:
    """Said before anything is asked, or by the server."""
    with pytest.raises(NotSupportedByServer, match="'~'"):
        list(client.search_runs([experiment], ParamClause("a", "~", "b")))
    with pytest.raises(ValueError, match="comparator '<>'"):
        MetricClause("a", "<>", 1)
    with pytest.raises(ValueError, match="nan"):
        list(client.search_runs([experiment], MetricClause("a", "<", math.nan)))
    with pytest.raises(ValueError, match="compared with a number, not with 'one'"):
        list(client.search_runs([experiment], MetricClause("a", "<", "one")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compared with a text, not with 1"):
        list(client.search_runs([experiment], ParamClause("a", "==", 1)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backtick"):
        list(client.search_runs([experiment], MetricClause("a`b", "<", 1)))
    with pytest.raises(ValueError, match="quotes"):
        list(client.search_runs([experiment], ParamClause("a", "==", "'\"")))
    with pytest.raises(ServerError, match=r"(?i)filter|clause|invalid"):
        list(client.search_runs([experiment], "nonsense ="))


def test_artifacts(client: mlops.TrackingClient, server: MlflowServer, tmp_path: Path) -> None:
    """Listed level by level, and downloaded block by block."""
    (tmp_path / "f.bin").write_bytes(bytes(range(256)) * 10_000)
    with mlops.start_run(tracking_uri=server.uri, uploader="thread") as run:
        run.log_artifact(tmp_path / "f.bin", "a/b")
    assert run.finish(timeout=30)
    run_id = run.run_id or ""
    assert [(file.path, file.is_dir) for file in client.list_artifacts(run_id)] == [("a", True)]
    assert [(file.path, file.file_size) for file in client.list_artifacts(run_id, "a/b")] == [("a/b/f.bin", 2_560_000)]
    got = client.download_artifact(run_id, "a/b/f.bin", tmp_path / "down")
    assert got == tmp_path / "down" / "a" / "b" / "f.bin"
    assert got.read_bytes() == (tmp_path / "f.bin").read_bytes()
    with pytest.raises(ServerError):
        client.download_artifact(run_id, "a/nothing", tmp_path / "down")
    assert [path.name for path in (tmp_path / "down" / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\\..\\x"])
def test_paths_that_escape(client: mlops.TrackingClient, tmp_path: Path, path: str) -> None:
    """Nothing is written outside the directory that was named."""
    with pytest.raises(ValueError, match="relative path"):
        client.download_artifact("0", path, tmp_path)


def test_a_link_that_escapes(client: mlops.TrackingClient, server: MlflowServer, tmp_path: Path) -> None:
    """Also not through a link that lies there."""
    (tmp_path / "f").write_text("f")
    with mlops.start_run(tracking_uri=server.uri, uploader="thread") as run:
        run.log_artifact(tmp_path / "f", "out")
    assert run.finish(timeout=30)
    (tmp_path / "down").mkdir()
    (tmp_path / "down" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match="leads out"):
        client.download_artifact(run.run_id or "", "out/f", tmp_path / "down")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_not_there(client: mlops.TrackingClient, experiment: str) -> None:
    """By an error that says so, with the server's code; the history of an unknown metric is empty."""
    run_id = client.create_run(experiment).info.run_id
    for ask in (
        lambda: client.get_run("0" * 32),
        lambda: client.get_experiment("123456789"),
        lambda: client.get_experiment_by_name("nobody's"),
    ):
        with pytest.raises(NotFoundError) as caught:
            ask()
        assert caught.value.code == "RESOURCE_DOES_NOT_EXIST"
    for look in (client.get_param, client.get_metric):
        with pytest.raises(NotFoundError, match="has no"):
            look(run_id, "nothing")
    assert list(client.get_metric_history(run_id, "nothing")) == []


def test_what_the_server_refuses(client: mlops.TrackingClient, experiment: str) -> None:
    """With its own words."""
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "lr", 1)
    with pytest.raises(ServerError, match="lr") as caught:
        client.log_param(run_id, "lr", 2)
    assert caught.value.code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(ValueError, match="'DONE'"):
        client.update_run(run_id, "DONE")
    with pytest.raises(ValueError, match="UNKNOWN"):
        client.update_run(run_id, "UNKNOWN")


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, something else there, nothing named."""
    from mlops_integrations.backends.rest import store

    monkeypatch.setattr(store, "_FIRST_PAUSE_SECONDS", 0.0)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
        mlops.TrackingClient(f"http://127.0.0.1:{free_port()}").get_run("0")
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI"):
        mlops.TrackingClient()
    with pytest.raises(ValueError, match="dialect='klingon'"):
        mlops.TrackingClient("http://127.0.0.1:5000", dialect="klingon")
    assert issubclass(AccessDeniedError, mlops.errors.MLOpsError)
