"""Keeps and refuses what MLflow's stores keep and refuse, so that what is sent can be compared with what is held."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from typing import Any

from fake_mlflow import FakeRun, FakeStore, RefusedError
from faulty_server import Request

Point = tuple[str, float | str, int, int]
"""Key, value, time, step."""


class Store(FakeStore):
    """Keeps and refuses what MLflow does.

    Args:
        keeps_duplicates: a point that comes twice is there twice, as in file stores; else once, as in SQL stores.
    """

    def __init__(self, *, keeps_duplicates: bool = False) -> None:
        super().__init__()
        self.keeps_duplicates = keeps_duplicates
        self.copies: Counter[tuple[str, Point]] = Counter()
        """How often a run has a point."""
        self.malformed: list[str] = []
        """What a real server would have lost in silence."""

    def __call__(self, request: Request) -> tuple[int, bytes]:
        """Do what is asked."""
        if request.call == "/api/3.0/mlflow/server-info":
            return 200, json.dumps({"store_type": "FileStore" if self.keeps_duplicates else "SqlStore"}).encode()
        status, body = self.do(request.call, request.fields())
        if body.get("error_code") == "ENDPOINT_NOT_FOUND":
            return 404, b"<!doctype html><title>404 Not Found</title>"
        return status, json.dumps(body).encode()

    def _runs_log_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        metrics, params, tags = (body.get(part, []) for part in ("metrics", "params", "tags"))
        if len(metrics) > 1_000 or len(params) > 100 or len(tags) > 100:
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", "A batch logging request can contain at most 1000")
        for entry in (*metrics, *params, *tags):
            if not _is_valid_name(entry["key"]):
                raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"Invalid name {entry['key']!r}")
        self.malformed += [repr(entry) for entry in metrics if not _is_well_formed(entry)]
        answer = super()._runs_log_batch(body)
        for one in metrics:
            at = body["run_id"], (one["key"], one["value"], one["timestamp"], one["step"])
            self.copies[at] = self.copies[at] + 1 if self.keeps_duplicates else 1
        return answer

    def _metrics_get_history(self, body: dict[str, Any]) -> dict[str, Any]:
        run = self._known(body)
        found = [point for point in run.metrics if point[0] == body["metric_key"]]
        rows = [point for point in found for _ in range(self.copies[run.run_id, point])]
        return {
            "metrics": [{"key": key, "value": value, "timestamp": at, "step": step} for key, value, at, step in rows]
        }

    def runs_of(self, uid: str) -> list[FakeRun]:
        """The runs of our uid that are not deleted."""
        return [run for run in self.runs.values() if run.tags.get("mlops.uid") == uid and not run.deleted]


def _is_valid_name(name: str) -> bool:
    plain = re.fullmatch(r"[/\w.\- :]+", name) is not None and len(name) <= 250
    return plain and posixpath.normpath(name) == name and not name.startswith(("/", ".."))


def _is_well_formed(metric: dict[str, Any]) -> bool:
    value, at, step = metric["value"], metric["timestamp"], metric["step"]
    number = isinstance(value, (int, float)) and abs(value) < float("inf")
    whole = all(type(one) is int and -(2**63) <= one < 2**63 for one in (at, step)) and at >= 0
    return whole and (number or value in {"NaN", "Infinity", "-Infinity"})
