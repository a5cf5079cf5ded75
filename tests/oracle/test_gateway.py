"""The gateway is right: Oracle's own client gets on with it, our requests are the same, and the rest is refused."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from typing import Any

import oci
import pytest
import requests

import mlops_integrations as mlops
from mlops_integrations.backends.oracle.backend import OracleBackend
from mlops_integrations.backends.protocol import Batch
from mlops_integrations.config.oracle_uri import parse
from mlops_integrations.config.settings import access
from mlops_integrations.entities import Metric, Param, RunTag
from oracle_gateway import PLATFORM, WORKSPACE, Gateway, Seen
from oracle_schema import CALLS

from .conftest import FINGERPRINT, TENANCY, USER, Keys

sdk = pytest.importorskip("aidp_python_client.aidataplatform_dp", reason="Oracle's client is not installed")


@pytest.fixture
def theirs(gateway: Gateway, keys: Keys) -> Callable[..., Any]:
    """Calls Oracle's own client, which escapes the names in the path."""
    config = oci.config.from_file(str(keys.config))
    client = sdk.MLOpsClient(config, service_endpoint=gateway.endpoint, retry_strategy=oci.retry.NoneRetryStrategy())

    def call(operation: str, *arguments: Any, **more: Any) -> Any:
        ask = getattr(client, operation)
        return ask(PLATFORM, WORKSPACE, *arguments, enable_strict_url_encoding=True, **more)

    return call


@pytest.fixture
def signer(keys: Keys) -> oci.signer.Signer:
    """Signs requests that nobody should send."""
    return oci.signer.Signer(TENANCY, USER, FINGERPRINT, str(keys.directory / "key.pem"))


OWN = {"opc-client-info", "opc-client-retries", "user-agent", "accept", "accept-encoding", "connection"}
OF_EACH = {"date", "authorization", "opc-request-id", "opc-retry-token"}


def agree(ours: Seen, theirs: Seen) -> None:
    """Both have asked the same: verb, path, fields and values, and headers but for those about the client itself."""
    assert (ours.verb, ours.call, ours.path.split("?")[0]) == (theirs.verb, theirs.call, theirs.path.split("?")[0])
    assert (ours.query, ours.body) == (theirs.query, theirs.body)
    kept = {name: value for name, value in ours.headers.items() if name not in OWN | OF_EACH}
    expected = {name: value for name, value in theirs.headers.items() if name not in OWN | OF_EACH}
    assert set(kept) == set(expected)
    for volatile in ("content-length", "x-content-sha256"):  # spaces within the JSON text
        kept.pop(volatile, None)
        expected.pop(volatile, None)
    assert kept == expected
    assert ("opc-retry-token" in ours.headers) >= ("opc-retry-token" in theirs.headers)
    assert (
        ours.headers["authorization"].split('signature="')[0] == theirs.headers["authorization"].split('signature="')[0]
    )


