"""``TrackingClient`` against the service: every call, every field of its answers, and each error that is documented."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.backends.rest import store
from mlops_integrations.cli.arguments import main
from mlops_integrations.entities import Metric, MetricClause, Param, ParamClause, RunStatus, RunTag, SourceType
from mlops_integrations.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    NotFoundError,
    NotSupportedByServer,
    ServerError,
    UnreachableError,
)
from oracle_gateway import PLATFORM, WORKSPACE, Answer, Gateway, Seen
from real_mlflow import MlflowServer

from .conftest import API_KEY_ID


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FIRST_PAUSE_SECONDS", 0.0)


def test_experiments(client: mlops.TrackingClient, gateway: Gateway, tmp_path: Path) -> None:
    """Made, found by id and by name, listed by the search: there is no list."""
    made = client.create_experiment("损失", artifact_location=str(tmp_path), tags={"team": "vision", "empty": ""})
    by_id, by_name = client.get_experiment(made), client.get_experiment_by_name("损失")
    assert by_id == by_name
    assert (by_id.name, by_id.lifecycle_stage) == ("损失", "active")
    assert set(by_id.tags) == {RunTag("team", "vision"), RunTag("empty", "")}
    assert by_id.creation_time is not None
    assert by_id.last_update_time is not None
    assert by_id.artifact_location is not None
    assert made in [experiment.experiment_id for experiment in client.list_experiments()]
    assert [seen.call for seen in gateway.seen][-1] == "experiments/search"
    with pytest.raises(AlreadyExistsError) as caught:
        client.create_experiment("损失")
    assert (caught.value.status, caught.value.code) == (409, "NotAuthorizedOrResourceAlreadyExists")


def test_a_run_with_all_its_fields(client: mlops.TrackingClient, experiment: str, gateway: Gateway) -> None:
    """What the service has no field for is kept as a tag; the user is one, for ``user_id`` is not to be sent."""
    run = client.create_run(
        experiment,
        "baseline",
        start_time=1_500_000_000_000,
        user_id="ann",
        tags={"stage": "dev"},
        source_type=SourceType.PROJECT,
        source_name="train.py",
        source_version="abc",
        entry_point_name="main",
    )
    assert set(gateway.calls("runs/create")[0].body) == {"experiment_id", "run_name", "start_time", "tags"}
    got = client.get_run(run.info.run_id)
    assert got.info == run.info
    info = got.info
    assert (info.name, info.status, info.start_time) == ("baseline", RunStatus.RUNNING, 1_500_000_000_000)
    assert (info.user_id, info.source_name, info.source_version) == ("ann", "train.py", "abc")
    assert (info.source_type, info.entry_point_name) == (SourceType.PROJECT, "main")
    assert info.artifact_uri is not None
    assert (info.lifecycle_stage, info.experiment_id, info.end_time) == ("active", experiment, None)
    changed = client.update_run(run.info.run_id, "KILLED", 1_500_000_001_000, "renamed")
    assert (changed.status, changed.end_time, changed.name) == (RunStatus.KILLED, 1_500_000_001_000, "renamed")
    for status in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED"):
        assert client.update_run(run.info.run_id, status).status == RunStatus(status)


def test_metrics_params_and_tags(client: mlops.TrackingClient, experiment: str, gateway: Gateway) -> None:
    """Every field of ``log-metric`` goes and comes back; so do parameters and tags, also empty ones, or many."""
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "loss", 0.1, timestamp=1_500_000_000_000, step=-(2**63))
    (seen,) = gateway.calls("runs/log-metric", 200)
    fields = {"run_id": run_id, "key": "loss", "value": 0.1, "timestamp": 1_500_000_000_000, "step": -(2**63)}
    assert seen.body == fields
    client.log_metric(run_id, "loss", 1e308, timestamp=1_500_000_000_001)
    assert list(client.get_metric_history(run_id, "loss")) == [
        Metric("loss", 0.1, 1_500_000_000_000, -(2**63)),
        Metric("loss", 1e308, 1_500_000_000_001, 0),
    ]
    assert client.get_metric(run_id, "loss") == Metric("loss", 1e308, 1_500_000_000_001, 0)
    client.log_param(run_id, "lr", 0.1)
    client.log_param(run_id, "nothing", "")
    client.set_tag(run_id, "stage", "dev")
    client.set_tag(run_id, "nothing", "")
    assert (client.get_param(run_id, "lr").value, client.get_param(run_id, "nothing").value) == ("0.1", "")
    client.log_batch(
        run_id,
        [Metric("many", float(step), 1_000 + step, step) for step in range(1_500)],
        [Param(f"p{number}", "x") for number in range(150)],
        [RunTag(f"t{number}", "y") for number in range(150)],
    )
    assert [metric.value for metric in client.get_metric_history(run_id, "many")] == list(range(1_500))
    data = client.get_run(run_id).data
    assert len(data.params) == 152
    assert {RunTag("stage", "dev"), RunTag("nothing", ""), RunTag("t149", "y")} <= set(data.tags)
    with pytest.raises(NotFoundError, match="has no metric"):
        client.get_metric(run_id, "nothing")
    assert list(client.get_metric_history(run_id, "nothing")) == []


@pytest.mark.parametrize("where", ["body", "header", "both"])
def test_pages(client: mlops.TrackingClient, experiment: str, gateway: Gateway, where: str) -> None:
    """The next one's token stands in the body or in ``opc-next-page``, and goes back as ``page_token``."""
    runs = {client.create_run(experiment).info.run_id for _ in range(5)}
    run_id = next(iter(runs))
    client.log_batch(run_id, [Metric("m", float(step), step, step) for step in range(7)])
    gateway.page_size, gateway.page_by = 2, where
    assert [metric.step for metric in client.get_metric_history(run_id, "m")] == list(range(7))
    history = gateway.calls("metrics/get-history", 200)
    assert [set(seen.query) for seen in history[:2]] == [
        {"run_id", "metric_key", "max_results"},
        {"run_id", "metric_key", "max_results", "page_token"},
    ]
    assert len(history) == 4
    assert {run.info.run_id for run in client.search_runs([experiment])} == runs
    assert experiment in {found.experiment_id for found in client.list_experiments()}
    assert [len(gateway.calls(call, 200)) >= 3 for call in ("runs/search", "experiments/search")] == [True, True]


