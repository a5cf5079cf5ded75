"""MLflow's 2018 preview API, under ``/api/2.0/preview/mlflow``, as servers from 0.2 to 0.9 speak it.

What is sent here is what every one of them takes: a run is named by ``run_uuid`` alone, one value a request, no step,
no tags at a run's creation (which ruin its experiment on file stores up to 0.5), no newline in a parameter (which
ruins the run). Bodies are JSON in a JSON string: up to 0.3 nothing else is understood, and later servers still take it.
Our uid goes where every server keeps it, into ``entry_point_name``. A failure often is a 500 without any code.
"""

# ruff: noqa: ARG002 - the arguments are those of every dialect

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import requests

from mlops_integrations.backends.protocol import (
    Batch,
    Kind,
    Limits,
    Metric,
    Outcome,
    ServerRun,
)
from mlops_integrations.backends.rest import artifacts, entities_json, filters
from mlops_integrations.backends.rest.replies import (
    outcome_of,
    server_run,
    taken,
    updated,
    without_texts_of,
)
from mlops_integrations.backends.rest.store import Fields, Store, metric_fields
from mlops_integrations.backends.transport import Reply, Transport, printable
from mlops_integrations.entities import (
    Clause,
    Experiment,
    FileInfo,
    Param,
    Run,
    RunInfo,
    RunStatus,
    RunTag,
    SourceType,
)
from mlops_integrations.entities import Metric as MetricEntity
from mlops_integrations.errors import NotFoundError, NotSupportedByServer, ServerError
from mlops_integrations.journal.records import RunSpec

T = TypeVar("T")

PREFIX: Final = "/api/2.0/preview/mlflow"
NO_TAGS: Final = "this server keeps no tags"
NO_STEPS: Final = (
    "this server keeps no steps: a metric's values are told apart by their times, and releases 0.4 to 0.6 keep 32 bits "
    "of each; the journal has steps and values as they were logged"
)

_LIMITS: Final = Limits(
    metrics=1, params=1, tags=1, request_bytes=1_000_000, param_length=6_000, tag_length=5_000, one_line=True
)
_NAME: Final = re.compile(r"[/\w.\- ]+")
_NAME_LENGTH: Final = 250


def preview_outcome_of(reply: Reply, call: str) -> Outcome[dict[str, Any]]:
    """What a reply means; a 500 may be about the request, for up to 0.7 there is nothing else to say so."""
    outcome = outcome_of(reply, call)
    if reply.status == requests.codes.internal_server_error:
        code = (reply.body or {}).get("error_code")
        if isinstance(code, str) and code != "INTERNAL_ERROR":
            return outcome
        return Outcome(Kind.RETRY, None, outcome.message, outcome.code, ambiguous=True, suspect=True)
    return outcome


