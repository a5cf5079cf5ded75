"""``TrackingClient``: create, read and search a tracking server's content, by the same calls on every dialect.

For scripts and notebooks that look at runs; trainings log through a ``Run``, which never waits. Here a call waits for
the server, and raises an exception if it fails: see ``errors``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TypeVar

from mlops_integrations.clock import now_ms
from mlops_integrations.config.settings import access, from_arguments
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
    SourceType,
)
from mlops_integrations.errors import ServerError
from mlops_integrations.untrusted import stays_within

if TYPE_CHECKING:
    from mlops_integrations.backends.rest.store import About, RestStore

T = TypeVar("T")

_METRICS_IN_BATCH: Final = 1_000
_TEXTS_IN_BATCH: Final = 100
_RUNS_IN_PAGE: Final = 1_000


class TrackingClient:
    """A client of one tracking server.

    Args:
        tracking_uri: as ``start_run`` takes it. Default: ``MLFLOW_TRACKING_URI``.
        dialect: "mlflow", "mlflow-1.0", "mlflow-preview" or "oracle-aidp". Default: found from the
            URI, or by asking the server.

    Raises:
        ValueError: there is no tracking URI, it can't be used, or the dialect is unknown.
    """

    def __init__(self, tracking_uri: str | None = None, dialect: str | None = None) -> None:
        from mlops_integrations.backends.registry import DIALECTS

        self._settings = from_arguments(tracking_uri=tracking_uri)
        if self._settings.tracking_uri is None:
            raise ValueError("no tracking URI is given, and MLFLOW_TRACKING_URI names none")
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"dialect={dialect!r}: use one of {', '.join(map(repr, DIALECTS))}")
        self.tracking_uri = self._settings.tracking_uri
        """The server, without credentials."""
        self._dialect = dialect

    def __repr__(self) -> str:
        return f"<TrackingClient {self.tracking_uri}>"

    @functools.cached_property
    def _store(self) -> RestStore:
        from mlops_integrations.backends.registry import open_store

        return open_store(self.tracking_uri, access(self._settings), self._dialect)

    @property
    def dialect(self) -> str:
        """The server's dialect; the server is asked if neither the argument nor the URI names it."""
        return self._store.dialect

    def about(self) -> About:
        """The server's version and clock, its dialect's limits, and notes on data that it can't keep."""
        return self._store.about()

    @property
    def last_answer(self) -> Answer | None:
        """Metadata of the server's reply to this client's last successful request; None before the first."""
        return self._store.last_answer

    # -- experiments --------------------------------------------------------------------------------------------

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Make an experiment.

        Returns:
            Its id.

        Raises:
            AlreadyExistsError: the server has one of this name (servers before 0.8: a plain ServerError).
        """
        with _understood():
            return self._store.create_experiment(name, artifact_location, tags or {})

    def get_experiment(self, experiment_id: str | int) -> Experiment:
        """One experiment.

        Raises:
            NotFoundError: no experiment has this id.
        """
        with _understood():
            return self._store.get_experiment(str(experiment_id))

    def get_experiment_by_name(self, name: str) -> Experiment:
        """One experiment; a deleted one too, where the server returns those.

        Raises:
            NotFoundError: no experiment has this name.
        """
        with _understood():
            return self._store.get_experiment_by_name(name)

    def list_experiments(self) -> Iterator[Experiment]:
        """All experiments that are not deleted."""
        return _each_understood(self._store.list_experiments())

    # -- runs ---------------------------------------------------------------------------------------------------

    def create_run(
        self,
        experiment_id: str | int,
        run_name: str | None = None,
        *,
        start_time: int | None = None,
        user_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        source_type: SourceType | str | None = None,
        source_name: str | None = None,
        source_version: str | None = None,
        entry_point_name: str | None = None,
    ) -> Run:
        """Create a run with status RUNNING.

        Args:
            experiment_id: its experiment.
            run_name: its name.
            start_time: ms since 1970. Default: now.
            user_id: the user who runs it.
            tags: its tags.
            source_type: the kind of program that makes it.
            source_name: that program's name.
            source_version: that program's Git commit.
            entry_point_name: the project's entry point.

        Raises:
            ValueError: there is no such source type.
        """
        about = RunInfo(
            run_id="",
            experiment_id=str(experiment_id),
            name=run_name,
            start_time=now_ms() if start_time is None else int(start_time),
            user_id=user_id,
            source_type=None if source_type is None else SourceType(source_type),
            source_name=source_name,
            source_version=source_version,
            entry_point_name=entry_point_name,
        )
        with _understood():
            return self._store.create_run(str(experiment_id), about, tags or {})

    def get_run(self, run_id: str) -> Run:
        """One run with its content, deleted or not.

        Raises:
            NotFoundError: no experiment has this id.
        """
        with _understood():
            return self._store.get_run(run_id)

    def update_run(
        self,
        run_id: str,
        status: RunStatus | str | None = None,
        end_time: int | None = None,
        run_name: str | None = None,
    ) -> RunInfo:
        """Change the given fields.

        Args:
            run_id: the run.
            status: one of RUNNING, SCHEDULED, FINISHED, FAILED, KILLED.
            end_time: ms since 1970.
            run_name: its new name, where the server can change it.

        Raises:
            ValueError: there is no such status.
        """
        chosen = None if status is None else RunStatus(status)
        if chosen is RunStatus.UNKNOWN:
            raise ValueError("status 'UNKNOWN' is what a server may say, nothing that a run can be set to")
        with _understood():
            return self._store.update_run(run_id, chosen, end_time, run_name)

    def search_runs(
        self,
        experiment_ids: Iterable[str | int] | str | int | None = None,
        where: Clause | Sequence[Clause] | str = (),
        *,
        order_by: Sequence[str] = (),
    ) -> Iterator[Run]:
        """Runs that are not deleted and meet all conditions, page by page.

        Args:
            experiment_ids: the experiments to search, one or several. Default: all.
            where: conditions, as in ``MetricClause("loss", "<", 0.1)`` or ``ParamClause("lr", "==", "0.1")``; or a
                filter in the server's own language, where it has one.
            order_by: sort keys, as in "metrics.loss DESC", where the server can sort.

        Raises:
            ValueError: a condition can't be written in the server's language.
            NotSupportedByServer: the server would ignore the conditions or has no equivalent.
        """
        conditions = where if isinstance(where, (str, Sequence)) else (where,)
        if experiment_ids is None:
            chosen = [experiment.experiment_id for experiment in self.list_experiments()]
        elif isinstance(experiment_ids, (str, int)):
            chosen = [str(experiment_ids)]
        else:
            chosen = [str(experiment_id) for experiment_id in experiment_ids]
        return _each_understood(self._store.search_runs(chosen, conditions, order_by, _RUNS_IN_PAGE))

    # -- a run's content ----------------------------------------------------------------------------------------

    def log_metric(
        self, run_id: str, key: str, value: float, timestamp: int | None = None, step: int | None = None
    ) -> None:
        """Log one value of a metric.

        Args:
            run_id: the run.
            key: its name.
            value: its value; NaN and infinities are sent as MLflow's words for them.
            timestamp: ms since 1970. Default: now.
            step: Default: 0. Dropped by servers before 1.0, which have no steps.
        """
        at = now_ms() if timestamp is None else int(timestamp)
        with _understood():
            self._store.log_metric(run_id, Metric(key, float(value), at, 0 if step is None else int(step)))

    def log_param(self, run_id: str, key: str, value: object) -> None:
        """Log one parameter, as ``str(value)``."""
        with _understood():
            self._store.log_param(run_id, Param(key, str(value)))

    def set_tag(self, run_id: str, key: str, value: object) -> None:
        """Set one tag, as ``str(value)``."""
        with _understood():
            self._store.set_tag(run_id, RunTag(key, str(value)))

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        """Log any number of metrics, parameters and tags, in as few requests as the server takes."""
        with _understood():
            for texts in _parts(params, _TEXTS_IN_BATCH):
                self._store.log_batch(run_id, (), texts, ())
            for labels in _parts(tags, _TEXTS_IN_BATCH):
                self._store.log_batch(run_id, (), (), labels)
            for values in _parts(metrics, _METRICS_IN_BATCH):
                self._store.log_batch(run_id, values, (), ())

    def get_param(self, run_id: str, key: str) -> Param:
        """One parameter.

        Raises:
            NotFoundError: the run has no parameter of this name.
        """
        with _understood():
            return self._store.get_param(run_id, key)

    def get_metric(self, run_id: str, key: str) -> Metric:
        """The last value of a metric.

        Raises:
            NotFoundError: the run has no metric of this name.
        """
        with _understood():
            return self._store.get_metric(run_id, key)

    def get_metric_history(self, run_id: str, key: str) -> Iterator[Metric]:
        """Every value of a metric, in the server's order; no values for an unknown metric."""
        return _each_understood(self._store.get_metric_history(run_id, key))

    # -- artifacts ----------------------------------------------------------------------------------------------

    def list_artifacts(self, run_id: str, path: str | None = None) -> Iterator[FileInfo]:
        """Files and directories among a run's artifacts, right below ``path``."""
        return _each_understood(self._store.list_artifacts(run_id, path))

    def download_artifact(self, run_id: str, path: str, to: str | os.PathLike[str] = ".") -> Path:
        """Copy one of a run's artifacts to this machine, block by block.

        Args:
            run_id: the run.
            path: the file, as ``list_artifacts`` names it.
            to: the target directory; the file keeps its path below it.

        Returns:
            The downloaded file.

        Raises:
            ValueError: the path leads out of the directory.
            NotFoundError: there is no such file.
        """
        if not stays_within(path):
            raise ValueError(f"path={path!r}: use a relative path without '..'")
        target = Path(to) / PurePosixPath(path)
        if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(to)):
            raise ValueError(f"path={path!r} leads out of {to}")  # through a symbolic link in it
        blocks = self._store.open_artifact(run_id, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        try:
            with fresh.open("xb") as file:
                for block in blocks:
                    file.write(block)
            fresh.replace(target)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink()
        return target


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Turn exceptions from reading an unexpected reply into ServerError: it is the server's error, not ours."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ServerError(f"the answer is not a tracking server's: {type(error).__name__}: {error}") from error


def _each_understood(items: Iterator[T]) -> Iterator[T]:
    with _understood():
        yield from items


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
