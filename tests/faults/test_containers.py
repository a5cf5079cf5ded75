"""A container or a job that dies as a whole takes the side process with it: what `sync` makes of what is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from conservation import TRIED
from fake_mlflow import FakeMlflow
from hosts import check, points
from real_mlflow import eventually
from trainer import Trainer, side_processes

KILLS = int(os.environ.get("FAULT_SEEDS", "0")) or 5

# Publishes in a shared mapping, which outlives it, the last step whose log call has returned.
ENDLESS = """
import mmap, struct, time
import mlops_integrations as mlops
with open('returned', 'r+b') as file:
    returned = mmap.mmap(file.fileno(), 8)
run = mlops.start_run(experiment_name='container')
step = 0
while True:
    run.log_metric('a', step / 7, step=step)
    struct.pack_into('q', returned, 0, step)
    step += 1
    if step % 10 == 0:
        time.sleep(0.005)
"""


def last_returned(trainer: Trainer) -> int:
    """The last step whose log call had returned."""
    return int(struct.unpack("q", (trainer.directory / "returned").read_bytes())[0])


@pytest.mark.root
@pytest.mark.program("unshare")
@pytest.mark.timeout(1800)
def test_a_container_that_is_killed(trainer: Trainer, fake: FakeMlflow) -> None:
    """From outside `sync` delivers every point, and says that the run is left open; `--close` closes it."""
    total = 0
    for seed in range(KILLS):
        (trainer.directory / "returned").write_bytes(struct.pack("q", -1))
        process = trainer.start(
            ENDLESS, wrapper=("unshare", "-pf", "--mount-proc", "--kill-child"), MLFLOW_TRACKING_URI=fake.uri
        )
        eventually(lambda: last_returned(trainer) >= 0)
        time.sleep(random.Random(seed).uniform(0.0, 1.0))  # the moment is what is tested
        process.kill()
        process.communicate(timeout=30)
        eventually(lambda: side_processes(trainer.directory) == [])

        lease = trainer.latest / "lease"
        if lease.exists():  # a minute later: until then its holder may live, for all that is known outside
            os.utime(lease, (time.time() - 61.0,) * 2)
        synced = trainer.sync(str(trainer.latest))
        assert (synced.returncode, "sync --close" in synced.stdout) == (1, True), (seed, synced.stdout)
        check(fake, trainer.latest, "RUNNING")
        closed = trainer.sync("--close", str(trainer.latest))
        assert closed.returncode == 0, (seed, closed.stdout)
        check(fake, trainer.latest, "FAILED")
        steps = [step for _, _, step in points(trainer.latest)]
        assert list(range(len(steps))) == steps
        assert len(steps) > last_returned(trainer)
        total += len(steps)
    TRIED.setdefault("containers", Counter()).update({"killed": KILLS, "points logged": total})


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group whose members can be stopped and killed all at once."""
    for root in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup"):
        made = Path(root) / f"mlops-fault-{os.getpid()}"
        with contextlib.suppress(OSError):
            made.mkdir()
            if (made / "freezer.state").exists() or (made / "cgroup.kill").exists():
                yield made
                eventually(lambda made=made: not (made / "cgroup.procs").read_text().strip())
                made.rmdir()
                return
            made.rmdir()
    pytest.skip("needs the right to make a control group that can be killed (root)")


def kill_all(group: Path) -> list[int]:
    """Kill every member; who they were."""
    members = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    if (group / "cgroup.kill").exists():
        (group / "cgroup.kill").write_text("1")
        return members
    (group / "freezer.state").write_text("FROZEN")
    eventually(lambda: (group / "freezer.state").read_text() == "FROZEN\n")
    members = [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
    for pid in members:
        os.kill(pid, signal.SIGKILL)
    (group / "freezer.state").write_text("THAWED")
    return members


@pytest.mark.root
@pytest.mark.timeout(1800)
def test_a_job_whose_control_group_is_killed(trainer: Trainer, fake: FakeMlflow, group: Path) -> None:
    """The side process is in it and dies, too. On the same machine `sync` delivers the rest and corrects the status."""
    total = 0
    joins = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
    for seed in range(KILLS):
        (trainer.directory / "returned").write_bytes(struct.pack("q", -1))
        process = trainer.start(joins + ENDLESS, MLFLOW_TRACKING_URI=fake.uri)
        eventually(lambda: last_returned(trainer) >= 0)
        time.sleep(random.Random(seed).uniform(0.0, 1.0))  # the moment is what is tested
        sides = side_processes(trainer.directory)
        assert set(sides) <= set(kill_all(group))
        process.communicate(timeout=30)
        eventually(lambda: side_processes(trainer.directory) == [])

        synced = trainer.sync(str(trainer.latest))

        assert synced.returncode == 0, (seed, synced.stdout, synced.stderr)
        check(fake, trainer.latest, "FAILED")
        steps = [step for _, _, step in points(trainer.latest)]
        assert list(range(len(steps))) == steps
        assert len(steps) > last_returned(trainer)
        total += len(steps)
    TRIED.setdefault("control groups", Counter()).update({"killed": KILLS, "points logged": total})
