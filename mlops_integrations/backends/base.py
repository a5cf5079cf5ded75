"""What every dialect offers to the uploader, and what it answers. A server's failure is an answer, no exception."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from mlops_integrations.journal.records import RunSpec, Value
from mlops_integrations.settings import Access

if TYPE_CHECKING:
    from mlops_integrations.backends.http import Transport
    from mlops_integrations.backends.store import Store

T = TypeVar("T")

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

    @property
    def ok(self) -> bool:
        """Whether the call was done and acknowledged."""
        return self.kind is Kind.OK

    def bare(self) -> Outcome[None]:
        """The same without its value."""
        return Outcome(self.kind, None, self.message, self.code, self.retry_after, self.ambiguous, self.suspect)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server takes in one request, and how long texts may be (characters)."""

    metrics: int
    params: int
    tags: int
    request_bytes: int
    param_length: int
    tag_length: int


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


class Backend(Protocol):
    """One run's view of a tracking server."""

    limits: Limits

    def open_experiment(self, name: str | None, experiment_id: str | None) -> Outcome[str]:
        """The id of the experiment, which is made if the server has none of this name."""

    def create_run(self, experiment_id: str, spec: RunSpec, parent_run_id: str | None) -> Outcome[str]:
        """Make the run, marked with its uid; the server's id."""

    def find_runs(self, experiment_id: str, uid: str) -> Outcome[list[ServerRun]]:
        """The runs that are not deleted and are marked with this uid."""

    def get_run(self, run_id: str) -> Outcome[ServerRun]:
        """One run, deleted or not."""

    def send(self, run_id: str, batch: Batch) -> Outcome[None]:
        """Deliver one request's worth. Refused means that nothing of it was taken."""

    def send_artifact(self, run_id: str, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
        """Bring a file to the run's artifacts; ``glance`` is called meanwhile, and what it raises ends that.

        Refused with its code means that it can't be done here at all.
        """

    def update_run(self, run_id: str, status: str, end_time: int | None) -> Outcome[None]:
        """Set the run's status."""

    def delete_run(self, run_id: str) -> Outcome[None]:
        """Delete a run."""

    def name_fault(self, name: str) -> str | None:
        """Why the server would refuse a metric, parameter or tag of this name, where that is certain."""

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """Where a person looks at the run."""


def open_backend(tracking_uri: str, access: Access, transport: Transport | None = None) -> Backend:
    """The dialect that speaks to this server. Does not contact it.

    Raises:
        ValueError: the settings contradict each other, or a credentials file can't be read.
    """
    from mlops_integrations.backends.http import Transport
    from mlops_integrations.backends.mlflow import MlflowBackend

    return MlflowBackend(tracking_uri, transport or Transport(access))


def open_store(tracking_uri: str, access: Access, dialect: str | None = None) -> Store:
    """What this server keeps, for reading and writing call by call.

    Raises:
        ValueError: there is no such dialect, or the settings contradict each other.
    """
    from mlops_integrations.backends.http import Transport
    from mlops_integrations.backends.mlflow import outcome_of
    from mlops_integrations.backends.store import Store

    if dialect not in {None, "mlflow"}:
        raise ValueError(f"dialect={dialect!r}: use 'mlflow'")
    return Store(tracking_uri, Transport(access), outcome_of)
