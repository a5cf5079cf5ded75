"""Many real runs at once on one real server."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mlflow")

import many_runs
from real_mlflow import MlflowServer

PROCESSES = 8
RUNS = 8
POINTS = max(200, int(os.environ.get("FAULT_SEEDS", "0")))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One with enough connections to its database: with the default, 16 requests at once lock a worker up."""
    own = MlflowServer(tmp_path_factory.mktemp("mlflow"), MLFLOW_SQLALCHEMYSTORE_POOL_SIZE="64")
    own.start()
    yield own
    own.stop()


@pytest.mark.parametrize("uploader", ["process", "thread"] if "FAULT_SEEDS" in os.environ else ["process"])
def test_64_runs_at_once(server: MlflowServer, tmp_path: Path, uploader: str) -> None:
    """Eight processes of eight trainings: every point is there once, every run once, each with its own status."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "MLFLOW_TRACKING_URI": server.uri,
        "MLOPS_UPLOADER": uploader,
    }
    command = [sys.executable, many_runs.__file__]
    processes = [
        subprocess.Popen(
            [*command, str(number), str(RUNS), str(POINTS)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    ended = [process.communicate(timeout=280) for process in processes]
    assert [0] * PROCESSES == [process.returncode for process in processes], [err for _, err in ended]
    uids = {uid for out, _ in ended for uid in out.split()}
    assert len(uids) == PROCESSES * RUNS

    with sqlite3.connect(server.directory / "mlflow.db") as database:
        tagged = database.execute("select value, run_uuid from tags where key = 'mlops.uid'").fetchall()
        ids = {run_id for uid, run_id in tagged if uid in uids}
        runs = [row for row in database.execute("select run_uuid, name, status from runs") if row[0] in ids]
        points = [row for row in database.execute("select run_uuid, key, step from metrics") if row[0] in ids]
    expected = {
        (f"run-{process}-{number}", "FAILED" if number == 0 else "FINISHED")
        for process in range(PROCESSES)
        for number in range(RUNS)
    }
    assert len(expected) == len(ids) == len(runs)
    assert expected == {(name, status) for _, name, status in runs}
    assert {(run_id, key, step) for run_id in ids for key in ("loss", "step") for step in range(POINTS)} == set(points)
    assert len(points) == len(set(points))
