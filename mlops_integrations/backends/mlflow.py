"""MLflow's REST API under ``/api/2.0/mlflow``, as servers from 1.0 to 3.17 speak it.

MLflow's 200 proves nothing: if a number does not fit its protobuf type, the server silently drops the rest of the
request. So requests hold only finite numbers, quoted words for NaN and infinities, and 64-bit integers.
"""

# ruff: noqa: ARG002 - the arguments are those of every dialect

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import requests

from mlops_integrations.backends.protocol import (
    MLFLOW_LIMITS,
    UID_TAG,
    Batch,
    Kind,
    Metric,
    Outcome,
    ServerRun,
    run_tags,
    uid_filter,
)
from mlops_integrations.backends.rest import artifacts
from mlops_integrations.backends.rest.replies import (
    NO_SUCH_CALL,
    comparable,
    experiment_id_of,
    outcome_of,
    rows_of,
    server_run,
    taken,
    updated,
    without_texts_of,
)
from mlops_integrations.backends.rest.store import RestStore
from mlops_integrations.backends.transport import Transport
from mlops_integrations.entities import Metric as MetricEntity
from mlops_integrations.entities import Param, RunTag
from mlops_integrations.journal.records import RunSpec, Value
from mlops_integrations.untrusted import one_line

_MOST_RUNS: Final = 50_000
_NAME_LENGTH: Final = 250
_NAME: Final = re.compile(r"[/\w.\- :]*")
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

    dialect = "mlflow"
    limits = MLFLOW_LIMITS
    notes = ()

    def __init__(self, tracking_uri: str, transport: Transport) -> None:
        self._uri = tracking_uri.rstrip("/")
        self._transport = transport
        self._artifact_roots: dict[str, str] = {}
        self._store_type: str | None = None

    def recognize(self, known: str | None) -> Outcome[str]:
        """Return the dialect, which is already known."""
        return Outcome(Kind.OK, self.dialect)

    def open_experiment(self, name: str | None, experiment_id: str | None, token: str = "") -> Outcome[str]:
        """Get or create. A deleted experiment is refused; if another client creates it first, that one is used."""
        if experiment_id is not None:
            return self._experiment("get", {"experiment_id": experiment_id}, experiment_id)
        assert name is not None
        by_name = {"experiment_name": name}
        found = self._experiment("get-by-name", by_name, name)
        if found.code == NO_SUCH_CALL:  # before 1.3
            found = self._experiment_listed(name)
        if found.code != _NOT_FOUND:
            return found
        made = self._post("experiments/create", {"name": name})
        if made.code == "RESOURCE_ALREADY_EXISTS":
            return self._experiment("get-by-name", by_name, name)
        return taken(made, f"experiment {one_line(name)!r}", lambda body: str(body["experiment_id"]))

    def _experiment_listed(self, name: str) -> Outcome[str]:
        listed = self._get("experiments/list", {})
        ids = taken(listed, "the list of experiments", lambda body: _ids_by_name(body))
        if not ids.ok or ids.value is None:
            return ids.failed()
        if name not in ids.value:
            return Outcome(Kind.REFUSED, None, "", _NOT_FOUND)
        return Outcome(Kind.OK, ids.value[name])

    def _experiment(self, call: str, query: dict[str, str], shown: str) -> Outcome[str]:
        return experiment_id_of(self._get(f"experiments/{call}", query), shown)

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None, token: str = "") -> Outcome[str]:
        """Create with the tags that MLflow's own client sets, and ours."""
        tags = run_tags(spec, parent_run_id)
        given = [{"key": key, "value": value[: MLFLOW_LIMITS.tag_length]} for key, value in tags.items()]
        body = {
            "experiment_id": experiment_id,
            "run_name": spec.name,
            "user_id": spec.user or "",
            "start_time": spec.start_time,
            "tags": given,
        }
        return taken(self._post("runs/create", body), "creating the run", lambda body: server_run(body["run"]).run_id)

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """Search by our uid tag."""
        query = {"experiment_ids": [experiment_id], "filter": uid_filter(uid), "max_results": 100}
        found = self._post("runs/search", query)
        return taken(found, "looking for the run", lambda body: [server_run(run) for run in body.get("runs", [])])

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run."""
        found = self._get("runs/get", {"run_id": run_id})
        return taken(found, f"run {one_line(run_id)}", lambda body: server_run(body["run"]))

    def send(self, run_id: str, batch: Batch, token: str = "") -> Outcome[None]:
        """Send one ``log-batch``, which handles tags as well as ``set-tag`` does."""
        body = _LogBatch(
            run_id,
            [_Metric(key, value, time, step) for key, value, time, step in batch.metrics],
            [_Text(key, value) for key, value in batch.params],
            [_Text(key, value) for key, value in batch.tags],
        )
        return self._post("runs/log-batch", body).bare()

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """SQL stores keep one row of a metric sent twice, file stores both; params and tags are kept once by all."""
        if everything and (batch.params or batch.tags):
            found = self._get("runs/get", {"run_id": run_id})
            left = taken(found, f"run {one_line(run_id)}", lambda body: without_texts_of(body["run"], batch))
            if left.value is None:
                return left
            batch = left.value
        if not batch.metrics or (self._is_sql_store() and not everything):
            return Outcome(Kind.OK, batch)
        kept: set[Metric] = set()
        for key in dict.fromkeys(metric[0] for metric in batch.metrics):
            found = self._get("metrics/get-history", {"run_id": run_id, "metric_key": key})
            history = taken(found, "the metric's history", rows_of)
            if history.ok and history.value is not None:
                kept |= history.value
            elif history.kind is not Kind.REFUSED:  # REFUSED: the metric was never logged
                return history.failed()
        metrics = [metric for metric in batch.metrics if comparable(metric) not in kept]
        return Outcome(Kind.OK, Batch(metrics, batch.params, batch.tags))

    def _is_sql_store(self) -> bool:
        """True if the server says that it has an SQL store; servers before 3 do not say."""
        if self._store_type is None:
            reply = self._transport.get(f"{self._uri}/api/3.0/mlflow/server-info", {})
            told = (reply.body or {}).get("store_type") if reply.status == requests.codes.ok else None
            if told is None and reply.status not in {requests.codes.not_found, requests.codes.method_not_allowed}:
                return False  # for now, and ask again next time: this is not the server's own reply
            self._store_type = str(told)
        return self._store_type == "SqlStore"

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """Send the file to the run's artifact root, as the server names it."""
        root = self._artifact_roots.get(run_id)
        if root is None:
            found = self._get("runs/get", {"run_id": run_id})
            asked = taken(found, f"run {one_line(run_id)}", lambda body: str(body["run"]["info"]["artifact_uri"]))
            if not asked.ok or asked.value is None:
                return asked.bare()
            root = self._artifact_roots[run_id] = asked.value
        return artifacts.deliver(self._transport, self._uri, root, path, file, glance, outcome_of)

    def update_run(self, run_id: str, status: str, end_time: int | None, token: str = "") -> Outcome[None]:
        """``runs/update``."""
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_time is not None:
            body["end_time"] = end_time
        return updated(self._post("runs/update", body), run_id)

    def delete_run(self, run_id: str, token: str = "") -> Outcome[None]:
        """``runs/delete``."""
        return self._post("runs/delete", {"run_id": run_id}).bare()

    def name_fault(self, name: str) -> str | None:
        """Check MLflow's rules for names, which are the same in every version."""
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
        return outcome_of(self._transport.get(f"{self._uri}/api/2.0/mlflow/{call}", query), call)

    def _post(self, call: str, body: object) -> Outcome[dict[str, Any]]:
        reply = self._transport.post(f"{self._uri}/api/2.0/mlflow/{call}", msgspec.json.encode(body))
        return outcome_of(reply, call)


