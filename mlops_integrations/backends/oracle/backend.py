"""The MLflow API of Oracle AI Data Platform, workspace by workspace, as the uploader sees it.

Only documented fields are sent. Each write has its ``opc-retry-token``, by which the service recognizes for a day a
write that it has already done. Features that the service lacks, files above all, are refused with a clear message.
"""

# ruff: noqa: ARG002 - the arguments are those of every dialect

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from mlops_integrations.backends.credentials import NotSignedError
from mlops_integrations.backends.oracle.replies import oracle_outcome_of
from mlops_integrations.backends.oracle.signing import MissingPackageError, OracleCredentials, domain_of
from mlops_integrations.backends.protocol import (
    MLFLOW_LIMITS,
    Batch,
    Kind,
    Metric,
    Outcome,
    ServerRun,
    run_tags,
    uid_filter,
)
from mlops_integrations.backends.rest.replies import (
    EXPERIMENT_DELETED,
    comparable,
    experiment_id_of,
    rows_of,
    server_run,
    taken,
    updated,
    without_texts_of,
)
from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.oracle_uri import OracleAddress
from mlops_integrations.config.settings import Access
from mlops_integrations.journal.records import RunSpec
from mlops_integrations.untrusted import one_line

DIALECT: Final = "oracle-aidp"
API: Final = "/api/2.0/mlflow"
NO_FILES: Final = "Oracle AI Data Platform has no call that takes files of a run"

# Oracle documents no sizes: MLflow's own are used, and a request that is still too large is halved.
# A token is known for 24 hours: one hour less, since clocks differ and attempts take time.
LIMITS: Final = replace(MLFLOW_LIMITS, finite=True, token_seconds=23 * 3600.0)

_HISTORY_PAGE: Final = 25_000
_RUNS_PAGE: Final = 100


def base_uri(address: OracleAddress) -> str:
    """Return the base URL of the MLflow API."""
    domain = "" if address.region is None else domain_of(address.region)
    return f"{address.base(domain)}/mlops"


