"""MLflow's REST API under ``/api/2.0/mlflow``, as servers from 1.0 to 3.17 speak it.

A 200 of MLflow is no proof: a number that does not fit its protobuf type makes the server drop the rest of the
request in silence. So what is sent here holds only finite numbers or their quoted words, and integers of 64 bits.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import requests

from mlops_integrations.backends import artifact_roots
from mlops_integrations.backends.base import Batch, Kind, Limits, Outcome, ServerRun
from mlops_integrations.backends.http import Reply, Transport, printable
from mlops_integrations.journal.records import RunSpec, Value

T = TypeVar("T")

UID_TAG: Final = "mlops.uid"
"""The tag by which a run is found again when the reply to its creation was lost."""

_LIMITS: Final = Limits(
    metrics=1_000, params=100, tags=100, request_bytes=1_000_000, param_length=6_000, tag_length=8_000
)
_NAME_LENGTH: Final = 250
_NAME: Final = re.compile(r"[/\w.\- :]*")
_DENIED_CODES: Final = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_TRANSIENT_CODES: Final = frozenset(
    {
        "INTERNAL_ERROR",
        "TEMPORARILY_UNAVAILABLE",
        "SERVICE_UNDER_MAINTENANCE",
        "WORKSPACE_TEMPORARILY_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "REQUEST_LIMIT_EXCEEDED",
        "COULD_NOT_ACQUIRE_LOCK",
        "IO_ERROR",
        "ABORTED",
        "CANCELLED",
    }
)
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 502, 503, 504})
"""What a gateway says about the moment, whatever code of its own it adds. 500 is none of them: old servers say so
about wrong requests, too.
"""
_NOT_FOUND: Final = "RESOURCE_DOES_NOT_EXIST"


class _Metric(msgspec.Struct):
    key: str
    value: Value
    timestamp: int
    step: int


class _Text(msgspec.Struct):
    key: str
    value: str


class _LogBatch(msgspec.Struct, omit_defaults=True):
    run_id: str
    metrics: list[_Metric] = []
    params: list[_Text] = []
    tags: list[_Text] = []


class MlflowBackend:
    """One MLflow server."""

    limits = _LIMITS

    def __init__(self, tracking_uri: str, transport: Transport) -> None:
        self._uri = tracking_uri.rstrip("/")
        self._transport = transport
        self._artifact_roots: dict[str, str] = {}

    def open_experiment(self, name: str | None, experiment_id: str | None) -> Outcome[str]:
        """Get or create. A deleted experiment is refused; a creation lost to somebody else is none."""
        if experiment_id is not None:
            return self._experiment("get", {"experiment_id": experiment_id}, experiment_id)
        assert name is not None
        by_name = {"experiment_name": name}
        found = self._experiment("get-by-name", by_name, name)
        if found.code != _NOT_FOUND:
            return found
        made = self._post("experiments/create", {"name": name})
        if made.code == "RESOURCE_ALREADY_EXISTS":
            return self._experiment("get-by-name", by_name, name)
        return _take(made, f"experiment {printable(name)!r}", lambda body: str(body["experiment_id"]))

    def _experiment(self, call: str, query: dict[str, str], shown: str) -> Outcome[str]:
        what = f"experiment {printable(shown)!r}"
        found = _take(self._get(f"experiments/{call}", query), what, lambda body: dict(body["experiment"]))
        if found.ok and found.value is not None and found.value.get("lifecycle_stage") == "deleted":
            text = f"{what} is deleted on the server: restore it there, or name another"
            return Outcome(Kind.REFUSED, None, text, "EXPERIMENT_DELETED")
        return _take(found, "", lambda experiment: str(experiment["experiment_id"]))

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None) -> Outcome[str]:
        """Create with the tags that MLflow's own client sets, and ours."""
        tags = {
            UID_TAG: spec.uid,
            "mlflow.runName": spec.name,
            "mlflow.user": spec.user,
            "mlflow.source.name": spec.source_name,
            "mlflow.source.type": spec.source_type,
            "mlflow.parentRunId": parent_run_id,
        }
        given = [{"key": key, "value": value[: _LIMITS.tag_length]} for key, value in tags.items() if value is not None]
        body = {
            "experiment_id": experiment_id,
            "run_name": spec.name,
            "user_id": spec.user or "",
            "start_time": spec.start_time,
            "tags": given,
        }
        return _take(self._post("runs/create", body), "creating the run", lambda body: _run(body["run"]).run_id)

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """Search by our tag."""
        query = {"experiment_ids": [experiment_id], "filter": f"tags.`{UID_TAG}` = '{uid}'", "max_results": 100}
        found = self._post("runs/search", query)
        return _take(found, "looking for the run", lambda body: [_run(run) for run in body.get("runs", [])])

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run."""
        found = self._get("runs/get", {"run_id": run_id})
        return _take(found, f"run {printable(run_id)}", lambda body: _run(body["run"]))

    def send(self, run_id: str, batch: Batch) -> Outcome[None]:
        """One ``log-batch``, which takes tags as well as ``set-tag`` does."""
        body = _LogBatch(
            run_id,
            [_Metric(key, value, time, step) for key, value, time, step in batch.metrics],
            [_Text(key, value) for key, value in batch.params],
            [_Text(key, value) for key, value in batch.tags],
        )
        return self._post("runs/log-batch", body).bare()

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """To where the server says that the run's artifacts belong."""
        root = self._artifact_roots.get(run_id)
        if root is None:
            found = self._get("runs/get", {"run_id": run_id})
            asked = _take(found, f"run {printable(run_id)}", lambda body: str(body["run"]["info"]["artifact_uri"]))
            if not asked.ok or asked.value is None:
                return asked.bare()
            root = self._artifact_roots[run_id] = asked.value
        return artifact_roots.deliver(self._transport, self._uri, root, path, file, glance, outcome_of)

    def update_run(self, run_id: str, status: str, end_time: int | None) -> Outcome[None]:
        """``runs/update``."""
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_time is not None:
            body["end_time"] = end_time
        return self._post("runs/update", body).bare()

    def delete_run(self, run_id: str) -> Outcome[None]:
        """``runs/delete``."""
        return self._post("runs/delete", {"run_id": run_id}).bare()

    def name_fault(self, name: str) -> str | None:
        """MLflow's rules for names, as every version has them."""
        if len(name) > _NAME_LENGTH:
            return f"name of over {_NAME_LENGTH} characters"
        if not name or not _NAME.fullmatch(name):
            return "name with characters other than letters, digits, _ - . : / and space"
        normal = posixpath.normpath(name)
        if normal != name or normal == "." or name.startswith(("..", "/")):
            return "name that reads as a path: //, ./, ../ or / at an end"
        return None

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """The run's page."""
        return f"{self._uri}/#/experiments/{experiment_id}/runs/{run_id}"

    def _get(self, call: str, query: dict[str, str]) -> Outcome[dict[str, Any]]:
        return outcome_of(self._transport.get(f"{self._uri}/api/2.0/mlflow/{call}", query))

    def _post(self, call: str, body: object) -> Outcome[dict[str, Any]]:
        return outcome_of(self._transport.post(f"{self._uri}/api/2.0/mlflow/{call}", msgspec.json.encode(body)))