def test_the_same_calls(gateway: Gateway, client: mlops.TrackingClient, theirs: Callable[..., Any]) -> None:
    """Each call of ours beside that of Oracle's client: what is sent agrees field by field, what comes back too."""
    models, tag = sdk.models, sdk.models.ExperimentRunTag

    def last() -> Seen:
        assert gateway.seen[-1].status == 200
        return gateway.seen[-1]

    def both(mine: Callable[[], Any], operation: str, *arguments: Any, **more: Any) -> tuple[Any, Any]:
        result = mine()
        own = last()
        if own.token is not None:
            more["opc_retry_token"] = "theirs-" + own.token[:32]
        answer = theirs(operation, *arguments, **more)
        agree(own, last())
        return result, answer

    made = client.create_experiment("side by side")
    run = client.create_run(made, "ours", start_time=1_500, tags={"a": "b"})
    run_id = run.info.run_id

    _, run_of_theirs = both(
        lambda: client.create_run(made, "ours", start_time=1_500, tags={"a": "b"}),
        "create_experiment_run",
        models.CreateExperimentRunDetails(
            experiment_id=made,
            run_name="ours",
            start_time=1_500,
            tags=[tag(key="mlflow.runName", value="ours"), tag(key="a", value="b")],
        ),
    )
    assert run_of_theirs.data.run.info.run_name == "ours"
    both(
        lambda: client.log_metric(run_id, "m", 0.5, timestamp=1_500, step=3),
        "log_experiment_run_metric",
        models.LogExperimentRunMetricDetails(run_id=run_id, key="m", value=0.5, timestamp=1_500, step=3),
    )
    both(
        lambda: client.log_param(run_id, "lr", "0.1"),
        "log_experiment_run_param",
        models.LogExperimentRunParamDetails(run_id=run_id, key="lr", value="0.1"),
    )
    both(
        lambda: client.set_tag(run_id, "stage", "dev"),
        "set_experiment_run_tag",
        models.SetExperimentRunTagDetails(run_id=run_id, key="stage", value="dev"),
    )
    metrics = [models.ExperimentRunMetric(key="m", value=1.5, timestamp=1_501, step=4)]
    both(
        lambda: client.log_batch(run_id, [Metric("m", 1.5, 1_501, 4)]),
        "log_experiment_run_batch",
        models.LogExperimentRunBatchDetails(run_id=run_id, metrics=metrics),
    )
    both(
        lambda: client.log_batch(run_id, params=[Param("p", "1")]),
        "log_experiment_run_batch",
        models.LogExperimentRunBatchDetails(run_id=run_id, params=[models.ExperimentRunParam(key="p", value="1")]),
    )
    both(
        lambda: client.log_batch(run_id, tags=[RunTag("t", "1")]),
        "log_experiment_run_batch",
        models.LogExperimentRunBatchDetails(run_id=run_id, tags=[models.ExperimentRunTag(key="t", value="1")]),
    )
    history, of_theirs = both(
        lambda: list(client.get_metric_history(run_id, "m")),
        "get_experiment_run_metric_history",
        run_id,
        "m",
        max_results=25_000,
    )
    assert history == [Metric(each.key, each.value, each.timestamp, each.step) for each in of_theirs.data.metrics]
    got, of_theirs = both(lambda: client.get_run(run_id), "get_experiment_run_by_id", run_id)
    info = of_theirs.data.run.info
    assert (got.info.run_id, got.info.name, got.info.start_time) == (info.run_id, info.run_name, info.start_time)
    assert {(tag.key, tag.value) for tag in got.data.tags} == {
        (tag.key, tag.value) for tag in of_theirs.data.run.data.tags
    }
    assert got.etag == of_theirs.headers["etag"]
    both(
        lambda: client.update_run(run_id, "FINISHED", 2_000, "renamed"),
        "update_experiment_run",
        models.UpdateExperimentRunDetails(run_id=run_id, status="FINISHED", end_time=2_000, run_name="renamed"),
    )
    both(
        lambda: list(client.search_runs([made], "metrics.m > 1", order_by=["metrics.m DESC"])),
        "list_experiment_runs",
        models.ListExperimentRunsDetails(
            experiment_ids=[made], filter="metrics.m > 1", order_by=["metrics.m DESC"], max_results=1_000
        ),
    )
    both(lambda: list(client.list_experiments()), "list_experiments", models.ListExperimentsDetails(max_results=1_000))
    both(lambda: client.get_experiment(made), "get_experiment_by_id", made)
    both(lambda: client.get_experiment_by_name("side by side"), "get_experiment_by_name", "side by side")
    both(lambda: list(client.list_artifacts(run_id)), "list_artifacts", run_id)
    assert {seen.call for seen in gateway.seen} == set(CALLS) - {"runs/delete"}
    mine = client.create_experiment("another", "/somewhere", {"a": "b"})
    own = last()
    theirs(
        "create_experiment",
        models.CreateExperimentDetails(
            name="a third", artifact_location="/somewhere", tags=[models.ExperimentTag(key="a", value="b")]
        ),
        opc_retry_token="t",
    )
    last().body["name"] = "another"
    agree(own, last())
    assert mine is not None


def test_the_pipelines_calls(gateway: Gateway, client: mlops.TrackingClient, theirs: Callable[..., Any]) -> None:
    """Those of the uploader, too: a batch, a status, a run that is deleted."""
    models = sdk.models
    run_id = client.create_run(client.create_experiment("pipeline side by side")).info.run_id
    address = parse(gateway.uri)
    assert address is not None
    backend = OracleBackend.at(address, access())

    assert backend.send(run_id, Batch([("m", 0.5, 1_500, 3)]), "a").ok
    ours = gateway.seen[-1]
    metrics = [models.ExperimentRunMetric(key="m", value=0.5, timestamp=1_500, step=3)]
    details = models.LogExperimentRunBatchDetails(run_id=run_id, metrics=metrics)
    theirs("log_experiment_run_batch", details, opc_retry_token="b")
    agree(ours, gateway.seen[-1])

    assert backend.update_run(run_id, "FAILED", 3_000, "c").ok
    ours = gateway.seen[-1]
    details = models.UpdateExperimentRunDetails(run_id=run_id, status="FAILED", end_time=3_000)
    theirs("update_experiment_run", details, opc_retry_token="d")
    agree(ours, gateway.seen[-1])

    assert backend.delete_run(run_id, "e").ok
    ours = gateway.seen[-1]
    theirs("delete_experiment_run", models.DeleteExperimentRunDetails(run_id=run_id), opc_retry_token="f")
    agree(ours, gateway.seen[-1])
    assert backend.find_runs("0", "mlops-none").value == []


def test_errors_as_oracles_client_reads_them(theirs: Callable[..., Any]) -> None:
    """Code, status, message and the request's name are where that client looks for them."""
    with pytest.raises(oci.exceptions.ServiceError) as caught:
        theirs("get_experiment_run_by_id", "0" * 32)
    assert (caught.value.status, caught.value.code) == (404, "NotAuthorizedOrNotFound")
    assert caught.value.request_id.startswith("service-")


