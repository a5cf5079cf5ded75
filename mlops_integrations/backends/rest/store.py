"""Creates, reads and searches a tracking server's content: the API of MLflow's servers from 1.0 on.

Other dialects override what differs. A failure is an exception with the server's code and message. When the server or
the way to it is in trouble, calls that are safe to repeat are repeated a few times.
"""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import requests

from mlops_integrations.backends.protocol import MLFLOW_LIMITS, Kind, Limits, Outcome
from mlops_integrations.backends.rest import entities_json, filters
from mlops_integrations.backends.rest.replies import outcome_of
from mlops_integrations.backends.transport import Reply, Transport
from mlops_integrations.entities import (
    Answer,
    Clause,
    Experiment,
    FileInfo,
    Metric,
    Param,
    Run,
    RunInfo,
    RunStatus,
    RunTag,
)
from mlops_integrations.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    NotFoundError,
    NotSupportedByServer,
    ServerError,
    UnreachableError,
)
from mlops_integrations.journal.records import spell
from mlops_integrations.untrusted import one_line

Fields = Mapping[str, object]

_TRIES: Final = 4
_FIRST_PAUSE_SECONDS: Final = 0.5
_PAGE: Final = 1_000
_VERSION: Final = re.compile(r"\d[\w.\-+]*")
_HISTORY_PAGE: Final = 25_000
_NOT_FOUND_CODES: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "NotFound", "NotAuthorizedOrNotFound"})
_EXISTS_CODES: Final = frozenset(
    {"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "NotAuthorizedOrResourceAlreadyExists", "Conflict"}
)


@dataclass(frozen=True, slots=True)
class About:
    """A server's version and clock, and the limits and notes of its dialect."""

    version: str | None
    clock: float | None
    """The server's time, in seconds since 1970."""
    limits: Limits
    notes: Sequence[str]


class RestStore:
    """One tracking server.

    Args:
        tracking_uri: its address.
        transport: the way to it.
        sleep: waits between tries.
    """

    dialect: str
    prefix = "/api/2.0/mlflow"
    limits = MLFLOW_LIMITS
    notes: Sequence[str] = ()
    run_key = "run_id"
    """The field name of a run's id in requests."""
    denied_hint = "MLFLOW_TRACKING_USERNAME, …"
    last_answer: Answer | None = None
    """Metadata of the reply to the last successful request."""

    def __init__(
        self,
        tracking_uri: str,
        transport: Transport,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.uri = tracking_uri.rstrip("/")
        self._transport = transport
        self._sleep = sleep

    def about(self) -> About:
        """Return the server's version and clock, and its dialect's limits and notes."""
        reply = self._transport.get(f"{self.uri}/version", {})
        version = reply.text if reply.status == requests.codes.ok and _VERSION.fullmatch(reply.text) else None
        return About(version, clock_of(reply), self.limits, self.notes)

    # -- experiments --------------------------------------------------------------------------------------------

    def create_experiment(self, name: str, artifact_location: str | None, tags: Mapping[str, str]) -> str:
        """Create an experiment and return its id."""
        fields = {"name": name, "artifact_location": artifact_location, "tags": pairs(tags)}
        body = self._post("experiments/create", fields, repeatable=False)
        return str(body.get("experiment_id") or body["experimentId"])

    def get_experiment(self, experiment_id: str) -> Experiment:
        """One experiment."""
        body = self._get("experiments/get", {"experiment_id": experiment_id})
        return entities_json.experiment(body["experiment"], body.get("runs"))

    def get_experiment_by_name(self, name: str) -> Experiment:
        """One experiment; on servers before 1.3, found in the list of all."""
        try:
            body = self._get("experiments/get-by-name", {"experiment_name": name})
        except NotSupportedByServer:
            for experiment in self.list_experiments():
                if experiment.name == name:
                    return experiment
            raise NotFoundError(f"there is no experiment {one_line(name)!r}", status=404) from None
        return entities_json.experiment(body["experiment"])

    def list_experiments(self) -> Iterator[Experiment]:
        """All experiments that are not deleted; servers before 1.28 have another call for it."""
        try:
            for body in self._pages("POST", "experiments/search", {"max_results": _PAGE}, "experiments"):
                yield entities_json.experiment(body)
        except NotSupportedByServer:
            for body in self._get("experiments/list", {}).get("experiments") or ():
                yield entities_json.experiment(body)

    # -- runs ---------------------------------------------------------------------------------------------------

    def create_run(self, experiment_id: str, about: RunInfo, tags: Mapping[str, str]) -> Run:
        """Create a run; old fields that today's servers keep as tags are sent as tags."""
        known = {
            "mlflow.runName": about.name,
            "mlflow.user": about.user_id,
            "mlflow.source.type": None if about.source_type is None else str(about.source_type),
            "mlflow.source.name": about.source_name,
            "mlflow.source.git.commit": about.source_version,
            "mlflow.project.entryPoint": about.entry_point_name,
        }
        fields = {
            "experiment_id": experiment_id,
            "user_id": about.user_id,
            "run_name": about.name,
            "start_time": about.start_time,
            "tags": pairs({key: value for key, value in known.items() if value is not None} | dict(tags)),
        }
        return entities_json.run(self._post("runs/create", fields, repeatable=False)["run"])

    def get_run(self, run_id: str) -> Run:
        """One run, deleted or not."""
        return entities_json.run(self._get("runs/get", {self.run_key: run_id})["run"])

    def update_run(self, run_id: str, status: RunStatus | None, end_time: int | None, name: str | None) -> RunInfo:
        """Change the given fields."""
        fields = {
            self.run_key: run_id,
            "status": None if status is None else str(status),
            "end_time": end_time,
            "run_name": name,
        }
        return entities_json.run_info(self._post("runs/update", fields)["run_info"])

    def search_runs(
        self, experiment_ids: Sequence[str], where: Sequence[Clause] | str, order_by: Sequence[str], page: int
    ) -> Iterator[Run]:
        """Runs that meet all conditions."""
        fields = {
            "experiment_ids": list(experiment_ids),
            "filter": (where if isinstance(where, str) else filters.as_filter(where)) or None,
            "order_by": list(order_by),
            "max_results": page,
        }
        for body in self._pages("POST", "runs/search", fields, "runs"):
            yield entities_json.run(body)

    # -- a run's content ----------------------------------------------------------------------------------------

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log one batch, in one request."""
        fields = {
            "run_id": run_id,
            "metrics": [metric_fields(metric) for metric in metrics],
            "params": [{"key": param.key, "value": param.value} for param in params],
            "tags": [{"key": tag.key, "value": tag.value} for tag in tags],
        }
        self._post("runs/log-batch", fields)

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value."""
        self._post("runs/log-metric", {self.run_key: run_id} | metric_fields(metric))

    def log_param(self, run_id: str, param: Param) -> None:
        """Log one parameter."""
        self._post("runs/log-parameter", {self.run_key: run_id, "key": param.key, "value": param.value})

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set one tag."""
        self._post("runs/set-tag", {self.run_key: run_id, "key": tag.key, "value": tag.value})

    def get_param(self, run_id: str, key: str) -> Param:
        """One parameter, read from the run: today's servers have no other call for it."""
        for param in self.get_run(run_id).data.params:
            if param.key == key:
                return param
        raise NotFoundError(f"run {one_line(run_id)} has no parameter {one_line(key)!r}", status=404)

    def get_metric(self, run_id: str, key: str) -> Metric:
        """The last value of a metric, read from the run like a parameter."""
        for metric in self.get_run(run_id).data.metrics:
            if metric.key == key:
                return metric
        raise NotFoundError(f"run {one_line(run_id)} has no metric {one_line(key)!r}", status=404)

    def get_metric_history(self, run_id: str, key: str) -> Iterator[Metric]:
        """Every value, page by page (servers before 2.1 answer with all of them at once)."""
        fields = {self.run_key: run_id, "metric_key": key, "max_results": _HISTORY_PAGE}
        try:
            for body in self._pages("GET", "metrics/get-history", fields, "metrics"):
                yield entities_json.metric(body)
        except NotFoundError:
            self.get_run(run_id)  # raises if the run does not exist; else the metric was never logged

    def check_lines(self, params: Sequence[Param]) -> None:
        """Refuse line breaks, which would ruin the run on the file stores of old servers.

        Raises:
            NotSupportedByServer: a parameter has a line break.
        """
        for param in params:
            if "\n" in param.value or "\r" in param.value:
                raise NotSupportedByServer(
                    f"parameter {param.key!r} has a newline: it would ruin the run on this server"
                )

    # -- artifacts ----------------------------------------------------------------------------------------------

    def list_artifacts(self, run_id: str, path: str | None) -> Iterator[FileInfo]:
        """Files and directories right below a path."""
        fields = {self.run_key: run_id, "path": path}
        for body in self._pages("GET", "artifacts/list", fields, "files"):
            yield entities_json.file_info(body)

    def open_artifact(self, run_id: str, path: str) -> Iterator[bytes]:
        """The content of a file, block by block."""
        return self._stream(f"{self.uri}/get-artifact", {"run_uuid": run_id, "path": path}, path)

    # -- inside -------------------------------------------------------------------------------------------------

    def _get(self, call: str, fields: Fields) -> dict[str, Any]:
        query = {name: str(value) for name, value in fields.items() if value is not None}
        return self._ask(call, lambda: self._transport.get(self._url(call), query), reads=True)

    def _write_headers(self, call: str) -> Mapping[str, str]:  # noqa: ARG002 - for dialects that name their writes
        """Headers by which the server recognizes a repeated write."""
        return {}

    def _post(self, call: str, fields: Fields, *, repeatable: bool = True) -> dict[str, Any]:
        body = self._encode({name: value for name, value in fields.items() if value not in (None, [])})
        headers = self._write_headers(call)
        repeatable = repeatable or bool(headers)
        return self._ask(call, lambda: self._transport.post(self._url(call), body, headers), repeatable=repeatable)

    def _encode(self, fields: Fields) -> bytes:
        return msgspec.json.encode(fields)

    def _url(self, call: str) -> str:
        return f"{self.uri}{self.prefix}/{call}"

    def _pages(self, method: str, call: str, fields: Fields, key: str) -> Iterator[dict[str, Any]]:
        ask = self._get if method == "GET" else self._post
        token, seen = "", set[str]()
        while True:
            body = ask(call, {**fields, "page_token": token or None})
            yield from body.get(key) or ()
            token = self._next_page(body)
            if not token:
                return
            if token in seen:
                raise ServerError(f"{call}: the server names the same next page again and again")
            seen.add(token)

    def _outcome_of(self, reply: Reply, call: str) -> Outcome[dict[str, Any]]:
        return outcome_of(reply, call)

    def _next_page(self, body: Mapping[str, Any]) -> str:
        return str(body.get("next_page_token") or "")

    def _stream(self, url: str, query: Mapping[str, str], what: str) -> Iterator[bytes]:
        opened = self._transport.stream(url, query)
        if isinstance(opened, Reply):
            raise self._error("get-artifact", opened, f"artifact {one_line(what)}")
        return opened

    def _ask(
        self, call: str, send: Callable[[], Reply], *, repeatable: bool = True, reads: bool = False
    ) -> dict[str, Any]:
        tries = 0
        while True:
            reply = send()
            outcome = self._outcome_of(reply, call)
            if outcome.ok and outcome.value is not None:
                self.last_answer = Answer(outcome.request_id, reply.headers.get("etag"))
                return outcome.value
            tries += 1
            may_help = outcome.kind is Kind.RETRY and not outcome.suspect and not _is_no_such_call(reply)
            # A write with an undocumented reply may have been done: the caller has to check the server's data.
            may_help = may_help and (reads or not outcome.unacknowledged)
            if not may_help or tries == _TRIES or not (repeatable or not outcome.ambiguous):
                raise self._error(call, reply)
            pause = max(outcome.retry_after or 0.0, _FIRST_PAUSE_SECONDS * 2.0 ** (tries - 1))
            self._sleep(pause * random.uniform(0.5, 1.0))

    def _error(self, call: str, reply: Reply, shown: str | None = None) -> ServerError:
        """The exception for a reply; its message starts with ``shown``, or else with the call's name."""
        outcome = self._outcome_of(reply, call)
        text = f"{shown or call}: {outcome.message or reply.text}"
        if outcome.request_id is not None and outcome.request_id not in text:
            text = f"{text} (request {one_line(outcome.request_id)})"
        about: dict[str, Any] = {
            "code": outcome.code,
            "status": reply.status,
            "request_id": reply.headers.get("opc-request-id"),
        }
        if _is_no_such_call(reply):
            return NotSupportedByServer(f"{shown or call}: this server has no such call", **about)
        if outcome.kind is Kind.DENIED:
            return AccessDeniedError(f"{text}. Are the credentials right ({self.denied_hint})?", **about)
        if outcome.code in _NOT_FOUND_CODES:
            return NotFoundError(text, **about)
        if outcome.code in _EXISTS_CODES:
            return AlreadyExistsError(text, **about)
        if outcome.unacknowledged:
            return ServerError(f"{text}. Whether it was done is not known", **about)
        if outcome.kind is Kind.RETRY and not outcome.suspect:
            return UnreachableError(f"{text} ({self.uri})", **about)
        return ServerError(text, **about)


def clock_of(reply: Reply) -> float | None:
    """The server's time, in seconds since 1970, if the reply has it."""
    header = reply.headers.get("Date")
    try:
        return None if header is None else email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError):
        return None


def _is_no_such_call(reply: Reply) -> bool:
    """True for a web page, or a 404 or 405 without JSON: this server has no such call."""
    missing = {requests.codes.not_found, requests.codes.method_not_allowed}
    return reply.body is None and (reply.status in missing or (reply.status == requests.codes.ok and reply.is_html))


def metric_fields(metric: Metric) -> dict[str, object]:
    """A metric as requests hold it: words for NaN and infinities, true integers."""
    value = spell(metric.value)
    return {"key": metric.key, "value": value, "timestamp": int(metric.timestamp), "step": int(metric.step or 0)}


def pairs(texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Keys and values as requests hold them."""
    return [{"key": str(key), "value": str(value)} for key, value in texts.items()]
