"""The machine's clock is set back and forward while a training runs."""

from __future__ import annotations

import os
import signal

import pytest

from fake_mlflow import FakeMlflow
from hosts import delivered, points
from mlops_integrations.journal import lease
from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import eventually
from trainer import Trainer, side_processes

# Every clock that tells the date, in all modules of the process, an uploader thread included.
SET = """
import sys, time
shift = 0.0
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + shift
time.time_ns = lambda: real_ns() + int(shift * 1e9)
import mlops_integrations as mlops
"""

JUMPS = """
run = mlops.start_run(experiment_name='clock')
step = 0
for shift in (0.0, 3600.0, -86400.0, 0.5, -3600.0, 3e8, 0.0):
    for _ in range(100):
        run.log_metric('a', step, step=step)
        step += 1
    print(run.flush(60))
print(run.finish(timeout=60))
"""


@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_jumps_lose_and_delay_nothing(trainer: Trainer, fake: FakeMlflow, uploader: str) -> None:
    """Points carry the time that the clock showed; each flush comes to its end, and everything is delivered."""
    done = trainer.run(SET + JUMPS, MLFLOW_TRACKING_URI=fake.uri, MLOPS_UPLOADER=uploader)

    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 8), done.stderr
    assert list(range(700)) == [step for _, _, step in points(trainer.latest)]
    assert "thread" not in done.stderr
    delivered(fake, trainer.latest, "FINISHED")


BACK = """
run = mlops.start_run(experiment_name='clock')
run.log_metric('a', 0, step=0)
print(run.flush(60), flush=True)
sys.stdin.readline()
shift = -86400.0
run.log_metric('a', 1, step=1)
print('logged', flush=True)
sys.stdin.readline()
"""


def test_set_back_the_driver_is_looked_after_all_the_same(trainer: Trainer, fake: FakeMlflow) -> None:
    """A side process that dies is replaced at the next log call, not when the clock has caught up after a day."""
    process = trainer.start(SET + BACK, MLFLOW_TRACKING_URI=fake.uri)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "True\n"
    (first,) = side_processes(trainer.directory)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: lease.live_holder(trainer.latest) is None)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "logged\n"

    assert [first] != eventually(lambda: side_processes(trainer.directory))

    process.communicate("\n", timeout=60)
    delivered(fake, trainer.latest, "FINISHED")


ENDS = """
run = mlops.start_run(experiment_name='clock')
run.log_metric('a', 0, step=0)
run.finish('FAILED', timeout=0)
shift = -86400.0
{again}
run.log_metric('a', 1, step=1)
run.finish(timeout=0)
"""


@pytest.mark.parametrize("again", ["", "run = mlops.start_run(resume=run.uid)"], ids=["re-opened", "resumed"])
def test_set_back_between_two_ends(trainer: Trainer, fake: FakeMlflow, again: str) -> None:
    """How the run ended last counts, though the clock says that it was earlier."""
    done = trainer.run(SET + ENDS.format(again=again), MLFLOW_TRACKING_URI=fake.uri)

    assert done.returncode == 0, done.stderr
    ended = RunDirectory(trainer.latest).ending()
    assert ended is not None
    assert "FINISHED" == ended.status
    delivered(fake, trainer.latest, "FINISHED")
