"""Training processes that are interrupted, stopped, suspended and cut off, with a server that hangs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from fake_mlflow import FakeMlflow
from fault_proxy import FaultProxy
from hosts import SilentServer, check, delivered, points
from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import eventually
from trainer import Trainer, side_processes

LOGS = """
import sys, time
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='dying')
for i in range(1000):
    run.log_metric('a', i, step=i)
print('logged', flush=True)
{then}
"""


def logged(trainer: Trainer, then: str, **variables: str) -> subprocess.Popen[str]:
    """A training process that has logged, and now does something else."""
    process = trainer.start(LOGS.format(then=then), **variables)
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    return process


def test_ctrl_c_twice(trainer: Trainer, fake: FakeMlflow) -> None:
    """The first ends the training, the second the wait: at once, with no traceback of ours, and the command is told."""
    with SilentServer() as server:
        process = logged(trainer, "time.sleep(600)", MLFLOW_TRACKING_URI=server.uri, MLOPS_FINISH_TIMEOUT="600")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = ""
        while "waiting up to 600 s for delivery (Ctrl-C ends the wait" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        for pid in side_processes(trainer.directory):
            os.kill(pid, signal.SIGKILL)

    assert process.returncode == -signal.SIGINT
    assert len(re.findall("^Traceback", said + rest, re.MULTILINE)) == 1  # the first one's, of the script
    assert "0 of 1,000 points delivered. The rest: " in rest
    assert trainer.sync("--to", fake.uri).returncode == 0
    check(fake, trainer.latest, "KILLED")


def test_sigterm_while_the_server_hangs(trainer: Trainer, fake: FakeMlflow) -> None:
    """It ends the process at once; the side process stays, and delivers and closes the run when the server is back."""
    proxy = FaultProxy(fake.uri)
    proxy.fault = lambda *_: True  # hangs up without an answer
    process = logged(trainer, "time.sleep(600)", MLFLOW_TRACKING_URI=proxy.uri, MLOPS_FINISH_TIMEOUT="600")
    (side,) = eventually(lambda: side_processes(trainer.directory))
    assert os.getpgid(side) != os.getpgid(process.pid)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, [line for line in err.splitlines() if not line.startswith("mlops: ")]) == (-15, [])
    assert [side] == side_processes(trainer.directory)

    proxy.fault = lambda *_: False

    delivered(fake, trainer.latest, "KILLED")
    eventually(lambda: not side_processes(trainer.directory))
    proxy.close()


def test_sigterm_to_the_whole_group(trainer: Trainer, fake: FakeMlflow) -> None:
    """As a shell or a batch system ends a job: the side process is not in the group, and closes the run."""
    wrapper = ("setsid", "--wait", "sh", "-c", '"$@"; true', "sh")
    process = trainer.start(LOGS.format(then="time.sleep(600)"), wrapper=wrapper, MLFLOW_TRACKING_URI=fake.uri)
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    (writer,) = {RunDirectory(trainer.latest).journals()[0]}
    header = RunDirectory(trainer.latest)._writer(writer).identity
    assert header is not None
    os.killpg(os.getpgid(header.pid), signal.SIGTERM)
    process.communicate(timeout=30)

    delivered(fake, trainer.latest, "KILLED")
    eventually(lambda: not side_processes(trainer.directory))


def test_suspended_and_resumed(trainer: Trainer, fake: FakeMlflow) -> None:
    """A stopped training is not dead: its run stays open, is delivered so far, and goes on when it goes on."""
    then = "sys.stdin.readline()\nrun.log_metric('a', 1000, step=1000)"
    process = logged(trainer, then, MLFLOW_TRACKING_URI=fake.uri)
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: fake.runs and len(next(iter(fake.runs.values())).metrics) == 1000)
    synced = trainer.sync()
    assert (synced.returncode, "running" in synced.stdout) == (0, True), synced.stdout + synced.stderr
    assert next(iter(fake.runs.values())).status == "RUNNING"

    process.send_signal(signal.SIGCONT)
    process.communicate("\n", timeout=60)

    assert process.returncode == 0
    delivered(fake, trainer.latest, "FINISHED")
    assert len(points(trainer.latest)) == 1001


def test_a_suspended_side_process(trainer: Trainer, fake: FakeMlflow) -> None:
    """It holds nobody up: the training goes on, `sync` says who keeps the delivery; resumed, it hands that over."""
    process = logged(trainer, "sys.stdin.readline()\nprint(run.finish(timeout=1))", MLFLOW_TRACKING_URI=fake.uri)
    (side,) = eventually(lambda: side_processes(trainer.directory))
    eventually(lambda: (trainer.latest / "lease").exists())
    os.kill(side, signal.SIGSTOP)
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    if out == "False\n":  # it had not delivered everything before it was stopped
        assert "points delivered" in err
    sync = subprocess.Popen(
        [sys.executable, "-m", "mlops_integrations", "sync"],
        cwd=trainer.directory,
        env=trainer.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sync.stderr is not None
    assert f"asking side process (process {side} on " in sync.stderr.readline()

    os.kill(side, signal.SIGCONT)

    sync.communicate(timeout=60)
    assert sync.returncode == 0
    delivered(fake, trainer.latest, "FINISHED")
    eventually(lambda: not side_processes(trainer.directory))


CUT_OFF = """
import atexit, os, sys, threading, time
atexit.register(time.sleep, 0.1)  # what was registered first is called last: after our last look
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='dying')
def log():
    step = 0
    while True:
        run.log_metric('daemon', step, step=step)
        step += 1
        time.sleep(0.0002)
threading.Thread(target=log, daemon=True).start()
run.log_metric('main', 1.0)
run.wait(60)
"""


@pytest.mark.parametrize("seen", [True, False], ids=["watched", "nobody saw the end"])
def test_a_daemon_thread_that_logs_through_the_exit(trainer: Trainer, fake: FakeMlflow, seen: bool) -> None:
    """It re-opens the run after our last look, which changes nothing: FINISHED, and all that it logged is there."""
    for _ in range(2):
        script = CUT_OFF
        if not seen:
            script = script.replace("run.wait(60)", "")
        variables = {"MLOPS_FINISH_TIMEOUT": "0"} if seen else {"MLOPS_MODE": "offline", "MLOPS_UPLOADER": "thread"}
        done = trainer.run(script, MLFLOW_TRACKING_URI=fake.uri, **variables)

        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert "Traceback" not in done.stderr
        if not seen:
            assert trainer.sync().returncode == 0
        delivered(fake, trainer.latest, "FINISHED")
