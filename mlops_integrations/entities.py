"""A tracking server's content as typed values, the same for every dialect. Imports no other module of ours.

Names and meanings are those of MLflow's REST API, from the 2018 preview to today's. Fields that a server does not
report are None.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final, TypeAlias


class RunStatus(str, enum.Enum):
    """A run's status."""

    RUNNING = "RUNNING"
    SCHEDULED = "SCHEDULED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    UNKNOWN = "UNKNOWN"
    """The server reports no status, or one that MLflow's API does not have."""

    def __str__(self) -> str:
        return self.value


class SourceType(str, enum.Enum):
    """The kind of program that made a run."""

    NOTEBOOK = "NOTEBOOK"
    JOB = "JOB"
    PROJECT = "PROJECT"
    LOCAL = "LOCAL"
    UNKNOWN = "UNKNOWN"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of a metric."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since 1970."""
    step: int | None = None
    """None: this server has no steps."""


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunTag:
    """One tag of a run, or of an experiment."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run's description, without metrics, parameters and tags. Times are milliseconds since 1970."""

    run_id: str
    experiment_id: str
    name: str | None = None
    status: RunStatus = RunStatus.UNKNOWN
    start_time: int | None = None
    end_time: int | None = None
    user_id: str | None = None
    artifact_uri: str | None = None
    lifecycle_stage: str | None = None
    """ "active" or "deleted"."""
    source_type: SourceType | None = None
    source_name: str | None = None
    source_version: str | None = None
    entry_point_name: str | None = None


@dataclass(frozen=True, slots=True)
class RunData:
    """A run's content: the last value of each metric, parameters, tags."""

    metrics: tuple[Metric, ...] = ()
    params: tuple[Param, ...] = ()
    tags: tuple[RunTag, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A run."""

    info: RunInfo
    data: RunData = field(default_factory=RunData)
    etag: str | None = field(default=None, compare=False)
    """The run's ETag, where the server sends one; it changes with the run's state."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment."""

    experiment_id: str
    name: str
    artifact_location: str | None = None
    lifecycle_stage: str | None = None
    creation_time: int | None = None
    last_update_time: int | None = None
    tags: tuple[RunTag, ...] = ()
    runs: tuple[RunInfo, ...] | None = None
    """Its runs, where the server returns them with the experiment (the 2018 preview does)."""
    etag: str | None = field(default=None, compare=False)
    """The experiment's ETag, where the server sends one."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or directory among a run's artifacts."""

    path: str
    is_dir: bool
    file_size: int | None = None
    """Bytes; None for a directory."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Metadata of a server's reply to a successful request."""

    request_id: str | None = None
    """The server's id of the request, by which its support finds it."""
    etag: str | None = None
    """The ETag of the object that was read or changed."""


NUMBER_COMPARATORS: Final = (">", ">=", "==", "!=", "<=", "<")
TEXT_COMPARATORS: Final = ("==", "!=", "~")


@dataclass(frozen=True, slots=True)
class MetricClause:
    """A condition on the last value of a metric.

    Raises:
        ValueError: the comparator does not exist.
    """

    key: str
    comparator: str
    value: float

    def __post_init__(self) -> None:
        _check(self.comparator, NUMBER_COMPARATORS)


@dataclass(frozen=True, slots=True)
class ParamClause:
    """A condition on a parameter. ``~`` is in the 2018 API document, but no known server accepts it.

    Raises:
        ValueError: the comparator does not exist.
    """

    key: str
    comparator: str
    value: str

    def __post_init__(self) -> None:
        _check(self.comparator, TEXT_COMPARATORS)


Clause: TypeAlias = MetricClause | ParamClause


def _check(comparator: str, allowed: tuple[str, ...]) -> None:
    if comparator not in allowed:
        raise ValueError(f"comparator {comparator!r}: use one of {', '.join(allowed)}")