class PreviewBackend:
    """One MLflow server of 2018 and 2019, as the uploader sees it."""

    dialect = "mlflow-preview"
    limits = _LIMITS
    notes = (NO_STEPS,)

    def __init__(self, tracking_uri: str, transport: Transport) -> None:
        self._uri = tracking_uri.rstrip("/")
        self._transport = transport
        self._artifact_roots: dict[str, str] = {}

    def recognize(self, known: str | None) -> Outcome[str]:
        """It was recognized."""
        return Outcome(Kind.OK, self.dialect)

    def open_experiment(self, name: str | None, experiment_id: str | None, token: str = "") -> Outcome[str]:
        """Get, or create."""
        if experiment_id is not None:
            found = self._get("experiments/get", {"experiment_id": experiment_id})
            return taken(found, f"experiment {printable(experiment_id)!r}", lambda body: _id(body["experiment"]))
        wanted = name or ""
        listed = taken(self._get("experiments/list", {}), "the list of experiments", lambda body: _ids_by_name(body))
        if not listed.ok or listed.value is None:
            return Outcome(listed.kind, None, listed.message, listed.code, listed.retry_after, listed.ambiguous)
        if wanted in listed.value:
            return Outcome(Kind.OK, listed.value[wanted])
        made = self._post("experiments/create", {"name": wanted})
        if made.suspect or made.kind is Kind.REFUSED:  # somebody else may have made it meanwhile
            again = taken(self._get("experiments/list", {}), "", lambda body: _ids_by_name(body).get(wanted))
            if again.value is not None:
                return Outcome(Kind.OK, again.value)
        return taken(made, f"experiment {printable(wanted)!r}", _id)

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None, token: str = "") -> Outcome[str]:
        """Create, without tags; the uid is the entry point's name."""
        body = {
            "experiment_id": int(experiment_id),
            "user_id": spec.user or "",
            "run_name": spec.name,
            "source_type": spec.source_type,
            "source_name": spec.source_name or "",
            "entry_point_name": spec.uid,
            "start_time": spec.start_time,
        }
        return taken(self._post("runs/create", body), "creating the run", lambda body: server_run(body["run"]).run_id)

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """Among the runs that come with their experiment."""
        found = self._get("experiments/get", {"experiment_id": experiment_id})

        def ours(body: dict[str, Any]) -> list[str]:
            runs = [run for run in body.get("runs", ()) if run.get("entry_point_name") == uid]
            return [str(run.get("run_id") or run["run_uuid"]) for run in runs if _is_active(run)]

        ids = taken(found, "looking for the run", ours)
        runs: list[ServerRun] = []
        for run_id in ids.value or ():
            run = self.get_run(run_id)
            if not run.ok or run.value is None:
                return Outcome(run.kind, None, run.message, run.code, run.retry_after)
            runs.append(run.value)
        return Outcome(ids.kind, runs if ids.ok else None, ids.message, ids.code, ids.retry_after, ids.ambiguous)

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run."""
        found = self._get("runs/get", {"run_uuid": run_id})
        return taken(found, f"run {printable(run_id)}", lambda body: server_run(body["run"]))

    def send(self, run_id: str, batch: Batch, token: str = "") -> Outcome[None]:
        """The one item that a batch may hold here."""
        for key, value, time, _ in batch.metrics:
            fields = {"run_uuid": run_id, "key": key, "value": value, "timestamp": time}
            return self._post("runs/log-metric", fields).bare()
        for key, text in batch.params:
            return self._post("runs/log-parameter", {"run_uuid": run_id, "key": key, "value": text}).bare()
        for key, text in batch.tags:
            sent = self._ask_post("runs/set-tag", {"run_uuid": run_id, "key": key, "value": text})
            if _is_no_such_call(sent):
                return Outcome(Kind.REFUSED, None, NO_TAGS, NO_TAGS)
            return preview_outcome_of(sent, "runs/set-tag").bare()
        return Outcome(Kind.OK)

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """These stores keep a value twice that is sent twice; of texts they keep one."""
        if everything and (batch.params or batch.tags):
            found = self._get("runs/get", {"run_uuid": run_id})
            return taken(found, f"run {printable(run_id)}", lambda body: without_texts_of(body["run"], batch))
        metrics: list[Metric] = []
        for metric in batch.metrics:
            key, value, time, _ = metric
            query = {"run_uuid": run_id, "metric_key": key}
            reply = self._transport.get(self._url("metrics/get-history"), query)
            outcome = preview_outcome_of(reply, "metrics/get-history")
            if outcome.suspect or outcome.kind is Kind.REFUSED:  # a metric that was never logged
                metrics.append(metric)
                continue
            kept = taken(outcome, "the metric's history", _metrics)
            if not kept.ok or kept.value is None:
                return Outcome(kept.kind, None, kept.message, kept.code, kept.retry_after, kept.ambiguous)
            wanted = entities_json.number(value)
            if not any(each.timestamp == time and _same(each.value, wanted) for each in kept.value):
                metrics.append(metric)
        return Outcome(Kind.OK, Batch(metrics, batch.params, batch.tags))

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """To the run's directory, if that is on this machine."""
        root = self._artifact_roots.get(run_id)
        if root is None:
            found = self._get("runs/get", {"run_uuid": run_id})
            asked = taken(found, f"run {printable(run_id)}", lambda body: str(body["run"]["info"]["artifact_uri"]))
            if not asked.ok or asked.value is None:
                return asked.bare()
            root = self._artifact_roots[run_id] = asked.value
        return artifacts.deliver(self._transport, self._uri, root, path, file, glance, preview_outcome_of)

    def update_run(self, run_id: str, status: str, end_time: int | None, token: str = "") -> Outcome[None]:
        """``runs/update``."""
        body: dict[str, Any] = {"run_uuid": run_id, "status": status}
        if end_time is not None:
            body["end_time"] = end_time
        return updated(self._post("runs/update", body), run_id)

    def delete_run(self, run_id: str, token: str = "") -> Outcome[None]:
        """Servers before 0.7 can't."""
        reply = self._ask_post("runs/delete", {"run_id": run_id})
        if _is_no_such_call(reply):
            return Outcome(Kind.REFUSED, None, "this server can't delete runs")
        return preview_outcome_of(reply, "runs/delete").bare()

    def name_fault(self, name: str) -> str | None:
        """The rules for names of that time."""
        if len(name) > _NAME_LENGTH:
            return f"name of over {_NAME_LENGTH} characters"
        if not _NAME.fullmatch(name):
            return "name with characters other than letters, digits, _ - . / and space"
        if name.startswith("/") or any(part in {"", ".", ".."} for part in name.split("/")):
            return "name that reads as a path: //, ./, ../ or / at an end"
        return None

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """The run's page."""
        return f"{self._uri}/#/experiments/{experiment_id}/runs/{run_id}"

    def _url(self, call: str) -> str:
        return f"{self._uri}{PREFIX}/{call}"

    def _get(self, call: str, query: dict[str, str]) -> Outcome[dict[str, Any]]:
        return preview_outcome_of(self._transport.get(self._url(call), query), call)

    def _post(self, call: str, fields: Fields) -> Outcome[dict[str, Any]]:
        return preview_outcome_of(self._ask_post(call, fields), call)

    def _ask_post(self, call: str, fields: Fields) -> Reply:
        return self._transport.post(self._url(call), _twice_encoded(fields))


