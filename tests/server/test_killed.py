"""A trainer that is killed: what its log calls had returned from is on the server, and the run is closed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import time

import pytest

from mlops_integrations.journal import lease
from real_mlflow import MlflowServer, eventually
from trainer import Trainer, side_processes

KILLS = 20
KILLS_WITH_SIDE_PROCESS = 5

# Publishes in a shared mapping, which outlives it, the last step whose log call has returned.
ENDLESS = """
import mmap, struct, time
import mlops_integrations as mlops
with open('returned', 'r+b') as file:
    returned = mmap.mmap(file.fileno(), 8)
run = mlops.start_run(experiment_name='killed')
step = 0
while True:
    run.log_metrics({'loss': 1 / (step + 1), 'acc': float(step)}, step=step)
    struct.pack_into('q', returned, 0, step)
    step += 1
    if step % 10 == 0:
        time.sleep(0.005)
"""


def start(trainer: Trainer, **variables: str) -> subprocess.Popen[str]:
    """Start an endless training, and wait until its first log call has returned."""
    shutil.rmtree(trainer.root, ignore_errors=True)
    (trainer.directory / "returned").write_bytes(struct.pack("q", -1))
    process = trainer.start(ENDLESS, **variables)
    eventually(lambda: last_returned(trainer) >= 0)
    return process


def last_returned(trainer: Trainer) -> int:
    """The last step whose log call had returned."""
    return int(struct.unpack("q", (trainer.directory / "returned").read_bytes())[0])


def reap(process: subprocess.Popen[str]) -> None:
    """Wait for a killed process and close its pipes."""
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def check_everything_is_there(server: MlflowServer, trainer: Trainer) -> None:
    """The server holds the journal's points, and these include every one whose call had returned."""
    points = server.points(server.the_run(trainer.uid).info.run_id)
    assert points == trainer.recorded()
    assert {("loss", step) for step in range(last_returned(trainer) + 1)} <= {point[:2] for point in points}


def test_a_killed_trainer_loses_no_point_and_its_run_is_closed(server: MlflowServer, trainer: Trainer) -> None:
    """SIGKILL at random moments: the side process delivers every point and closes the run as KILLED, untold."""
    rng = random.Random(20)
    for _ in range(KILLS):
        process = start(trainer, MLFLOW_TRACKING_URI=server.uri)
        time.sleep(rng.uniform(0.0, 1.0))  # the moment is what is tested
        process.kill()
        reap(process)

        run = server.closed(trainer.uid)

        assert (run.info.status, run.data.tags["mlops.exit.reason"]) == ("KILLED", "SIGKILL")
        check_everything_is_there(server, trainer)
        eventually(lambda: not side_processes(trainer.directory))


def test_sync_finishes_what_a_killed_side_process_could_not(server: MlflowServer, trainer: Trainer) -> None:
    """Trainer and side process killed together: `sync` delivers every point and closes the run with its reason."""
    rng = random.Random(5)
    for _ in range(KILLS_WITH_SIDE_PROCESS):
        process = start(trainer, MLFLOW_TRACKING_URI=server.uri)
        time.sleep(rng.uniform(0.0, 1.0))  # the moment is what is tested
        for pid in (*side_processes(trainer.directory), process.pid):
            os.kill(pid, signal.SIGKILL)
        reap(process)

        synced = trainer.sync()

        assert synced.returncode == 0, synced.stderr
        run = server.the_run(trainer.uid)
        assert (run.info.status, run.data.tags["mlops.exit.reason"]) == ("FAILED", "process disappeared")
        check_everything_is_there(server, trainer)


def test_a_killed_side_process_is_replaced(server: MlflowServer, trainer: Trainer) -> None:
    """While the trainer lives and logs, a side process that dies is followed by another."""
    process = start(trainer, MLFLOW_TRACKING_URI=server.uri)
    (first,) = eventually(lambda: side_processes(trainer.directory))
    eventually(lambda: lease.live_holder(trainer.latest))
    os.kill(first, signal.SIGKILL)

    (second,) = eventually(lambda: [pid for pid in side_processes(trainer.directory) if pid != first])

    assert second != first
    process.kill()
    reap(process)
    assert server.closed(trainer.uid).info.status == "KILLED"
    check_everything_is_there(server, trainer)


def test_a_zombie_trainer_is_dead(server: MlflowServer, trainer: Trainer) -> None:
    """A killed trainer that nobody has waited for yet counts as dead, and tells how it ended."""
    process = start(trainer, MLFLOW_TRACKING_URI=server.uri)
    process.kill()

    run = server.closed(trainer.uid)

    assert process.returncode is None  # still not waited for
    assert (run.info.status, run.data.tags["mlops.exit.reason"]) == ("KILLED", "SIGKILL")
    reap(process)


FOREIGN = {
    "another host": {"host": "elsewhere", "boot_id": "of another machine"},
    "another boot of a machine of the same name": {"boot_id": "of another machine"},
    "another process namespace": {"pid_namespace": 1},
}


@pytest.mark.parametrize("identity", FOREIGN.values(), ids=FOREIGN)
def test_sync_from_elsewhere_delivers_but_closes_nothing(
    server: MlflowServer, trainer: Trainer, identity: dict[str, object]
) -> None:
    """Where the trainer can't be seen, `sync` delivers, leaves the run RUNNING and says so; `--close` closes it."""
    process = start(trainer)  # no server: nobody else delivers
    for pid in eventually(lambda: side_processes(trainer.directory)):
        os.kill(pid, signal.SIGKILL)  # it would see how the trainer ends
    make_foreign(trainer, identity)

    synced = trainer.sync("--to", server.uri)

    assert synced.returncode == 1, synced.stderr  # its status is left
    assert "sync --close" in synced.stdout
    run = server.the_run(trainer.uid)
    assert run.info.status == "RUNNING"
    assert server.points(run.info.run_id)
    process.kill()
    reap(process)
    closed = trainer.sync("--to", server.uri, "--close")
    assert closed.returncode == 0, closed.stderr
    assert server.the_run(trainer.uid).info.status == "FAILED"
    check_everything_is_there(server, trainer)


def make_foreign(trainer: Trainer, identity: dict[str, object]) -> None:
    """Rewrite the header of a live journal as if its writer ran elsewhere; the line keeps its length."""
    from msgspec import structs

    from mlops_integrations.journal import records

    (path,) = trainer.latest.glob("journal-*.jsonl")
    line = path.read_bytes().split(b"\n")[0]
    header = records.parse(line)
    assert isinstance(header, records.Header)
    writer = structs.replace(header.writer, **identity)
    fresh = records.frame(structs.replace(header, writer=writer, version=""))
    padding = len(line) + 1 - len(fresh)
    fresh = records.frame(structs.replace(header, writer=writer, version="x" * padding))
    assert len(fresh) == len(line) + 1
    with path.open("r+b") as file:
        file.write(fresh)
