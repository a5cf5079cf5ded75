"""MLflow's 2018 preview API, under ``/api/2.0/preview/mlflow``, as servers from 0.2 to 0.9 speak it.

Requests hold only what all of these servers accept: a run's id as ``run_uuid`` alone (``runs/delete``: ``run_id``),
one value a request, no step, no tags at a run's creation (they ruin its experiment on file stores up to 0.5), no
newline in a parameter (it ruins the run). Bodies are JSON in a JSON string: up to 0.3 nothing else is understood, and
later servers still accept it. Our uid is stored in ``entry_point_name``, which every server keeps. Failures often are
a 500 without any error code.
"""

# ruff: noqa: ARG002 - the arguments are those of every dialect

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from mlops_integrations.backends.mlflow_preview.replies import (
    LIMITS,
    NO_STEPS,
    PREFIX,
    is_active,
    is_no_such_call,
    preview_outcome_of,
    twice_encoded,
)
from mlops_integrations.backends.protocol import (
    Batch,
    Kind,
    Metric,
    Outcome,
    ServerRun,
)
from mlops_integrations.backends.rest import artifacts, entities_json
from mlops_integrations.backends.rest.replies import (
    server_run,
    taken,
    updated,
    without_texts_of,
)
from mlops_integrations.backends.rest.store import Fields
from mlops_integrations.backends.transport import Reply, Transport
from mlops_integrations.entities import Metric as MetricEntity
from mlops_integrations.journal.records import RunSpec
from mlops_integrations.untrusted import one_line

T = TypeVar("T")

NO_TAGS: Final = "this server keeps no tags"

_NAME: Final = re.compile(r"[/\w.\- ]+")
_NAME_LENGTH: Final = 250


class PreviewBackend:
    """One MLflow server of 2018 and 2019, as the uploader sees it."""

    dialect = "mlflow-preview"
    limits = LIMITS
    notes = (NO_STEPS,)

    def __init__(self, tracking_uri: str, transport: Transport) -> None:
        self._uri = tracking_uri.rstrip("/")
        self._transport = transport
        self._artifact_roots: dict[str, str] = {}

    def recognize(self, known: str | None) -> Outcome[str]:
        """Return the dialect, which is already known."""
        return Outcome(Kind.OK, self.dialect)

    def open_experiment(self, name: str | None, experiment_id: str | None, token: str = "") -> Outcome[str]:
        """Get or create."""
        if experiment_id is not None:
            found = self._get("experiments/get", {"experiment_id": experiment_id})
            return taken(found, f"experiment {one_line(experiment_id)!r}", lambda body: _id(body["experiment"]))
        wanted = name or ""
        listed = taken(self._get("experiments/list", {}), "the list of experiments", lambda body: _ids_by_name(body))
        if not listed.ok or listed.value is None:
            return listed.failed()
        if wanted in listed.value:
            return Outcome(Kind.OK, listed.value[wanted])
        made = self._post("experiments/create", {"name": wanted})
        if made.suspect or made.kind is Kind.REFUSED:  # another client may have created it meanwhile
            again = taken(self._get("experiments/list", {}), "", lambda body: _ids_by_name(body).get(wanted))
            if again.value is not None:
                return Outcome(Kind.OK, again.value)
        return taken(made, f"experiment {one_line(wanted)!r}", _id)

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None, token: str = "") -> Outcome[str]:
        """Create the run without tags; the uid is stored as the entry point's name."""
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
        """Look through the runs that the server returns with their experiment."""
        found = self._get("experiments/get", {"experiment_id": experiment_id})

        def ours(body: dict[str, Any]) -> list[str]:
            runs = [run for run in body.get("runs", ()) if run.get("entry_point_name") == uid]
            return [str(run.get("run_id") or run["run_uuid"]) for run in runs if is_active(run)]

        ids = taken(found, "looking for the run", ours)
        if not ids.ok or ids.value is None:
            return ids.failed()
        runs: list[ServerRun] = []
        for run_id in ids.value:
            run = self.get_run(run_id)
            if not run.ok or run.value is None:
                return run.failed()
            runs.append(run.value)
        return Outcome(Kind.OK, runs)

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run."""
        found = self._get("runs/get", {"run_uuid": run_id})
        return taken(found, f"run {one_line(run_id)}", lambda body: server_run(body["run"]))

    def send(self, run_id: str, batch: Batch, token: str = "") -> Outcome[None]:
        """Send the one item that a batch may hold here."""
        for key, value, time, _ in batch.metrics:
            fields = {"run_uuid": run_id, "key": key, "value": value, "timestamp": time}
            return self._post("runs/log-metric", fields).bare()
        for key, text in batch.params:
            return self._post("runs/log-parameter", {"run_uuid": run_id, "key": key, "value": text}).bare()
        for key, text in batch.tags:
            sent = self._ask_post("runs/set-tag", {"run_uuid": run_id, "key": key, "value": text})
            if is_no_such_call(sent):
                return Outcome(Kind.REFUSED, None, NO_TAGS, NO_TAGS)
            return preview_outcome_of(sent, "runs/set-tag").bare()
        return Outcome(Kind.OK)

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """These stores keep both copies of a metric sent twice, but one of a parameter or tag."""
        if everything and (batch.params or batch.tags):
            found = self._get("runs/get", {"run_uuid": run_id})
            return taken(found, f"run {one_line(run_id)}", lambda body: without_texts_of(body["run"], batch))
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
                return kept.failed()
            wanted = entities_json.number(value)
            if not any(each.timestamp == time and _same(each.value, wanted) for each in kept.value):
                metrics.append(metric)
        return Outcome(Kind.OK, Batch(metrics, batch.params, batch.tags))

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """Copy the file to the run's artifact root, if that is on this machine."""
        root = self._artifact_roots.get(run_id)
        if root is None:
            found = self._get("runs/get", {"run_uuid": run_id})
            asked = taken(found, f"run {one_line(run_id)}", lambda body: str(body["run"]["info"]["artifact_uri"]))
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
        """``runs/delete``; servers before 0.7 don't have it."""
        reply = self._ask_post("runs/delete", {"run_id": run_id})
        if is_no_such_call(reply):
            return Outcome(Kind.REFUSED, None, "this server can't delete runs")
        return preview_outcome_of(reply, "runs/delete").bare()

    def name_fault(self, name: str) -> str | None:
        """Check these servers' rules for names."""
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
        return self._transport.post(self._url(call), twice_encoded(fields))


def _id(body: Mapping[str, Any]) -> str:
    return str(body.get("experiment_id") or body.get("experimentId") or 0)


def _ids_by_name(body: Mapping[str, Any]) -> dict[str, str]:
    active = [each for each in body.get("experiments", ()) if is_active(each)]
    return {str(each.get("name")): _id(each) for each in active}


def _metrics(body: Mapping[str, Any]) -> list[MetricEntity]:
    return [entities_json.metric(each) for each in body.get("metrics") or ()]


def _same(kept: float, sent: float) -> bool:
    """True if the values are equal for a store that may keep only 32 bits."""
    if kept != kept or sent != sent:
        return kept != kept and sent != sent
    return kept == sent or abs(kept - sent) <= 1e-6 * max(abs(kept), abs(sent))
