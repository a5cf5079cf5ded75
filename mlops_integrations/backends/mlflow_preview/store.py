"""A server of MLflow's 2018 preview API, as ``TrackingClient`` sees it."""

# ruff: noqa: ARG002 - the arguments are those of every dialect

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_integrations.backends.mlflow_preview.replies import (
    LIMITS,
    NO_STEPS,
    PREFIX,
    preview_outcome_of,
    twice_encoded,
)
from mlops_integrations.backends.protocol import Outcome
from mlops_integrations.backends.rest import entities_json, filters
from mlops_integrations.backends.rest.store import Fields, RestStore, metric_fields
from mlops_integrations.backends.transport import Reply
from mlops_integrations.entities import (
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
from mlops_integrations.errors import NotFoundError, NotSupportedByServer, ServerError
from mlops_integrations.untrusted import one_line


class PreviewStore(RestStore):
    """A server of MLflow's 2018 preview API, as ``TrackingClient`` sees it."""

    dialect = "mlflow-preview"
    limits = LIMITS
    notes = (NO_STEPS,)
    prefix = PREFIX
    run_key = "run_uuid"

    def create_experiment(self, name: str, artifact_location: str | None, tags: Mapping[str, str]) -> str:
        """Create an experiment, without tags; 0.2 and 0.3 have no artifact location."""
        if tags:
            raise NotSupportedByServer("experiments of the 2018 preview API have no tags")
        return super().create_experiment(name, artifact_location, {})

    def get_experiment(self, experiment_id: str) -> Experiment:
        """One experiment, with its runs."""
        body = self._get("experiments/get", {"experiment_id": experiment_id})
        return entities_json.experiment(body["experiment"], body.get("runs") or [])

    def list_experiments(self) -> Iterator[Experiment]:
        """All experiments, in one reply."""
        for body in self._get("experiments/list", {}).get("experiments") or ():
            yield entities_json.experiment(body)

    def get_experiment_by_name(self, name: str) -> Experiment:
        """One experiment, found in the list of all."""
        for experiment in self.list_experiments():
            if experiment.name == name:
                return experiment
        raise NotFoundError(f"there is no experiment {one_line(name)!r}", status=404)

    def create_run(self, experiment_id: str, about: RunInfo, tags: Mapping[str, str]) -> Run:
        """Create a run, then set its tags one by one: tags in the creation would ruin the experiment."""
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
        """Change status and end time."""
        if name is not None:
            raise NotSupportedByServer("the 2018 preview API can't rename a run")
        return super().update_run(run_id, status, end_time, None)

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one value, without its step."""
        fields = metric_fields(metric)
        del fields["step"]
        self._post("runs/log-metric", {"run_uuid": run_id, **fields})

    def log_param(self, run_id: str, param: Param) -> None:
        """Log one parameter, which must have no line breaks."""
        self.check_lines([param])
        super().log_param(run_id, param)

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log each item in a request of its own."""
        for param in params:
            self.log_param(run_id, param)
        for tag in tags:
            self.set_tag(run_id, tag)
        for metric in metrics:
            self.log_metric(run_id, metric)

    def get_param(self, run_id: str, key: str) -> Param:
        """One parameter, by a call of its own, which 0.9 no longer has."""
        try:
            return entities_json.param(self._get("params/get", {"run_uuid": run_id, "param_name": key})["parameter"])
        except NotSupportedByServer:
            return super().get_param(run_id, key)

    def get_metric(self, run_id: str, key: str) -> Metric:
        """The last value of a metric, by a call of its own, or from the run if the server has none."""
        try:
            return entities_json.metric(self._get("metrics/get", {"run_uuid": run_id, "metric_key": key})["metric"])
        except NotSupportedByServer:
            return super().get_metric(run_id, key)

    def get_metric_history(self, run_id: str, key: str) -> Iterator[Metric]:
        """Every value at once. For an unknown metric these servers only report a failure."""
        try:
            body = self._get("metrics/get-history", {"run_uuid": run_id, "metric_key": key})
        except ServerError:
            if any(metric.key == key for metric in self.get_run(run_id).data.metrics):
                raise
            return
        for each in body.get("metrics") or ():
            yield entities_json.metric(each)

    def list_artifacts(self, run_id: str, path: str | None) -> Iterator[FileInfo]:
        """Files right below a path. Up to 0.5 a run's directory is missing before its first file: listing fails."""
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
        """Search by typed conditions; servers up to 0.8 would ignore a filter string, and return every run."""
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
        """Read a file by the call of 2018, or by the one that replaced it in 0.5."""
        try:
            return self._stream(self._url("artifacts/get"), {"run_uuid": run_id, "path": path}, path)
        except NotSupportedByServer:
            return self._stream(f"{self.uri}/get-artifact", {"run_uuid": run_id, "path": path}, path)

    def _outcome_of(self, reply: Reply, call: str) -> Outcome[dict[str, Any]]:
        return preview_outcome_of(reply, call)

    def _encode(self, fields: Fields) -> bytes:
        return twice_encoded(fields)
