"""MLflow's dialect: what a reply means, which names it refuses, what goes over the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlops_integrations.backends.mlflow import MlflowBackend
from mlops_integrations.backends.protocol import Batch, Kind
from mlops_integrations.backends.rest.replies import outcome_of
from mlops_integrations.backends.transport import Reply, Transport
from mlops_integrations.config.settings import Access
from mlops_integrations.journal.records import RunSpec


def error(status: int, code: str | None) -> Reply:
    """A reply with an error code of MLflow's."""
    body = {"message": "sorry"} if code is None else {"error_code": code, "message": "sorry"}
    return Reply(status, body, json.dumps(body))


def other(status: int | None, *, sent: bool = True) -> Reply:
    """A reply that is not MLflow's: of a proxy, say, or none at all."""
    return Reply(status, None, "<html>sorry</html>", sent=sent)


@pytest.mark.parametrize(
    ("reply", "kind", "ambiguous"),
    [
        (Reply(200, {}, "{}"), Kind.OK, False),
        (Reply(201, {}, "{}"), Kind.OK, False),
        (Reply(200, {"a": 1}, "{}"), Kind.RETRY, True),
        (error(200, "TEMPORARILY_UNAVAILABLE"), Kind.RETRY, True),
        (error(200, "RESOURCE_DOES_NOT_EXIST"), Kind.RETRY, True),
        (other(200), Kind.RETRY, True),
        (other(204), Kind.RETRY, True),
        (other(301), Kind.RETRY, False),
        (other(302), Kind.RETRY, False),
        (other(401), Kind.DENIED, False),
        (other(403), Kind.DENIED, False),
        (other(404), Kind.RETRY, False),
        (other(405), Kind.RETRY, False),
        (other(408), Kind.RETRY, True),
        (other(413), Kind.REFUSED, False),
        (other(429), Kind.RETRY, False),
        (other(500), Kind.RETRY, True),
        (other(502), Kind.RETRY, True),
        (other(503), Kind.RETRY, True),
        (other(504), Kind.RETRY, True),
        (other(None), Kind.RETRY, True),
        (other(None, sent=False), Kind.RETRY, False),
        (error(400, "INVALID_PARAMETER_VALUE"), Kind.REFUSED, False),
        (error(400, "BAD_REQUEST"), Kind.RETRY, True),
        (error(404, "RESOURCE_DOES_NOT_EXIST"), Kind.REFUSED, False),
        (error(400, "RESOURCE_ALREADY_EXISTS"), Kind.REFUSED, False),
        # Old servers say everything with 500.
        (error(500, "INVALID_PARAMETER_VALUE"), Kind.REFUSED, False),
        (error(500, "RESOURCE_DOES_NOT_EXIST"), Kind.REFUSED, False),
        (error(500, "INTERNAL_ERROR"), Kind.RETRY, True),
        (error(500, None), Kind.RETRY, True),
        (error(429, "REQUEST_LIMIT_EXCEEDED"), Kind.RETRY, False),
        (error(429, "RESOURCE_EXHAUSTED"), Kind.RETRY, False),
        (error(503, "TEMPORARILY_UNAVAILABLE"), Kind.RETRY, True),
        (error(503, "SERVICE_UNDER_MAINTENANCE"), Kind.RETRY, True),
        (error(503, "WORKSPACE_TEMPORARILY_UNAVAILABLE"), Kind.RETRY, True),
        (error(504, "DEADLINE_EXCEEDED"), Kind.RETRY, True),
        (error(403, "PERMISSION_DENIED"), Kind.DENIED, False),
        (error(500, "PERMISSION_DENIED"), Kind.DENIED, False),
        (error(401, "UNAUTHENTICATED"), Kind.DENIED, False),
        (error(401, "CUSTOMER_UNAUTHORIZED"), Kind.DENIED, False),
        (error(403, None), Kind.DENIED, False),
        # Gateways have codes of their own.
        (error(401, "Unauthorized"), Kind.DENIED, False),
        (error(403, "AccessDenied"), Kind.DENIED, False),
        (error(408, "RequestTimeout"), Kind.RETRY, True),
        (error(425, "TooEarly"), Kind.RETRY, False),
        (error(429, "TooManyRequests"), Kind.RETRY, False),
        (error(502, "BadGateway"), Kind.RETRY, True),
        (error(503, "UNAVAILABLE"), Kind.RETRY, True),
        (error(504, "GatewayTimeout"), Kind.RETRY, True),
    ],
    ids=lambda value: f"{value.status} {(value.body or {}).get('error_code')}" if isinstance(value, Reply) else None,
)
def test_what_a_reply_means(reply: Reply, kind: Kind, ambiguous: bool) -> None:
    """Done, worth another try, denied or refused; and whether it may have been done all the same."""
    outcome = outcome_of(reply, "runs/log-batch")
    assert (kind, ambiguous) == (outcome.kind, outcome.ambiguous)
    assert outcome.ok is (outcome.message == "")