def test_a_page_that_names_itself(client: mlops.TrackingClient, gateway: Gateway) -> None:
    """Is an error, no endless loop."""
    gateway.fault = lambda _seen, _do: Answer(200, {"metrics": []}, {"opc-next-page": "again"})
    with pytest.raises(ServerError, match="again and again"):
        list(client.get_metric_history("run", "m"))


def test_searching(client: mlops.TrackingClient, experiment: str) -> None:
    """By typed conditions and by the service's own language."""
    ids = []
    for number in range(3):
        ids.append(client.create_run(experiment).info.run_id)
        client.log_metric(ids[-1], "val/loss", number)
        client.log_param(ids[-1], "opt", "sgd" if number else "adam")

    def found(where: Any, **more: Any) -> list[str]:
        return [run.info.run_id for run in client.search_runs([experiment], where, **more)]

    assert found(MetricClause("val/loss", ">", 1)) == [ids[2]]
    assert set(found((ParamClause("opt", "==", "sgd"), MetricClause("val/loss", "<=", 1)))) == {ids[1]}
    assert found("metrics.`val/loss` < 1") == [ids[0]]
    assert found((), order_by=["metrics.`val/loss` DESC"]) == ids[::-1]


def test_artifacts(client: mlops.TrackingClient, experiment: str, server: MlflowServer, tmp_path: Path) -> None:
    """Are listed; that they can't be read over this service is said."""
    run = client.create_run(experiment)
    with mlops.start_run(tracking_uri=server.uri, resume=run.info.run_id, uploader="thread") as other:
        (tmp_path / "f.bin").write_bytes(b"12345")
        other.log_artifact(tmp_path / "f.bin", "a/b")
    assert other.finish(timeout=30)
    assert [(file.path, file.is_dir) for file in client.list_artifacts(run.info.run_id)] == [("a", True)]
    assert [(file.path, file.file_size) for file in client.list_artifacts(run.info.run_id, "a/b")] == [("a/b/f.bin", 5)]
    with pytest.raises(NotSupportedByServer, match="has no call that gives files"):
        client.download_artifact(run.info.run_id, "a/b/f.bin", tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_nan(client: mlops.TrackingClient, gateway: Gateway, value: float) -> None:
    """What the service's numbers can't say is not sent."""
    client.list_experiments()
    before = len(gateway.seen)
    with pytest.raises(NotSupportedByServer, match="numbers only"):
        client.log_metric("run", "m", value)
    with pytest.raises(NotSupportedByServer, match="numbers only"):
        client.log_batch("run", [Metric("m", 1.0, 1, 1), Metric("m", value, 1, 1)])
    assert len(gateway.seen) == before


def test_headers(
    client: mlops.TrackingClient, experiment: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry token for each write and for nothing else; a name for each request; others by MLOPS_HEADERS."""
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "m", 1)
    client.log_metric(run_id, "m", 1)
    list(client.get_metric_history(run_id, "m"))
    list(client.search_runs([experiment]))
    tokens = [seen.token for seen in gateway.seen]
    writes = [seen.call in {"experiments/create", "runs/create", "runs/log-metric"} for seen in gateway.seen]
    assert writes == [token is not None for token in tokens]
    given = [token for token in tokens if token is not None]
    assert len(set(given)) == len(given)
    assert len({seen.headers["opc-request-id"] for seen in gateway.seen}) == len(gateway.seen)
    assert all("dh-user-principal" not in seen.headers for seen in gateway.seen)
    monkeypatch.setenv("MLOPS_HEADERS", '{"dh-user-principal": "c29tZWJvZHk="}')
    mlops.TrackingClient(gateway.uri).get_run(run_id)
    assert gateway.seen[-1].headers["dh-user-principal"] == "c29tZWJvZHk="


def test_what_the_answers_say_of_themselves(client: mlops.TrackingClient, experiment: str, gateway: Gateway) -> None:
    """The request's name and the etag of the last one; the etag of a run changes with the run."""
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "m", 1)
    assert client.last_answer is not None
    assert client.last_answer.request_id == gateway.seen[-1].request_id
    assert client.last_answer.etag is not None
    first, again = client.get_run(run.info.run_id), client.get_run(run.info.run_id)
    assert first.etag == again.etag
    assert first.etag is not None
    client.log_metric(run.info.run_id, "other", 1)
    assert client.get_run(run.info.run_id).etag not in {first.etag, None}
    assert client.get_experiment(experiment).etag is not None


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "InvalidParameter", ServerError),
        (401, "NotAuthenticated", AccessDeniedError),
        (403, "NotAllowed", AccessDeniedError),
        (404, "NotAuthorizedOrNotFound", NotFoundError),
        (404, "NotFound", NotFoundError),
        (409, "Conflict", AlreadyExistsError),
        (409, "IncorrectState", UnreachableError),
        (429, "TooManyRequests", UnreachableError),
        (500, "InternalServerError", UnreachableError),
        (418, "Unknown", ServerError),
    ],
)
@pytest.mark.parametrize("call", ["metrics/get-history", "runs/log-metric"])
def test_errors(
    client: mlops.TrackingClient, gateway: Gateway, call: str, status: int, code: str, error: type[ServerError]
) -> None:
    """Each has the service's code, its message and its name for the request, in its fields and in its text."""
    gateway.fault = lambda _seen, _do: Answer.error(status, code, "for a reason")
    asked: Callable[[], object] = lambda: client.log_metric("run", "m", 1)  # noqa: E731
    if call == "metrics/get-history":
        asked = lambda: list(client.get_metric_history("run", "m"))  # noqa: E731
    with pytest.raises(error) as caught:
        asked()
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.code) == (status, code)
    assert caught.value.request_id == gateway.seen[-1].request_id
    # A history that is not there may be that of a metric, or of a run: that is asked.
    last = gateway.seen[-1].call
    assert last == ("runs/get" if status == 404 and call == "metrics/get-history" else call)
    assert f"{last}: {code}: for a reason" in str(caught.value)
    assert caught.value.request_id in str(caught.value)