class PreviewStore(Store):
    """The same server as ``TrackingClient`` sees it."""

    dialect = "mlflow-preview"
    limits = _LIMITS
    notes = (NO_STEPS,)
    prefix = PREFIX
    run_key = "run_uuid"

    def create_experiment(self, name: str, artifact_location: str | None, tags: Mapping[str, str]) -> str:
        """Make an experiment, which has no tags; 0.2 and 0.3 know no artifact location."""
        if tags:
            raise NotSupportedByServer("experiments of the 2018 preview API have no tags")
        return super().create_experiment(name, artifact_location, {})

    def get_experiment(self, experiment_id: str) -> Experiment:
        """One experiment, with its runs."""
        body = self._get("experiments/get", {"experiment_id": experiment_id})
        return entities_json.experiment(body["experiment"], body.get("runs") or [])

    def list_experiments(self) -> Iterator[Experiment]:
        """All at once."""
        for body in self._get("experiments/list", {}).get("experiments") or ():
            yield entities_json.experiment(body)

    def get_experiment_by_name(self, name: str) -> Experiment:
        """Among all that there are."""
        for experiment in self.list_experiments():
            if experiment.name == name:
                return experiment
        raise NotFoundError(f"there is no experiment {printable(name)!r}", status=404)

    def create_run(self, experiment_id: str, about: RunInfo, tags: Mapping[str, str]) -> Run:
        """Make a run; tags follow one by one, for with them the creation would ruin the experiment."""
        fields = {
            "experiment_id": int(experiment_id),
            "user_id": about.user_id,
            "run_name": about.name,
            "source_type": str(about.source_type or SourceType.LOCAL),
            "source_name": about.source_name,
            "source_version": about.source_version,
            "entry_point_name": about.entry_point_name,
            "start_time": about.start_time,
        }
        run = entities_json.run(self._post("runs/create", fields, repeatable=False)["run"])
        for key, value in tags.items():
            self.set_tag(run.info.run_id, RunTag(key, value))
        return self.get_run(run.info.run_id) if tags else run

    def update_run(self, run_id: str, status: RunStatus | None, end_time: int | None, name: str | None) -> RunInfo:
        """Change status and end."""
        if name is not None:
            raise NotSupportedByServer("the 2018 preview API can't rename a run")
        return super().update_run(run_id, status, end_time, None)

    def log_metric(self, run_id: str, metric: MetricEntity) -> None:
        """Log one value, without its step."""
        fields = metric_fields(metric)
        del fields["step"]
        self._post("runs/log-metric", {"run_uuid": run_id, **fields})

    def log_param(self, run_id: str, param: Param) -> None:
        """Log one parameter of one line."""
        self.check_lines([param])
        super().log_param(run_id, param)

    def log_batch(
        self, run_id: str, metrics: Sequence[MetricEntity], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """One by one."""
        for param in params:
            self.log_param(run_id, param)
        for tag in tags:
            self.set_tag(run_id, tag)
        for metric in metrics:
            self.log_metric(run_id, metric)

    def get_param(self, run_id: str, key: str) -> Param:
        """One parameter, by the call of its own; 0.9 has taken that away."""
        try:
            return entities_json.param(self._get("params/get", {"run_uuid": run_id, "param_name": key})["parameter"])
        except NotSupportedByServer:
            return super().get_param(run_id, key)

    def get_metric(self, run_id: str, key: str) -> MetricEntity:
        """The last value of a metric, likewise."""
        try:
            return entities_json.metric(self._get("metrics/get", {"run_uuid": run_id, "metric_key": key})["metric"])
        except NotSupportedByServer:
            return super().get_metric(run_id, key)

    def get_metric_history(self, run_id: str, key: str) -> Iterator[MetricEntity]:
        """Every value at once. Of an unknown metric these servers only say that they have failed."""
        try:
            body = self._get("metrics/get-history", {"run_uuid": run_id, "metric_key": key})
        except ServerError:
            if any(metric.key == key for metric in self.get_run(run_id).data.metrics):
                raise
            return
        for each in body.get("metrics") or ():
            yield entities_json.metric(each)

    def list_artifacts(self, run_id: str, path: str | None) -> Iterator[FileInfo]:
        """Right below a path. Up to 0.5 a run's directory does not exist before its first file, which is a failure."""
        query: dict[str, object] = {"run_uuid": run_id, "path": path}
        try:
            body = self._get("artifacts/list", query)
        except ServerError:
            root = self.get_run(run_id).info.artifact_uri
            if path is None and root is not None and not Path(root).exists():
                return
            raise
        for each in body.get("files") or ():
            yield entities_json.file_info(each)

    def search_runs(
        self, experiment_ids: Sequence[str], where: Sequence[Clause] | str, order_by: Sequence[str], page: int
    ) -> Iterator[Run]:
        """By typed conditions; servers up to 0.8 would ignore a filter in words, and return every run."""
        if isinstance(where, str):
            raise NotSupportedByServer("this server knows no filter in words: use MetricClause and ParamClause")
        if order_by:
            raise NotSupportedByServer("this server can't order runs")
        fields = {
            "experiment_ids": [int(experiment_id) for experiment_id in experiment_ids],
            "anded_expressions": filters.as_anded_expressions(where),
        }
        for body in self._post("runs/search", fields).get("runs") or ():
            yield entities_json.run(body)

    def open_artifact(self, run_id: str, path: str) -> Iterator[bytes]:
        """By the call of 2018, or the one that has replaced it with 0.5."""
        try:
            return self._stream(self._url("artifacts/get"), {"run_uuid": run_id, "path": path}, path)
        except NotSupportedByServer:
            return self._stream(f"{self.uri}/get-artifact", {"run_uuid": run_id, "path": path}, path)

    def _outcome_of(self, reply: Reply, call: str) -> Outcome[dict[str, Any]]:
        return preview_outcome_of(reply, call)

    def _encode(self, fields: Fields) -> bytes:
        return _twice_encoded(fields)


def _twice_encoded(fields: Fields) -> bytes:
    return msgspec.json.encode(msgspec.json.encode(fields).decode())


def _id(body: Mapping[str, Any]) -> str:
    return str(body.get("experiment_id") or body.get("experimentId") or 0)


def _ids_by_name(body: Mapping[str, Any]) -> dict[str, str]:
    active = [each for each in body.get("experiments", ()) if _is_active(each)]
    return {str(each.get("name")): _id(each) for each in active}


def _metrics(body: Mapping[str, Any]) -> list[MetricEntity]:
    return [entities_json.metric(each) for each in body.get("metrics") or ()]


def _is_active(body: Mapping[str, Any]) -> bool:
    return bool(body.get("lifecycle_stage", "active") == "active")


def _is_no_such_call(reply: Reply) -> bool:
    missing = {requests.codes.not_found, requests.codes.method_not_allowed}
    return reply.body is None and (reply.status in missing or reply.status == requests.codes.ok)


def _same(kept: float, sent: float) -> bool:
    """Whether a store that may keep 32 bits only has this value."""
    if kept != kept or sent != sent:
        return kept != kept and sent != sent
    return kept == sent or abs(kept - sent) <= 1e-6 * max(abs(kept), abs(sent))