@pytest.mark.parametrize(
    ("call", "documented"),
    [
        ("experiments/create", {"experiment_id": "1"}),
        ("experiments/create", {"experimentId": "1"}),
        ("experiments/get", {"experiment": {}}),
        ("experiments/get-by-name", {"experiment": {}, "more": 1}),
        ("experiments/list", {"experiments": []}),
        ("experiments/list", {}),
        ("experiments/search", {"next_page_token": "a"}),
        ("experiments/search", {}),
        ("runs/create", {"run": {}}),
        ("runs/get", {"run": {}}),
        ("runs/update", {"run_info": {}}),
        ("runs/search", {"runs": []}),
        ("runs/search", {}),
        ("runs/log-batch", {}),
        ("runs/log-metric", {}),
        ("runs/log-parameter", {}),
        ("runs/set-tag", {}),
        ("runs/delete", {}),
        ("metrics/get-history", {"metrics": []}),
        ("metrics/get-history", {}),
        ("artifacts/list", {"root_uri": "a"}),
        ("artifacts/list", {"files": []}),
        ("params/get", {"parameter": {}}),
        ("metrics/get", {"metric": {}}),
    ],
)
def test_only_the_documented_reply_acknowledges(call: str, documented: dict[str, Any]) -> None:
    """What a gateway says, or another call would be answered with, does not; nor does anything with an error's code."""
    assert outcome_of(Reply(200, documented, "{}"), call).ok
    strange = [{"status": "maintenance"}, {**documented, "error_code": "TEMPORARILY_UNAVAILABLE"}, None]
    if call.endswith(("create", "get", "get-by-name", "update")):
        strange.append(dict.fromkeys(documented))
    for body in strange:
        outcome = outcome_of(Reply(200, body, "told"), call)
        assert (outcome.kind, outcome.ambiguous, outcome.unacknowledged) == (Kind.RETRY, True, True), body
        assert call in outcome.message
        assert "told" in outcome.message


@pytest.mark.parametrize("call", ["runs/log-batch", "runs/set-tag", "runs/update", "runs/create", "experiments/get"])
def test_an_empty_object_acknowledges_no_call_that_has_fields(call: str) -> None:
    """It does one that is documented to be empty."""
    assert outcome_of(Reply(200, {}, "{}"), call).ok is (call in {"runs/log-batch", "runs/set-tag"})


def test_outcome_carries_what_the_server_said() -> None:
    """Its code, its message, and how long it asks to wait."""
    refused = outcome_of(error(400, "INVALID_PARAMETER_VALUE"), "runs/log-batch")
    assert (refused.code, refused.message) == ("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE: sorry")
    assert outcome_of(Reply(503, None, "", retry_after=7.0), "runs/log-batch").retry_after == 7.0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, {"error_code": "\x1b[31mX\n", "message": "\x1b]0;title\x07 a\r\nb"}, ""),
        Reply(302, None, "", location="http://h/\x1b[31m\n"),
        Reply(400, {"error_code": "X", "message": {"a": "\x1b"}}, ""),
        Reply(400, {"error_code": "X"}, ""),
        Reply(500, {"error_code": 5, "message": None}, ""),
    ],
)
def test_messages_are_fit_for_a_terminal(reply: Reply) -> None:
    """Whatever a server puts into its errors."""
    assert outcome_of(reply, "runs/log-batch").message.isprintable()