def outcome_of(reply: Reply) -> Outcome[dict[str, Any]]:
    """What a reply means: by the server's own error code first, since the status of old servers lies."""
    status, body = reply.status, reply.body
    if status is None:
        return Outcome(Kind.RETRY, None, reply.text, ambiguous=reply.sent)
    if requests.codes.ok <= status < requests.codes.multiple_choices:
        if body is not None:
            return Outcome(Kind.OK, body)
        return Outcome(Kind.RETRY, None, f"{status} without a JSON object: is this an MLflow server?", ambiguous=True)
    code = body.get("error_code") if body else None
    if isinstance(code, str) and code not in _TRANSIENT_CODES and status not in _TRANSIENT_STATUSES:
        denied = code in _DENIED_CODES or status in {requests.codes.unauthorized, requests.codes.forbidden}
        kind = Kind.DENIED if denied else Kind.REFUSED
        return Outcome(kind, None, f"{printable(code)}: {printable(str((body or {}).get('message', '')))}", code)
    text = f"HTTP {status}: {reply.text}" if reply.text else f"HTTP {status}"
    if status in {requests.codes.unauthorized, requests.codes.forbidden}:
        return Outcome(Kind.DENIED, None, text)
    if status == requests.codes.request_entity_too_large:
        return Outcome(Kind.REFUSED, None, text, "HTTP_413")
    if status < requests.codes.bad_request:
        text = f"HTTP {status}: redirected to {printable(reply.location or '?')}; give that address as tracking URI"
    elif status in {requests.codes.not_found, requests.codes.method_not_allowed}:
        text = f"HTTP {status}: no MLflow API at this address (is a path prefix missing?)"
    done = status >= requests.codes.internal_server_error or status == requests.codes.request_timeout
    known = code if isinstance(code, str) else None
    suspect = known == "INTERNAL_ERROR"
    return Outcome(Kind.RETRY, None, text, known, reply.retry_after, done, suspect)


def _take(outcome: Outcome[dict[str, Any]], what: str, extract: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    """The wanted part of an answer; a failure says what was asked for."""
    if not outcome.ok or outcome.value is None:
        message = f"{what}: {outcome.message}" if what else outcome.message
        return Outcome(outcome.kind, None, message, outcome.code, outcome.retry_after, outcome.ambiguous)
    try:
        return Outcome(Kind.OK, extract(outcome.value))
    except (KeyError, TypeError, AttributeError, ValueError):
        text = f"{what}: the answer is not MLflow's: is this an MLflow server?"
        return Outcome(Kind.RETRY, None, text, ambiguous=True)


def _run(run: dict[str, Any]) -> ServerRun:
    info, data = run["info"], run.get("data", {})
    return ServerRun(
        run_id=str(info.get("run_id") or info["run_uuid"]),
        experiment_id=str(info["experiment_id"]),
        status=str(info.get("status", "")),
        active=info.get("lifecycle_stage", "active") == "active",
        empty=not data.get("metrics") and not data.get("params"),
    )
