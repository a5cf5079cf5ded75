"""Runs that are pickled, copied or forked, and log calls from signal handlers."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import End, Metrics, Params, Record
from mlops_integrations.recording.run import Run
from records_read import merged

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]
Python = Callable[..., "subprocess.CompletedProcess[str]"]
Point = tuple[str, float | str, int]
Points = Callable[[Run], list[Point]]


def test_pickled_run(read: Read, points: Points) -> None:
    """It records into the same run through a journal file of its own; without logging it opens none."""
    run = mlops.start_run(tracking_uri="http://user:s3cr3t@h", mode="offline")
    run.log_metric("a", 1.0, step=0)
    content = pickle.dumps(run)
    assert b"s3cr3t" not in content
    worker, idle = pickle.loads(content), pickle.loads(content)
    assert (run.uid, run.directory, run.name) == (worker.uid, worker.directory, worker.name)
    worker.log_metric("b", 2.0, step=0)
    worker.finish()
    idle.finish()
    assert run.is_open
    run.log_metric("a", 3.0, step=1)
    run.finish()
    assert len(list(run.directory.glob("journal-*.jsonl"))) == 2
    assert points(run) == [("a", 1.0, 0), ("a", 3.0, 1), ("b", 2.0, 0)]


def test_copies(run: Run) -> None:
    """Frameworks copy what is handed to them: a copy in the same process is the very same run."""
    assert copy.copy(run) is run
    assert copy.deepcopy({"logger": run})["logger"] is run


FORK = """
import os, sys, threading
import mlops_integrations as mlops
run = mlops.start_run(run_name="forked", tracking_uri=sys.argv[1], uploader="thread")
print(run.directory, flush=True)
stop = threading.Event()
def log():
    step = 0
    while not stop.is_set():
        run.log_metric("thread", 1.0, step=step)
        step += 1
thread = threading.Thread(target=log)
thread.start()
children = []
for number in range(5):
    run.log_metric("parent", 1.0, step=number)
    child = os.fork()
    if child == 0:
        for step in range(100):
            run.log_metrics({"child": 1.0}, step=step)
            run.log_params({"child": step})
        assert not run.flush(timeout=300.0)
        assert not run.finish(timeout=300.0)
        assert mlops.active_run() is None
        sys.exit(0) if number % 2 else os._exit(0)
    children.append(child)
stop.set()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
thread.join()
run.log_metric("parent", 1.0, step=5)
run.finish(timeout=0)
sys.stdout.flush()
os._exit(0)
"""


@posix
def test_fork(python: Python, points: Points, read: Read) -> None:
    """In a forked child the run is a counted no-op, said once; it ends at once, and the parent's journal is whole."""
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = python(FORK, uri, MLOPS_FINISH_TIMEOUT="300")
    directory, codes = done.stdout.splitlines()
    assert (codes, done.returncode) == ("[0, 0, 0, 0, 0]", 0)
    records = read(Path(directory))
    found = [item for record in records if isinstance(record, Metrics) for item in record.values]
    assert list(range(6)) == [step for key, _, step in found if key == "parent"]
    steps = [step for key, _, step in found if key == "thread"]
    assert list(range(len(steps))) == steps
    assert {"parent", "thread"} == {key for key, _, _ in found}
    assert len(list(Path(directory).glob("journal-*.jsonl"))) == 1
    assert isinstance(records[-1], End)
    assert done.stderr.count("logged in a forked process") == 5
    assert "Traceback" not in done.stderr


@posix
def test_signal_handler_that_logs(python: Python, read: Read) -> None:
    """A handler may log in the middle of a log call, and of another handler's."""
    script = """
import itertools, signal
import mlops_integrations as mlops
run = mlops.start_run(run_name="signals")
numbers, calls = itertools.count(), []
def handler(*_):
    number = next(numbers)
    run.log_metrics({"handler": 1.0}, step=number)
    run.log_params({f"p{number}": 1})
    calls.append(number)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
step = 0
while len(calls) < 100:
    run.log_metrics({"main": 1.0}, step=step)
    run.log_params({f"q{step}": 1})
    step += 1
signal.setitimer(signal.ITIMER_REAL, 0)
run.finish()
print(run.directory, len(calls), step)
"""
    done = python(script, MLOPS_UPLOADER="thread")
    directory, count, step = done.stdout.split()
    records = read(Path(directory))
    found = [item for record in records if isinstance(record, Metrics) for item in record.values]
    # A handler may be interrupted by the next one, so that its call comes later.
    assert list(range(int(count))) == sorted(number for key, _, number in found if key == "handler")
    assert list(range(int(step))) == [number for key, _, number in found if key == "main"]
    assert int(count) + int(step) == len(merged(records, Params))