def test_hints() -> None:
    """What a wrong address looks like, and what to do about it."""
    assert (
        "give that address as tracking URI"
        in outcome_of(Reply(302, None, "", location="https://h/"), "runs/get").message
    )
    assert "path prefix" in outcome_of(other(404), "runs/get").message
    assert "is this an MLflow server" in outcome_of(other(200), "runs/get").message


@pytest.fixture
def backend() -> MlflowBackend:
    """A backend that is asked nothing over the network."""
    return MlflowBackend("http://127.0.0.1:1/prefix/", Transport(Access()))


@pytest.mark.parametrize(
    "name", ["loss", "train/loss", "точность", "损失", "é", "a.b-c_d e", "gpu:0", "x" * 250, "a/.b", "..."[:1] + "b"]
)
def test_names_that_servers_take(backend: MlflowBackend, name: str) -> None:
    """Letters of any language, digits, and a few signs; no fault where some server might take it."""
    assert backend.name_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", "x" * 251, "a@b", "a[0]", "a=b", "a,b", "a#b", "🔥", "a\nb", "a\n", "a\x00", "loss\\ud800",
             "/a", "a/", "a//b", "./a", "../a", "a/../b", ".", "..", "/"],
)  # fmt: skip
def test_names_that_servers_refuse(backend: MlflowBackend, name: str) -> None:
    """One such name would take its whole request down: it is known beforehand."""
    fault = backend.name_fault(name)
    assert fault is not None
    assert name not in fault or len(name) < 3


def test_run_url(backend: MlflowBackend) -> None:
    """The page that a person opens, prefix included."""
    assert backend.run_url("1", "abc") == "http://127.0.0.1:1/prefix/#/experiments/1/runs/abc"


def test_batch_on_the_wire(server: Any) -> None:
    """Words for what is not finite are quoted, integers are whole, texts are UTF-8; MLflow parses no other."""
    server.answer(200)
    batch = Batch(
        [("потеря", 0.1, 1, 2**63 - 1), ("a", "NaN", 1, -(2**63)), ("b", "Infinity", 0, 0), ("c", "-Infinity", 0, 0)],
        [("p", 'x"\n')],
        [("t", "")],
    )
    assert MlflowBackend(f"{server.url}/prefix", Transport(Access())).send("r", batch).ok
    request = server.requests[0]
    assert request.path == "/prefix/api/2.0/mlflow/runs/log-batch"
    expected = {
        "run_id": "r",
        "metrics": [
            {"key": "потеря", "value": 0.1, "timestamp": 1, "step": 2**63 - 1},
            {"key": "a", "value": "NaN", "timestamp": 1, "step": -(2**63)},
            {"key": "b", "value": "Infinity", "timestamp": 0, "step": 0},
            {"key": "c", "value": "-Infinity", "timestamp": 0, "step": 0},
        ],
        "params": [{"key": "p", "value": 'x"\n'}],
        "tags": [{"key": "t", "value": ""}],
    }
    assert expected == json.loads(request.body, parse_constant=lambda word: pytest.fail(f"bare {word}"))


def test_created_run_has_what_the_teams_page_shows(server: Any) -> None:
    """Our uid to find it again, and the tags that MLflow's own client sets."""
    server.answer(200, b'{"run": {"info": {"run_id": "r", "experiment_id": "1"}}}')
    spec = RunSpec("mlops-1", "baseline", 5, user="ada", source_name="train.py", source_type="LOCAL")
    made = MlflowBackend(server.url, Transport(Access())).create_run("1", spec, "parent")
    assert made.value == "r"
    body = json.loads(server.requests[0].body)
    tags = {tag["key"]: tag["value"] for tag in body.pop("tags")}
    assert body == {"experiment_id": "1", "run_name": "baseline", "user_id": "ada", "start_time": 5}
    assert tags == {
        "mlops.uid": "mlops-1",
        "mlflow.runName": "baseline",
        "mlflow.user": "ada",
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.parentRunId": "parent",
    }


EXPERIMENT = b'{"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}}'
MISSING = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}'
EXISTS = b'{"error_code": "RESOURCE_ALREADY_EXISTS", "message": "yes"}'


