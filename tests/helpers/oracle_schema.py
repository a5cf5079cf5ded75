"""The tracking calls that Oracle documents for AI Data Platform: verbs, fields, and what an answer holds.

A field's kind is "text", "int" (64 bits), "number", "bool", a list of one kind, or an object of fields; ``!`` behind a
name marks what is required.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Kind = Any
Fields = Mapping[str, Kind]

TAG: Fields = {"key!": "text", "value!": "text"}
PAIR: Fields = {"key": "text", "value": "text"}
METRIC: Fields = {"key": "text", "value": "number", "timestamp": "int", "step": "int"}

EXPERIMENT: Fields = {
    "experiment_id!": "text",
    "name": "text",
    "artifact_location": "text",
    "lifecycle_stage": "text",
    "creation_time": "int",
    "last_update_time": "int",
    "tags": [PAIR],
}
INFO: Fields = {
    "run_id": "text",
    "run_uuid": "text",
    "run_name": "text",
    "experiment_id": "text",
    "status": "text",
    "start_time": "int",
    "end_time": "int",
    "artifact_uri": "text",
    "lifecycle_stage": "text",
    "user_id": "text",
}
RUN: Fields = {"info": INFO, "data": {"metrics": [METRIC], "params": [PAIR], "tags": [PAIR]}}


@dataclass(frozen=True)
class Call:
    """One documented call."""

    verb: str
    fields: Fields
    answer: Fields
    writes: bool = False
    """A POST that changes something: it may have a retry token, and its answer has an etag."""
    lists: bool = False


def _write(fields: Fields, answer: Fields) -> Call:
    return Call("POST", fields, answer, writes=True)


CALLS: Mapping[str, Call] = {
    "experiments/create": _write(
        {"name!": "text", "artifact_location": "text", "tags": [TAG]}, {"experiment_id": "text"}
    ),
    "experiments/get": Call("GET", {"experiment_id!": "text"}, {"experiment": EXPERIMENT}),
    "experiments/get-by-name": Call("GET", {"experiment_name!": "text"}, {"experiment": EXPERIMENT}),
    "experiments/search": Call(
        "POST",
        {"filter": "text", "max_results": "int", "order_by": ["text"], "page_token": "text", "view_type": "text"},
        {"experiments": [EXPERIMENT], "next_page_token": "text"},
        lists=True,
    ),
    "runs/create": _write(
        {"experiment_id": "text", "run_name": "text", "start_time": "int", "tags": [PAIR]}, {"run": RUN}
    ),
    "runs/get": Call("GET", {"run_id!": "text"}, {"run": RUN}),
    "runs/update": _write(
        {"run_id!": "text", "status": "text", "end_time": "int", "run_name": "text"}, {"run_info": INFO}
    ),
    "runs/search": Call(
        "POST",
        {
            "experiment_ids": ["text"],
            "filter": "text",
            "max_results": "int",
            "order_by": ["text"],
            "page_token": "text",
            "run_view_type": "text",
        },
        {"runs": [RUN], "next_page_token": "text"},
        lists=True,
    ),
    "runs/delete": _write({"run_id!": "text", "is_permanent": "bool"}, {}),
    "runs/set-tag": _write({"run_id!": "text", "key!": "text", "value!": "text"}, {}),
    "runs/log-metric": _write(
        {"run_id!": "text", "key!": "text", "value!": "number", "timestamp!": "int", "step": "int"}, {}
    ),
    "runs/log-parameter": _write({"run_id!": "text", "key!": "text", "value!": "text"}, {}),
    "runs/log-batch": _write({"run_id!": "text", "metrics": [METRIC], "params": [PAIR], "tags": [PAIR]}, {}),
    "metrics/get-history": Call(
        "GET",
        {"run_id!": "text", "metric_key!": "text", "max_results": "int", "page_token": "text"},
        {"metrics": [METRIC], "next_page_token": "text"},
        lists=True,
    ),
    "artifacts/list": Call(
        "GET",
        {"run_id!": "text", "path": "text", "page_token": "text"},
        {
            "root_uri": "text",
            "files": [{"path": "text", "is_dir": "bool", "file_size": "int"}],
            "next_page_token": "text",
        },
        lists=True,
    ),
}


def faults(fields: Fields, given: Any, where: str = "") -> Iterator[str]:
    """What about ``given`` is not documented so."""
    if not isinstance(given, dict):
        yield f"{where or 'the body'} is no object"
        return
    known = {name.rstrip("!"): kind for name, kind in fields.items()}
    yield from (f"{where}{name} is not documented" for name in given if name not in known)
    yield from (f"{where}{name[:-1]} is missing" for name in fields if name.endswith("!") and name[:-1] not in given)
    for name, value in given.items():
        if name in known:
            yield from _faults_of(known[name], value, f"{where}{name}")


def _faults_of(kind: Kind, value: Any, where: str) -> Iterator[str]:
    if isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for entry in value:
            yield from _faults_of(kind[0], entry, where)
    elif isinstance(kind, Mapping):
        yield from faults(kind, value, f"{where}.")
    elif not _is(kind, value):
        yield f"{where} is no {kind}: {value!r}"


def _is(kind: str, value: Any) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, str)


def documented(fields: Fields, given: Any) -> Any:
    """What of an answer is documented."""
    known = {name.rstrip("!"): kind for name, kind in fields.items()}
    return {name: _documented_of(known[name], value) for name, value in given.items() if name in known}


def _documented_of(kind: Kind, value: Any) -> Any:
    if isinstance(kind, list):
        return [_documented_of(kind[0], entry) for entry in value]
    return documented(kind, value) if isinstance(kind, Mapping) else value
