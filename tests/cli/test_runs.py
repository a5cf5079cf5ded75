"""``runs``: the table, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from other_writers import drop_last_record, move_writer

Record = Callable[..., mlops.Run]


def test_runs_table(record: Record, server: FakeMlflow, out: Any) -> None:
    """A row tells name, status, last step and values, what is delivered, and the link; oldest first."""
    record("first", tracking_uri=server.uri)
    out("sync")
    record("second", points=7)
    code, said, _ = out("runs")
    header, first, second = said.splitlines()
    assert (0, "RUN") == (code, header.split()[0])
    assert first.startswith("first-")
    assert f"{server.uri}/#/experiments/1/runs/{server.run('first').run_id}" in first
    assert "  delivered  " in first
    assert ["6", "loss=0.14286", "7", "7 waiting"] == [cell.strip() for cell in second.split("  ") if cell.strip()][-4:]


def test_runs_as_json(record: Record, server: FakeMlflow, out: Any) -> None:
    """Programs get all fields of each run."""
    run = record(finish=False, tracking_uri=server.uri)
    run.log_metric("score", float("nan"), step=9)
    run.log_metric("score", "no number")
    run.finish(status="FAILED")
    out("sync")
    code, said, _ = out("runs", "--json")
    (fields,) = json.loads(said)
    run_id = server.run("baseline").run_id
    expected = {
        "directory": str(run.directory),
        "uid": run.uid,
        "name": "baseline",
        "status": "FAILED",
        "reason": None,
        "last_step": 9,
        "last_values": {"loss": 1 / 3, "score": "NaN"},
        "points": 4,
        "delivered": 4,
        "waiting": 0,
        "complete": True,
        "refused": {},
        "losses": {"metric that is no number": 1},
        "trouble": None,
        "run_id": run_id,
        "url": f"{server.uri}/#/experiments/1/runs/{run_id}",
        "tracking_uri": server.uri,
    }
    assert (0, expected) == (code, {key: fields[key] for key in expected})
    assert {"started", "ended"} == set(fields) - set(expected)


def test_runs_counts_what_a_killed_run_left(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run without an end is counted by reading it: delivered, refused and waiting points make the total."""
    run = record(finish=False, tracking_uri=server.uri)
    run.log_metric("bad//name", 1.0)
    out("sync")
    run.log_metric("loss", 0.0)
    (fields,) = json.loads(out("runs", "--json")[1])
    assert (5, 3, 1) == (fields["points"], fields["delivered"], fields["waiting"])
    run.finish()


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ({}, "RUNNING "),
        ({"start_time": "1"}, "FAILED (process disappeared)"),
        ({"boot_id": "another"}, "RUNNING? "),
    ],
    ids=["alive", "dead", "unknown"],
)
def test_runs_tells_who_is_alive(record: Record, out: Any, identity: dict[str, Any], expected: str) -> None:
    """A run that nobody closed runs, has disappeared, or can't be judged from here."""
    run = record()
    drop_last_record(run)
    move_writer(run, **identity)
    _, said, _ = out("runs")
    assert expected in said.splitlines()[1]


def test_runs_without_any(root: Path, out: Any) -> None:
    """No runs is no error; where others may be is said."""
    code, said, _ = out("runs")
    assert (0, True) == (code, f"No runs in {root}" in said)
    assert (0, "[\n]\n", "") == out("runs", "--json")
