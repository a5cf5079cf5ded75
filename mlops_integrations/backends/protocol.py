"""The interface of every dialect to the uploader. A server's failure is a return value, not an exception."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast

from mlops_integrations.journal.records import RunSpec, Value

T = TypeVar("T")

UID_TAG: Final = "mlops.uid"
"""The tag by which a run is found again when the reply to its creation was lost."""

EXIT_REASON_TAG: Final = "mlops.exit.reason"
"""The tag with the reason of a run's end, unless it simply finished."""

Metric: TypeAlias = tuple[str, Value, int, int]
"""Key, value, time in ms since 1970, step."""

Text: TypeAlias = tuple[str, str]
"""Key and value of a parameter or tag."""


class Kind(enum.Enum):
    """The kind of a server call's result, which decides the next step."""

    OK = "ok"
    RETRY = "retry"
    """The server or the way to it is in trouble; the same call may work later."""
    DENIED = "denied"
    """Credentials were rejected (HTTP 401 or 403, or such an error code) or are missing."""
    REFUSED = "refused"
    """The server understood the request and does not accept it; repeating it is no use."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """The result of one server call."""

    kind: Kind
    value: T | None = None
    message: str = ""
    code: str | None = None
    """The server's own error code."""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    ambiguous: bool = False
    """The call may have been done all the same: the reply is missing, or does not say."""

    suspect: bool = False
    """The server failed at this very request, and may do so each time."""
    forgotten: bool = False
    """The server no longer knows this write's idempotency token: only its data shows whether the write was done."""
    request_id: str | None = None
    """The server's id of the request, for questions to its support."""
    unacknowledged: bool = False
    """Something answered, but not with this call's documented reply: only the data shows whether the call was done."""

    @property
    def ok(self) -> bool:
        """True if the call was done and acknowledged."""
        return self.kind is Kind.OK

    def bare(self) -> Outcome[None]:
        """The same outcome without its value."""
        return self.failed()

    def failed(self, message: str | None = None) -> Outcome[Any]:
        """The same failure as the outcome of an enclosing call: all that the server said stays with it.

        Args:
            message: the new message. Default: the same.
        """
        return cast("Outcome[Any]", replace(self, value=None, message=self.message if message is None else message))


@dataclass(frozen=True, slots=True)
class Limits:
    """A server's limits: items and bytes in one request, and lengths of texts (characters)."""

    metrics: int
    params: int
    tags: int
    request_bytes: int
    param_length: int
    tag_length: int
    one_line: bool = False
    """Texts can't have line breaks."""
    finite: bool = False
    """Metrics have no NaN and no infinities."""
    token_seconds: float = 0.0
    """Seconds for which the server recognizes a repeated write by its idempotency token, and does not do it twice."""


MLFLOW_LIMITS: Final = Limits(
    metrics=1_000, params=100, tags=100, request_bytes=1_000_000, param_length=6_000, tag_length=8_000
)
"""Limits of MLflow's own servers from 1.0 on, and of compatible ones."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one request: metrics, or params, or tags."""

    metrics: Sequence[Metric] = ()
    params: Sequence[Text] = ()
    tags: Sequence[Text] = ()

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches that together have the same content, to find out which part of it is refused."""
        m, p, t = (len(part) // 2 for part in (self.metrics, self.params, self.tags))
        return (
            Batch(self.metrics[:m], self.params[:p], self.tags[:t]),
            Batch(self.metrics[m:], self.params[p:], self.tags[t:]),
        )


@dataclass(frozen=True, slots=True)
class ServerRun:
    """A run as the server has it."""

    run_id: str
    experiment_id: str
    status: str
    active: bool
    """False: deleted on the server."""
    empty: bool
    """True: the run has no metric and no parameter."""
    reason: str | None = None
    """The reason of its end, if one was recorded."""


class Backend(Protocol):
    """One run's view of a tracking server.

    Each write has an idempotency ``token``: the same whenever that write is repeated, a different one for every other
    write. It is not sent to servers that have no tokens.
    """

    dialect: str
    limits: Limits
    notes: Sequence[str]
    """Messages about data that this kind of server can't keep, to be shown once."""

    def recognize(self, known: str | None) -> Outcome[str]:
        """Determine the server's dialect (unless it is known). Called before any other request."""

    def open_experiment(self, name: str | None, experiment_id: str | None, token: str) -> Outcome[str]:
        """Return the id of the experiment, which is created if the server has none of this name."""

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None, token: str) -> Outcome[str]:
        """Create the run, marked with its uid, and return the server's id."""

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """Return the runs that are not deleted and are marked with this uid."""

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run, deleted or not."""

    def send(self, run_id: str, batch: Batch, token: str) -> Outcome[None]:
        """Send one batch in one request. ``REFUSED`` means that nothing of it was stored."""

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """The part of a possibly resent batch that the server does not have yet.

        Args:
            run_id: the run.
            batch: items that may be there.
            everything: check each item. Default: items that are harmless to resend are returned unchecked.
        """

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """Send a file to the run's artifacts; ``glance`` is called meanwhile, and an exception from it ends that.

        ``REFUSED`` with a ``code`` means that it can't be done here at all.
        """

    def update_run(self, run_id: str, status: str, end_time: int | None, token: str) -> Outcome[None]:
        """Set the run's status."""

    def delete_run(self, run_id: str, token: str) -> Outcome[None]:
        """Delete a run."""

    def name_fault(self, name: str) -> str | None:
        """The reason why the server would certainly refuse a metric, parameter or tag of this name, or None."""

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """The URL of the run's web page; None if it is not known."""


def run_tags(spec: RunSpec, parent_run_id: str | None) -> dict[str, str]:
    """The tags of a new run: those that MLflow's own client sets, and ours."""
    tags = {
        UID_TAG: spec.uid,
        "mlflow.runName": spec.name,
        "mlflow.user": spec.user,
        "mlflow.source.name": spec.source_name,
        "mlflow.source.type": spec.source_type,
        "mlflow.parentRunId": parent_run_id,
    }
    return {key: value for key, value in tags.items() if value is not None}


def uid_filter(uid: str) -> str:
    """The search filter for runs marked with this uid, in MLflow's language."""
    return f"tags.`{UID_TAG}` = '{uid}'"