class OracleBackend:
    """One workspace.

    Args:
        base: the base URL of the MLflow API.
        transport: the way to it.
        credentials: the transport's credentials, which sign requests.
    """

    dialect = DIALECT
    limits = LIMITS
    notes: Sequence[str] = ()

    def __init__(self, base: str, transport: Transport, credentials: OracleCredentials | None = None) -> None:
        self._base = base
        self._transport = transport
        self._credentials = credentials

    @classmethod
    def at(cls, address: OracleAddress, access: Access, transport: Transport | None = None) -> OracleBackend:
        """Return the backend for the workspace at this address."""
        if transport is not None:
            return cls(base_uri(address), transport)
        credentials = OracleCredentials(address, access)
        return cls(base_uri(address), Transport(access, credentials=credentials), credentials)

    def recognize(self, known: str | None) -> Outcome[str]:
        """The dialect is known from the address; check that requests can be signed."""
        try:
            if self._credentials is not None:
                self._credentials.open()
        except MissingPackageError as error:
            return Outcome(Kind.REFUSED, None, f"{error}; then `sync`")
        except NotSignedError as error:
            return Outcome(Kind.DENIED, None, str(error))
        return Outcome(Kind.OK, self.dialect)

    def open_experiment(self, name: str | None, experiment_id: str | None, token: str = "") -> Outcome[str]:
        """Get or create. A deleted experiment is refused; if another client creates it first, that one is used."""
        if experiment_id is not None:
            return self._experiment("get", {"experiment_id": experiment_id}, experiment_id)
        assert name is not None
        by_name = {"experiment_name": name}
        found = self._experiment("get-by-name", by_name, name)
        if found.kind is not Kind.REFUSED or found.code == EXPERIMENT_DELETED:
            return found
        made = self._post("experiments/create", {"name": name}, token)
        if made.kind is Kind.REFUSED:
            again = self._experiment("get-by-name", by_name, name)
            if again.ok:
                return again
        return taken(made, f"experiment {one_line(name)!r}", lambda body: str(body["experiment_id"]))

    def _experiment(self, call: str, query: dict[str, str], shown: str) -> Outcome[str]:
        return experiment_id_of(self._get(f"experiments/{call}", query), shown)

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None, token: str = "") -> Outcome[str]:
        """Create, with the tags that MLflow's own client sets, and ours."""
        tags = run_tags(spec, parent_run_id)
        body = {
            "experiment_id": experiment_id,
            "run_name": spec.name,
            "start_time": spec.start_time,
            "tags": [{"key": key, "value": value[: LIMITS.tag_length]} for key, value in tags.items()],
        }
        made = self._post("runs/create", body, token)
        return taken(made, "creating the run", lambda body: server_run(body["run"]).run_id)

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """Search by our uid tag."""
        runs: list[ServerRun] = []
        query = {"experiment_ids": [experiment_id], "filter": uid_filter(uid), "max_results": _RUNS_PAGE}
        for page in self._pages(lambda more: self._post("runs/search", {**query, **more}, "")):
            found = taken(page, "looking for the run", lambda body: [server_run(run) for run in body.get("runs") or ()])
            if not found.ok or found.value is None:
                return found
            runs += found.value
        return Outcome(Kind.OK, runs)

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run."""
        found = self._get("runs/get", {"run_id": run_id})
        return taken(found, f"run {one_line(run_id)}", lambda body: server_run(body["run"]))

    def send(self, run_id: str, batch: Batch, token: str = "") -> Outcome[None]:
        """Send one ``log-batch``."""
        body: dict[str, Any] = {"run_id": run_id}
        if batch.metrics:
            names = ("key", "value", "timestamp", "step")
            body["metrics"] = [dict(zip(names, metric, strict=True)) for metric in batch.metrics]
        for name, texts in (("params", batch.params), ("tags", batch.tags)):
            if texts:
                body[name] = [{"key": key, "value": value} for key, value in texts]
        return self._post("runs/log-batch", body, token).bare()

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """Look for metrics in their histories; parameters and tags are harmless to resend."""
        if everything and (batch.params or batch.tags):
            told = self._get("runs/get", {"run_id": run_id})
            unsent = taken(told, f"run {one_line(run_id)}", lambda body: without_texts_of(body["run"], batch))
            if unsent.value is None:
                return unsent
            batch = unsent.value
        wanted, kept = set(map(comparable, batch.metrics)), set[Metric]()
        for key in dict.fromkeys(metric[0] for metric in batch.metrics):
            query = {"run_id": run_id, "metric_key": key, "max_results": str(_HISTORY_PAGE)}
            for page in self._pages(lambda more, query=query: self._get("metrics/get-history", {**query, **more})):  # type: ignore[misc]
                if page.kind is Kind.REFUSED:  # a metric that was never logged
                    break
                history = taken(page, "the metric's history", rows_of)
                if not history.ok or history.value is None:
                    return history.failed()
                kept |= history.value & wanted
        left = [metric for metric in batch.metrics if comparable(metric) not in kept]
        return Outcome(Kind.OK, Batch(left, batch.params, batch.tags))

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """Refuse the file: the service has no call for it."""
        return Outcome(Kind.REFUSED, None, NO_FILES, "NO_FILES")

    def update_run(self, run_id: str, status: str, end_time: int | None, token: str = "") -> Outcome[None]:
        """``runs/update``."""
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_time is not None:
            body["end_time"] = end_time
        return updated(self._post("runs/update", body, token), run_id)

    def delete_run(self, run_id: str, token: str = "") -> Outcome[None]:
        """``runs/delete``, which a user may undo."""
        return self._post("runs/delete", {"run_id": run_id}, token).bare()

    def name_fault(self, name: str) -> str | None:
        """Oracle documents no rules for names, except that one is required."""
        return None if name else "no name"

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """None: the URL of a run's page is not known."""
        return None

    def _get(self, call: str, query: dict[str, str]) -> Outcome[dict[str, Any]]:
        return oracle_outcome_of(self._transport.get(f"{self._base}{API}/{call}", query), call)

    def _post(self, call: str, body: dict[str, Any], token: str) -> Outcome[dict[str, Any]]:
        headers = {"opc-retry-token": token} if token else {}
        reply = self._transport.post(f"{self._base}{API}/{call}", msgspec.json.encode(body), headers)
        return oracle_outcome_of(reply, call)

    def _pages(self, ask: Callable[[dict[str, str]], Outcome[dict[str, Any]]]) -> Iterator[Outcome[dict[str, Any]]]:
        """Yield every page, until one fails, or names no next page or one that was read before."""
        token, seen = "", {""}
        while True:
            page = ask({"page_token": token} if token else {})
            yield page
            token = str((page.value or {}).get("next_page_token") or "")
            if token in seen:
                return
            seen.add(token)
