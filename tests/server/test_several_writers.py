"""One run and several processes: ranks side by side, on one machine or two; a job that is requeued and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer, eventually
from trainer import Trainer, side_processes

RANK = """
import json, os, pathlib, sys, time
from mlops_integrations.framework_support.run_handle import RunHandle
rank, told = int(os.environ["RANK"]), pathlib.Path(sys.argv[1])

def broadcast(value):
    if rank == 0:
        told.with_suffix(".new").write_text(json.dumps(value))
        told.with_suffix(".new").replace(told)
        return value
    while not told.exists():
        time.sleep(0.01)
    uid, directory, is_open = json.loads(told.read_text())
    return uid, directory if directory.startswith(os.environ["MLOPS_DIR"]) else "/not/on/this/machine", is_open

handle = RunHandle(None, {"experiment_name": "ranks"})
handle.share(rank, broadcast)
handle.began()
for step in range(50):
    handle.run.log_metric("loss" if rank == 0 else f"rank{rank}/loss", step, step)
try:
    if rank == 1 and len(sys.argv) > 2:
        raise ValueError("bad shard")
    if rank == 0 and len(sys.argv) > 2:
        sys.stdin.readline()
        handle.ended("KILLED", "SIGTERM")
    else:
        handle.ended()
except ValueError as error:
    handle.failed(error)
"""

REQUEUED = """
import os, signal, sys, time
from mlops_integrations.framework_support.run_handle import RunHandle
handle = RunHandle(None, {"experiment_name": "requeued", "resume": os.environ.get("UID_OF_RUN")})
handle.began()
handle.run.log_metric("loss", 1)
if "UID_OF_RUN" not in os.environ:
    handle.requeued()
    handle.run.log_metric("loss", 2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
handle.ended()
"""


def start_rank(trainer: Trainer, server: MlflowServer, rank: int, root: Path, *arguments: str) -> subprocess.Popen[str]:
    """One process of a training."""
    path = trainer.directory / "rank.py"
    path.write_text(RANK)
    return subprocess.Popen(
        [sys.executable, str(path), str(trainer.directory / "told.json"), *arguments],
        cwd=trainer.directory,
        env=trainer.environment(MLFLOW_TRACKING_URI=server.uri, RANK=str(rank), MLOPS_DIR=str(root)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def uid_in(root: Path) -> str:
    """The uid of the only run in a root."""
    (directory,) = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    return RunDirectory(directory).spec().uid


@pytest.mark.parametrize("machines", ["one", "two"])
def test_ranks_record_into_one_run(server: MlflowServer, trainer: Trainer, machines: str) -> None:
    """One run with the points of both, FINISHED by rank 0; on a second machine rank 1 waits until the run is made."""
    roots = [trainer.root, trainer.root if machines == "one" else trainer.directory / "other"]
    ranks = [start_rank(trainer, server, rank, root) for rank, root in reversed(list(enumerate(roots)))]
    for process in ranks:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out

    run = server.closed(uid_in(trainer.root))
    assert run.info.status == "FINISHED"
    expected = [(key, step) for key in ("loss", "rank1/loss") for step in range(50)]
    eventually(lambda: [point[:2] for point in sorted(server.points(run.info.run_id))] == expected)
    assert uid_in(roots[1]) == uid_in(roots[0])
    eventually(lambda: side_processes(trainer.directory) == [])
    assert server.the_run(uid_in(trainer.root)).info.status == "FINISHED"


def test_a_higher_rank_that_fails(server: MlflowServer, trainer: Trainer) -> None:
    """The run is FAILED for the reason that began it, though rank 0 was only terminated."""
    first = start_rank(trainer, server, 0, trainer.root, "fails")
    second = start_rank(trainer, server, 1, trainer.root, "fails")
    assert second.communicate(timeout=60)[0] is not None
    first.communicate("go on\n", timeout=60)

    run = server.closed(uid_in(trainer.root))
    tags = run.data.tags
    assert (run.info.status, tags["mlops.exit.reason"]) == ("FAILED", "ValueError: bad shard")


def test_a_requeued_job_goes_on_later(server: MlflowServer, trainer: Trainer) -> None:
    """RUNNING while the job is in the queue, whatever ended its process; the next process goes on with the run."""
    done = trainer.run(REQUEUED, MLFLOW_TRACKING_URI=server.uri, SLURM_JOB_ID="17")
    assert done.returncode == -signal.SIGTERM, done.stderr
    uid = trainer.uid
    eventually(lambda: side_processes(trainer.directory) == [])
    run = server.the_run(uid)
    assert (run.info.status, run.info.end_time) == ("RUNNING", None)
    assert (run.data.tags["mlops.requeued"], run.data.tags["SLURM_JOB_ID"]) == ("true", "17")
    assert len(server.points(run.info.run_id)) == 2

    again = trainer.run(REQUEUED, MLFLOW_TRACKING_URI=server.uri, UID_OF_RUN=uid)
    assert again.returncode == 0, again.stderr
    eventually(lambda: server.the_run(uid).info.status == "FINISHED")
    assert len(server.points(run.info.run_id)) == 3
    assert len([path for path in trainer.root.iterdir() if not path.is_symlink() and path.is_dir()]) == 1