@pytest.mark.parametrize(
    ("answers", "calls"),
    [
        ([(200, EXPERIMENT)], ["get-by-name"]),
        ([(404, MISSING), (200, b'{"experiment_id": "7"}')], ["get-by-name", "create"]),
        ([(404, MISSING), (400, EXISTS), (200, EXPERIMENT)], ["get-by-name", "create", "get-by-name"]),
    ],
    ids=["there", "made", "lost race"],
)
def test_experiment_by_name(server: Any, answers: list[tuple[int, bytes]], calls: list[str]) -> None:
    """Found, or made; that somebody else has made it meanwhile is no failure."""
    for status, body in answers:
        server.answer(status, body)
    assert MlflowBackend(server.url, Transport(Access())).open_experiment("цифры", None).value == "7"
    assert calls == [request.path.split("/")[-1].split("?")[0] for request in server.requests]


def test_deleted_experiment(server: Any) -> None:
    """It is refused, and the message tells what to do."""
    server.answer(200, EXPERIMENT.replace(b'"active"', b'"deleted"'))
    outcome = MlflowBackend(server.url, Transport(Access())).open_experiment("digits", None)
    assert (outcome.kind, outcome.code) == (Kind.REFUSED, "EXPERIMENT_DELETED")
    assert "restore it" in outcome.message


@pytest.mark.parametrize(
    "body", [b"{}", b'{"run": []}', b'{"run": {"info": {}}}', b'{"run": null}', b'{"run": {"info": null}}']
)
def test_json_that_is_not_mlflows(server: Any, body: bytes) -> None:
    """A JSON object of some other service is not taken for an answer, and no exception."""
    server.answer(200, body)
    outcome = MlflowBackend(server.url, Transport(Access())).get_run("r")
    assert (outcome.kind, outcome.value, outcome.ambiguous) == (Kind.RETRY, None, True)
    assert "is this an MLflow server" in outcome.message


@pytest.mark.parametrize("id_name", ["run_id", "run_uuid"])
def test_run_as_the_server_has_it(server: Any, id_name: str) -> None:
    """Its id by either name, whether it is deleted, whether anything was logged to it."""
    info = {id_name: "r", "experiment_id": 7, "status": "RUNNING", "lifecycle_stage": "deleted"}
    server.answer(200, json.dumps({"run": {"info": info, "data": {"metrics": [{"key": "a"}]}}}).encode())
    run = MlflowBackend(server.url, Transport(Access())).get_run("r").value
    assert run is not None
    assert (run.run_id, run.experiment_id, run.status, run.active, run.empty) == ("r", "7", "RUNNING", False, False)


def test_search_without_hits(server: Any) -> None:
    """MLflow leaves an empty list out."""
    server.answer(200)
    assert MlflowBackend(server.url, Transport(Access())).find_runs("1", "mlops-1").value == []


def test_halves_hold_the_whole() -> None:
    """Halving loses nothing and keeps the order."""
    batch = Batch([("m", float(n), 0, n) for n in range(5)], [("p", "1"), ("q", "2")], [("t", "1")])
    first, second = batch.halves()
    assert batch == Batch(
        [*first.metrics, *second.metrics], [*first.params, *second.params], [*first.tags, *second.tags]
    )
    assert len(batch) == len(first) + len(second)


@pytest.mark.parametrize("trouble", [b"<h1>Bad Gateway</h1>", b'{"error_code": "INTERNAL_ERROR"}'])
def test_what_kind_of_store_it_is(server: Any, trouble: bytes) -> None:
    """A server that does not tell for the moment is asked again; until then it is read back what it holds."""
    server.answer(502, trouble)
    server.answer(200, b'{"metrics": [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}]}')
    server.answer(200, b'{"store_type": "SqlStore"}')
    backend = MlflowBackend(server.url, Transport(Access(timeout=5.0)))
    batch = Batch([("loss", 0.5, 1, 0), ("loss", 0.25, 2, 1)])

    assert [("loss", 0.25, 2, 1)] == backend.missing("r", batch).value.metrics  # type: ignore[union-attr]
    assert batch == backend.missing("r", batch).value
    assert batch == backend.missing("r", batch).value
    assert 3 == len(server.requests)
