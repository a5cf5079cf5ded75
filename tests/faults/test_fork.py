"""Forks at any moment, spawned workers, threads: the parent's journal is whole, and no child hangs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fake_mlflow import FakeMlflow
from hosts import delivered, losses, points
from trainer import Trainer

FORKS = int(os.environ.get("FAULT_SEEDS", "0")) * 100 or 1_000

FORK = """
import os, random, signal, sys, threading, time
import mlops_integrations as mlops

rng = random.Random(int(sys.argv[1]))
run = mlops.start_run(experiment_name='forks')
logged, stop = [0, 0], threading.Event()

def log(number):
    while not stop.is_set():
        run.log_metrics({f'thread {number}': 1.0, 'next': 0.0}, step=logged[number])
        run.log_params({f'p{number}': 1})
        logged[number] += 1
        time.sleep(0.0005)  # or there are millions to be delivered

def others():  # runs that begin and end all the time
    while not stop.is_set():
        with mlops.start_run(mode='offline', uploader='thread') as other:
            other.log_metric('a', 1.0)
        time.sleep(0.002)

def child():
    signal.alarm(60)  # one that hangs is told from one that ends
    how = rng.randrange(4)
    run.log_metrics({'child': 1.0}, step=1)
    run.log_param('child', 1)
    if how == 0:
        with mlops.start_run(mode='offline', uploader='thread') as own:
            own.log_metric('own', 1.0)
    if how == 1:
        run.flush(timeout=600)
        run.finish(timeout=600)
    if how == 2:
        sys.exit(0)
    os._exit(0)

threads = [threading.Thread(target=log, args=(number,)) for number in range(2)] + [threading.Thread(target=others)]
for thread in threads:
    thread.start()
codes = set()
for number in range(int(sys.argv[2])):
    rng.random()
    pid = os.fork()
    if pid == 0:
        child()
    codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(run.directory, codes, *logged, sep='\\t')
print(run.finish(timeout=60))
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_forks_at_any_moment_while_threads_log(trainer: Trainer, fake: FakeMlflow, uploader: str) -> None:
    """Thousands of forks, in the middle of log calls, starts and ends: every child ends, every point is there once."""
    for seed in range(0, FORKS // 2, 500):
        script = FORK.replace("sys.argv[1]", str(seed)).replace("sys.argv[2]", "500")
        process = trainer.start(script, MLFLOW_TRACKING_URI=fake.uri, MLOPS_UPLOADER=uploader, MLOPS_QUIET="1")
        out, err = process.communicate(timeout=240)
        repeat = (
            f"seed {seed}: FAULT_SEEDS={FORKS // 100} pytest tests/faults/test_fork.py -k {uploader}\n{err[-2000:]}"
        )

        directory, codes, *logged = out.splitlines()[0].split("\t")
        assert "{0}" == codes, repeat
        assert "True" == out.splitlines()[1], repeat
        found = points(Path(directory))
        for number, count in enumerate(logged):
            assert list(range(int(count))) == [step for key, _, step in found if key == f"thread {number}"], repeat
        assert sum(map(int, logged)) == sum(key == "next" for key, _, _ in found), repeat
        assert "child" not in {key for key, _, _ in found}, repeat
        assert {} == losses(Path(directory)), repeat
        assert "Traceback" not in err, repeat
        delivered(fake, Path(directory), "FINISHED")


SPAWN = """
import multiprocessing, os, sys
import mlops_integrations as mlops

def work(run, number):
    for step in range(200):
        run.log_metric(f'worker {number}', step, step=step)

if __name__ == '__main__':
    run = mlops.start_run(experiment_name='spawn')
    context = multiprocessing.get_context(sys.argv[1])
    workers = [context.Process(target=work, args=(run, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for step in range(200):
        run.log_metric('parent', step, step=step)
    for worker in workers:
        worker.join()
    print({worker.exitcode for worker in workers})
    print(run.finish(timeout=60))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_workers_record_into_the_same_run(trainer: Trainer, fake: FakeMlflow, method: str) -> None:
    """Each through a journal file of its own; all of it is delivered, and the run ends as the parent says."""
    script = SPAWN.replace("sys.argv[1]", repr(method))
    # A worker that waited for the end of the whole run, which is its parent's business, would wait for an hour.
    process = trainer.start(script, MLFLOW_TRACKING_URI=fake.uri, MLOPS_FINISH_TIMEOUT="3600")
    out, err = process.communicate(timeout=100)

    assert (process.returncode, out.splitlines()) == (0, ["{0}", "True"]), err
    found = points(trainer.latest)
    for name in ("parent", "worker 0", "worker 1", "worker 2"):
        assert list(range(200)) == [step for key, _, step in found if key == name]
    assert "Traceback" not in err
    delivered(fake, trainer.latest, "FINISHED")
