"""What every dialect offers to the uploader, and what it answers. A server's failure is an answer, no exception."""

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
"""Why a run ended, where it did not simply finish."""

Metric: TypeAlias = tuple[str, Value, int, int]
"""Key, value, time in ms since 1970, step."""

Text: TypeAlias = tuple[str, str]
"""Key and value of a parameter or tag."""


class Kind(enum.Enum):
    """What to do after a server call."""

    OK = "ok"
    RETRY = "retry"
    """The server or the way to it is in trouble; the same call may work later."""
    DENIED = "denied"
    """The credentials don't do."""
    REFUSED = "refused"
    """The server understood, and does not take this; asking again is no use."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one server call."""

    kind: Kind
    value: T | None = None
    message: str = ""
    code: str | None = None
    """The server's own error code."""
    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    ambiguous: bool = False
    """It may have been done all the same: the reply is missing, or says nothing of it."""

    suspect: bool = False
    """The server has failed at this very request, and may do so each time."""
    forgotten: bool = False
    """The server no longer knows the token of this write: whether it was done can only be seen from what is there."""
    request_id: str | None = None
    """The server's own name for the request, to ask its support by."""
    unacknowledged: bool = False
    """Something answered, but not with this call's documented reply: what is done can only be seen from what is there.
    """

    @property
    def ok(self) -> bool:
        """Whether the call was done and acknowledged."""
        return self.kind is Kind.OK

    def bare(self) -> Outcome[None]:
        """The same without its value."""
        return self.failed()

    def failed(self, message: str | None = None) -> Outcome[Any]:
        """The same failure for a call that this one was a part of: whatever the server said of it stays with it.

        Args:
            message: what to say instead. Default: the same.
        """
        return cast("Outcome[Any]", replace(self, value=None, message=self.message if message is None else message))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server takes in one request, and how long texts may be (characters)."""

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
    """How long the server knows a write by the token that it came with, so that asking again is no second write."""


MLFLOW_LIMITS: Final = Limits(
    metrics=1_000, params=100, tags=100, request_bytes=1_000_000, param_length=6_000, tag_length=8_000
)
"""Of MLflow's own servers from 1.0 on, and of those that do as they do."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The content of one request: metrics, or params, or tags."""

    metrics: Sequence[Metric] = ()
    params: Sequence[Text] = ()
    tags: Sequence[Text] = ()

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with the same content, to find out which part of it is refused."""
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
    """Holds no metric and no parameter."""
    reason: str | None = None
    """Why it ended, if that was ever said."""


class Backend(Protocol):
    """One run's view of a tracking server.

    A write comes with a ``token``, the same each time that it is asked for again, and another for every other write.
    Servers that know nothing of tokens are not told.
    """

    dialect: str
    limits: Limits
    notes: Sequence[str]
    """What becomes of things that this kind of server can't keep, to be said once."""

    def recognize(self, known: str | None) -> Outcome[str]:
        """Find out what the server speaks (unless that is known), before anything else is asked of it."""

    def open_experiment(self, name: str | None, experiment_id: str | None, token: str) -> Outcome[str]:
        """The id of the experiment, which is made if the server has none of this name."""

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None, token: str) -> Outcome[str]:
        """Make the run, marked with its uid; the server's id."""

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """The runs that are not deleted and are marked with this uid."""

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run, deleted or not."""

    def send(self, run_id: str, batch: Batch, token: str) -> Outcome[None]:
        """Deliver one request's worth. Refused means that nothing of it was taken."""

    def missing(self, run_id: str, batch: Batch, *, everything: bool = False) -> Outcome[Batch]:
        """The part of a batch that the server does not hold yet, where it may have been sent before.

        Args:
            run_id: the run.
            batch: what may be there.
            everything: look for each item. Left out, what may be sent again without harm is not looked for.
        """

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """Bring a file to the run's artifacts; ``glance`` is called meanwhile, and what it raises ends that.

        Refused with its code means that it can't be done here at all.
        """

    def update_run(self, run_id: str, status: str, end_time: int | None, token: str) -> Outcome[None]:
        """Set the run's status."""

    def delete_run(self, run_id: str, token: str) -> Outcome[None]:
        """Delete a run."""

    def name_fault(self, name: str) -> str | None:
        """Why the server would refuse a metric, parameter or tag of this name, where that is certain."""

    def run_url(self, experiment_id: str, run_id: str) -> str | None:
        """Where a person looks at the run; None where nobody tells."""


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
    """The search for the runs of our uid, in MLflow's language."""
    return f"tags.`{UID_TAG}` = '{uid}'"