class EarlyMlflowBackend(MlflowBackend):
    """A server from 1.0 to 1.2."""

    dialect = "mlflow-1.0"
    limits = replace(MLFLOW_LIMITS, one_line=True)

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """Look through all runs of the experiment: these releases' filters can't express our tag's name."""
        found = self._post("runs/search", {"experiment_ids": [experiment_id], "max_results": _MOST_RUNS})

        def ours(body: dict[str, Any]) -> list[ServerRun]:
            wanted = {"key": UID_TAG, "value": uid}
            return [server_run(run) for run in body.get("runs", ()) if wanted in run.get("data", {}).get("tags", ())]

        return taken(found, "looking for the run", ours)


def _ids_by_name(body: dict[str, Any]) -> dict[str, str]:
    return {str(entry["name"]): str(entry["experiment_id"]) for entry in body.get("experiments") or ()}


class MlflowStore(RestStore):
    """A server from 1.3 on, as ``TrackingClient`` sees it."""

    dialect = MlflowBackend.dialect


class EarlyStore(RestStore):
    """A server from 1.0 to 1.2."""

    dialect = "mlflow-1.0"
    limits = replace(MLFLOW_LIMITS, one_line=True)

    def log_param(self, run_id: str, param: Param) -> None:
        """Log one parameter, which must have no line breaks."""
        self.check_lines([param])
        super().log_param(run_id, param)

    def log_batch(
        self, run_id: str, metrics: Sequence[MetricEntity], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log one batch, whose parameters must have no line breaks."""
        self.check_lines(params)
        super().log_batch(run_id, metrics, params, tags)