def test_a_write_is_tried_again_by_its_token(client: mlops.TrackingClient, experiment: str, gateway: Gateway) -> None:
    """Also the creation of a run, which without a token could make two."""
    lost: list[Seen] = []

    def lose(seen: Seen, do: Callable[[], Answer]) -> Answer | None:
        if len(lost) < 2:
            lost.append(seen)
            do()
            return None if len(lost) == 1 else Answer.error(500, "InternalServerError")
        return do()

    gateway.fault = lose
    run = client.create_run(experiment, "once")
    assert [found.info.run_id for found in client.search_runs([experiment])] == [run.info.run_id]
    assert len({seen.token for seen in gateway.calls("runs/create")}) == 1


def test_where_it_is(gateway: Gateway, client: mlops.TrackingClient) -> None:
    """By its address, with and without ``/mlops``, or by region; names of any characters are one segment each."""
    assert client.dialect == "oracle-aidp"
    for uri in (f"{gateway.uri}/mlops", gateway.by_region(), gateway.by_region(auth="api_key", profile="DEFAULT")):
        list(mlops.TrackingClient(uri).list_experiments())
    assert {seen.path.rpartition("/mlops/")[0] for seen in gateway.seen} == {gateway.uri[len(gateway.endpoint) :]}
    assert {seen.key_id for seen in gateway.seen} == {API_KEY_ID}
    assert "/" in PLATFORM
    assert "/" in WORKSPACE
    with pytest.raises(ValueError, match="names no platform"):
        list(mlops.TrackingClient("http://host:5000", dialect="oracle-aidp").list_experiments())


def test_a_gateway_before_it(server: MlflowServer, keys: Any) -> None:
    """Prefix and version of the API are what the URI says."""
    other = Gateway(server.uri, {API_KEY_ID: keys.private.public_key()}, prefix="/api/20270101")
    try:
        list(mlops.TrackingClient(other.uri).list_experiments())
        list(mlops.TrackingClient(other.by_region(api_version="20270101", prefix="api")).list_experiments())
        with pytest.raises(NotFoundError, match="not there, or these credentials may not see it"):
            list(mlops.TrackingClient(other.by_region()).list_experiments())
    finally:
        other.close()


def test_doctor_asks_nothing_else(client: mlops.TrackingClient, gateway: Gateway) -> None:
    """What the service tells of itself is its time."""
    about = client.about()
    assert about.clock is not None
    assert about.version is None
    assert about.limits.finite
    assert [seen.call for seen in gateway.seen] == ["experiments/search"]


def test_doctor_writes_when_told_to(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    """What it writes is documented as well."""
    assert main(["doctor", gateway.uri, "--write"]) == 0
    told = capsys.readouterr().out
    assert "by Oracle's configuration" in told
    assert "oracle-aidp" in told
    assert "1,000 metrics in" in told
