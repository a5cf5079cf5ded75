"""Reads JSON of any MLflow dialect into entities. Pure.

Ids come as numbers or strings, 64-bit integers as strings, empty lists are left out; a run's id is called ``run_id``
or ``run_uuid``, and the place of its name and tags differs. Missing optional fields become None.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mlops_integrations.entities import (
    Experiment,
    FileInfo,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunStatus,
    RunTag,
    SourceType,
)
from mlops_integrations.journal.records import Value, spell

Json = Mapping[str, Any]

_STATUS_NUMBERS: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_SOURCE_NUMBERS: Final = {1: "NOTEBOOK", 2: "JOB", 3: "PROJECT", 4: "LOCAL", 1000: "UNKNOWN"}


def experiment(body: Json, runs: list[Json] | None = None) -> Experiment:
    """An experiment; with its runs, where the reply holds them."""
    return Experiment(
        experiment_id=str(body["experiment_id"]),
        name=str(body.get("name", "")),
        artifact_location=_text(body.get("artifact_location")),
        lifecycle_stage=_text(body.get("lifecycle_stage")),
        creation_time=_integer(body.get("creation_time")),
        last_update_time=_integer(body.get("last_update_time")),
        tags=tuple(_tags(body)),
        runs=None if runs is None else tuple(run_info(run) for run in runs),
        etag=_text(body.get("etag")),
    )


def run(body: Json) -> Run:
    """A run with its content."""
    info, data = body["info"], body.get("data") or {}
    tags = tuple(_tags(data)) or tuple(_tags(info))  # before 0.6 they were in the info
    return Run(
        info=run_info(info, {tag.key: tag.value for tag in tags}),
        data=RunData(
            metrics=tuple(metric(each) for each in data.get("metrics") or ()),
            params=tuple(param(each) for each in data.get("params") or ()),
            tags=tags,
        ),
        etag=_text(body.get("etag")),
    )


def run_info(info: Json, tags: Mapping[str, str] | None = None) -> RunInfo:
    """A run's info. Fields that servers from 1.0 on keep in tags are read from there."""
    known = tags or {}
    return RunInfo(
        run_id=str(info.get("run_id") or info["run_uuid"]),
        experiment_id=str(info["experiment_id"]),
        name=_text(info.get("run_name") or info.get("name") or known.get("mlflow.runName")),
        status=_status(info.get("status")),
        start_time=_integer(info.get("start_time")),
        end_time=_integer(info.get("end_time")),
        user_id=_text(info.get("user_id") or known.get("mlflow.user")),
        artifact_uri=_text(info.get("artifact_uri")),
        lifecycle_stage=_text(info.get("lifecycle_stage")),
        source_type=_source_type(info.get("source_type") or known.get("mlflow.source.type")),
        source_name=_text(info.get("source_name") or known.get("mlflow.source.name")),
        source_version=_text(info.get("source_version") or known.get("mlflow.source.git.commit")),
        entry_point_name=_text(info.get("entry_point_name") or known.get("mlflow.project.entryPoint")),
    )


def metric(body: Json) -> Metric:
    """One value of a metric. NaN and infinities come as words; SQL stores keep infinities as the largest float."""
    return Metric(
        key=str(body["key"]),
        value=number(body.get("value", 0.0)),
        timestamp=_integer(body.get("timestamp")) or 0,
        step=_integer(body.get("step")),
    )


def param(body: Json) -> Param:
    """A parameter; an empty value may be left out."""
    return Param(str(body["key"]), str(body.get("value", "")))


def file_info(body: Json) -> FileInfo:
    """A file or directory; the size of an empty file may be left out."""
    is_dir = bool(body.get("is_dir", False))
    return FileInfo(str(body["path"]), is_dir, None if is_dir else _integer(body.get("file_size")) or 0)


def number(value: object) -> float:
    """A float from a number or one of the words "NaN", "Infinity", "-Infinity".

    Raises:
        ValueError: the value is neither.
    """
    if isinstance(value, str):
        return {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value) or float(value)
    if isinstance(value, (int, float)):
        return float(value)
    raise ValueError(f"{value!r} is no number")


def comparable(value: float) -> Value:
    """The value as it is sent; the largest floats become infinities, since SQL stores keep infinities as these."""
    return spell(math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value)


def _tags(body: Json) -> Iterator[RunTag]:
    for tag in body.get("tags") or ():
        yield RunTag(str(tag["key"]), str(tag.get("value", "")))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _integer(value: object) -> int | None:
    return int(value) if isinstance(value, (int, str)) and value != "" else None


def _status(value: object) -> RunStatus:
    name = _STATUS_NUMBERS.get(value, "") if isinstance(value, int) else str(value)
    return RunStatus[name] if name in RunStatus.__members__ else RunStatus.UNKNOWN


def _source_type(value: object) -> SourceType | None:
    if value is None:
        return None
    name = _SOURCE_NUMBERS.get(value, "") if isinstance(value, int) else str(value)
    return SourceType[name] if name in SourceType.__members__ else SourceType.UNKNOWN
