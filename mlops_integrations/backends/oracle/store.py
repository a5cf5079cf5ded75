"""Creates, reads and searches the content of an Oracle AI Data Platform workspace: MLflow's calls with differences.

Only documented fields and calls; a retry token for each write, the same for all its attempts, so that every write may
be repeated; finite numbers only; files are listed, but neither sent nor read.
"""

# ruff: noqa: ARG002 - the arguments are those of every dialect

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from mlops_integrations.backends.credentials import NotSignedError
from mlops_integrations.backends.oracle.backend import API, DIALECT, LIMITS, base_uri
from mlops_integrations.backends.oracle.replies import oracle_outcome_of
from mlops_integrations.backends.oracle.signing import MissingPackageError, OracleCredentials
from mlops_integrations.backends.protocol import Outcome
from mlops_integrations.backends.rest import entities_json
from mlops_integrations.backends.rest.store import About, Fields, RestStore, clock_of
from mlops_integrations.backends.transport import Reply, Transport
from mlops_integrations.config.oracle_uri import OracleAddress
from mlops_integrations.config.settings import Access
from mlops_integrations.entities import Experiment, Metric, Param, Run, RunInfo, RunTag
from mlops_integrations.errors import AccessDeniedError, NotSupportedByServer
from mlops_integrations.untrusted import one_line


class OracleStore(RestStore):
    """One workspace as ``TrackingClient`` sees it."""

    dialect = DIALECT
    prefix = API
    limits = LIMITS
    notes = ("NaN and infinities are not taken", "files can be listed, but neither sent nor read")
    denied_hint = "see Oracle's configuration file, its profile and token"

    @classmethod
    def at(cls, address: OracleAddress, access: Access) -> OracleStore:
        """Return the store for the workspace at this address.

        Raises:
            ImportError: the package that signs is not installed.
            AccessDeniedError: there are no credentials to sign with.
        """
        credentials = OracleCredentials(address, access)
        try:
            credentials.open()
        except MissingPackageError as error:
            raise ImportError(str(error)) from None
        except NotSignedError as error:
            raise AccessDeniedError(str(error)) from error
        return cls(base_uri(address), Transport(access, credentials=credentials))

    def about(self) -> About:
        """The service reports only its clock, not its version."""
        reply = self._transport.post(self._url("experiments/search"), b'{"max_results":1}')
        return About(None, clock_of(reply), self.limits, self.notes)

    def get_experiment_by_name(self, name: str) -> Experiment:
        """One experiment; a deleted one, if no other has the name."""
        return entities_json.experiment(self._get("experiments/get-by-name", {"experiment_name": name})["experiment"])

    def list_experiments(self) -> Iterator[Experiment]:
        """All experiments, by a search: there is no list call."""
        for body in self._pages("POST", "experiments/search", {"max_results": 1_000}, "experiments"):
            yield entities_json.experiment(body)

    def create_run(self, experiment_id: str, about: RunInfo, tags: Mapping[str, str]) -> Run:
        """Create a run; the user is sent only as a tag, since the service itself knows the user of each request."""
        user = {} if about.user_id is None else {"mlflow.user": about.user_id}
        return super().create_run(experiment_id, replace(about, user_id=None), user | dict(tags))

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one finite value."""
        _check_finite([metric])
        super().log_metric(run_id, metric)

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log one batch in one request, or nothing of it if a value is not finite."""
        _check_finite(metrics)
        super().log_batch(run_id, metrics, params, tags)

    def open_artifact(self, run_id: str, path: str) -> Iterator[bytes]:
        """Refuse: the service has no call that returns files."""
        raise NotSupportedByServer(
            f"artifact {one_line(path)!r}: Oracle AI Data Platform has no call that gives files of a run; "
            "where they lie is in the run's artifact_uri"
        )

    def _outcome_of(self, reply: Reply, call: str) -> Outcome[dict[str, Any]]:
        # The retry token makes repeating safe, so a request that the service failed at (500) is worth another try.
        return replace(oracle_outcome_of(reply, call), suspect=False)

    def _write_headers(self, call: str) -> Mapping[str, str]:
        return {} if call.endswith("/search") else {"opc-retry-token": uuid.uuid4().hex}

    def _encode(self, fields: Fields) -> bytes:
        return msgspec.json.encode(fields)


def _check_finite(metrics: Sequence[Metric]) -> None:
    for metric in metrics:
        if not math.isfinite(metric.value):
            raise NotSupportedByServer(f"metric {one_line(metric.key)!r} is {metric.value}: Oracle takes numbers only")