def test_a_retry_token_as_oracles_client_sends_it(
    gateway: Gateway, client: mlops.TrackingClient, theirs: Callable[..., Any]
) -> None:
    """The same token is the same write, and the same answer."""
    made = client.create_experiment("token")
    details = sdk.models.CreateExperimentRunDetails(experiment_id=made, run_name="once")
    first, again = (theirs("create_experiment_run", details, opc_retry_token="x" * 64) for _ in range(2))
    assert first.data.run.info.run_id == again.data.run.info.run_id
    assert gateway.replays == 1
    assert len(list(client.search_runs([made]))) == 1


BODY = '{"run_id": "r", "key": "k", "value": 1.5, "timestamp": 1}'


@pytest.mark.parametrize(
    ("verb", "call", "body", "headers", "said"),
    [
        ("POST", "runs/log-metric", '{"run_id": "r"}', {}, "key is missing"),
        ("POST", "runs/log-metric", BODY.replace("1.5", "NaN"), {}, "NaN is no JSON"),
        ("POST", "runs/log-metric", BODY.replace("1.5", '"NaN"'), {}, "value is no number"),
        ("POST", "runs/log-metric", BODY.replace("}", ', "run_uuid": "r"}'), {}, "run_uuid is not documented"),
        ("POST", "runs/log-metric", BODY.replace("}", ', "step": 1.5}'), {}, "step is no int"),
        ("POST", "runs/log-metric", BODY, {"opc-retry-token": "x" * 65}, "length of opc-retry-token"),
        ("POST", "runs/log-metric", BODY, {"opc-request-id": "a b"}, "opc-request-id"),
        ("POST", "runs/log-metric", BODY, {"if-match": "v"}, "header if-match"),
        ("POST", "runs/search", "{}", {"opc-retry-token": "x"}, "header opc-retry-token"),
        ("POST", "runs/create", '{"user_id": "me"}', {}, "user_id is not documented"),
        ("POST", "runs/log-batch", '{"run_id": "r", "metrics": [{"model_id": "m"}]}', {}, "metrics.model_id"),
        ("POST", "experiments/list", "{}", {}, "no such call"),
        ("GET", "runs/create", None, {}, "no such call"),
        ("GET", "runs/get?run_uuid=r", None, {}, "run_uuid is not documented"),
        ("GET", "runs/get?run_id=r", None, {"opc-retry-token": "x"}, "header opc-retry-token"),
    ],
)
def test_what_is_not_documented_is_refused(
    gateway: Gateway, signer: Any, verb: str, call: str, body: str | None, headers: dict[str, str], said: str
) -> None:
    """And remembered, so that a test of ours that sends such a thing fails."""
    url = f"{gateway.uri}/mlops/api/2.0/mlflow/{call}"
    sent = {"Content-Type": "application/json", **headers} if body else headers
    reply = requests.request(verb, url, data=body, headers=sent, auth=signer, timeout=30)
    assert reply.status_code in {400, 404}
    assert set(reply.json()) == {"code", "message"}
    assert said in reply.json()["message"]
    assert [said in text for text in gateway.violations] == [True]
    gateway.violations.clear()


@pytest.mark.parametrize("seconds", [-301, 301])
def test_stale_dates_are_refused(gateway: Gateway, signer: Any, seconds: float) -> None:
    """Five minutes before and after."""
    url = f"{gateway.uri}/mlops/api/2.0/mlflow/runs/get?run_id=r"
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    reply = requests.get(url, headers={"date": date}, auth=signer, timeout=30)
    assert (reply.status_code, reply.json()["code"]) == (401, "NotAuthenticated")
    assert "five minutes" in reply.json()["message"]


def test_what_is_changed_after_signing_is_refused(gateway: Gateway, signer: Any) -> None:
    """Path, body, and a key that nobody knows."""
    session = requests.Session()
    url = f"{gateway.uri}/mlops/api/2.0/mlflow/runs/get"
    request = requests.Request("GET", url, params={"run_id": "r"}, auth=signer).prepare()
    request.url = (request.url or "").replace("run_id=r", "run_id=other")
    assert session.send(request, timeout=30).status_code == 401
    url = url.replace("/get", "/log-metric")
    posted = requests.Request("POST", url, data=BODY, headers={"Content-Type": "application/json"}, auth=signer)
    request = posted.prepare()
    request.body = BODY.replace("1.5", "2.5")
    assert session.send(request, timeout=30).status_code == 401
    gateway.keys.clear()
    assert session.send(posted.prepare(), timeout=30).status_code == 401
    assert requests.get(f"{gateway.uri}/mlops/api/2.0/mlflow/runs/get?run_id=r", timeout=30).status_code == 401
    gateway.violations.clear()
