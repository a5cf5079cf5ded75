"""The status is true however a training ended, and the training itself ends exactly as it would without us."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer, eventually
from trainer import Trainer, side_processes

PLAIN = """
import ctypes, faulthandler, os, signal, sys, time
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='endings')
run.log_metric('a', 1)
{ending}
"""

BLOCK = """
import os, signal, sys, time
import mlops_integrations as mlops
with mlops.start_run(experiment_name='endings') as run:
    run.log_metric('a', 1)
    {ending}
"""

SIGNAL_SELF = "os.kill(os.getpid(), signal.{})\ntime.sleep(30)"

# What the script does at its end -> exit code (negative: the signal), status, reason.
ENDINGS = {
    "plain, to its end": (PLAIN, "", 0, "FINISHED", None),
    "plain, finish()": (PLAIN, "run.finish()", 0, "FINISHED", None),
    "plain, finish(KILLED)": (PLAIN, "run.finish('KILLED')", 0, "KILLED", None),
    "plain, finish() and then exit 3": (PLAIN, "run.finish(); sys.exit(3)", 3, "FINISHED", None),
    "plain, sys.exit(0)": (PLAIN, "sys.exit(0)", 0, "FINISHED", None),
    "plain, sys.exit(3)": (PLAIN, "sys.exit(3)", 3, "FAILED", "exit code 3"),
    "plain, sys.exit(text)": (PLAIN, "sys.exit('no data')", 1, "FAILED", "exit code 1"),
    "plain, os._exit(0)": (PLAIN, "os._exit(0)", 0, "FINISHED", None),
    "plain, os._exit(4)": (PLAIN, "os._exit(4)", 4, "FAILED", "exit code 4"),
    "plain, exception": (PLAIN, "raise ValueError('no more data')", 1, "FAILED", "ValueError: no more data"),
    "plain, Ctrl-C": (PLAIN, SIGNAL_SELF.format("SIGINT"), -signal.SIGINT, "KILLED", "SIGINT"),
    "plain, SIGTERM": (PLAIN, SIGNAL_SELF.format("SIGTERM"), -signal.SIGTERM, "KILLED", "SIGTERM"),
    "plain, SIGHUP": (PLAIN, SIGNAL_SELF.format("SIGHUP"), -signal.SIGHUP, "KILLED", "SIGHUP"),
    "plain, SIGKILL": (PLAIN, SIGNAL_SELF.format("SIGKILL"), -signal.SIGKILL, "KILLED", "SIGKILL"),
    "plain, segfault": (PLAIN, "ctypes.string_at(0)", -signal.SIGSEGV, "FAILED", "SIGSEGV"),
    "plain, abort": (PLAIN, "os.abort()", -signal.SIGABRT, "FAILED", "SIGABRT"),
    "plain, SIGFPE": (PLAIN, SIGNAL_SELF.format("SIGFPE"), -signal.SIGFPE, "FAILED", "SIGFPE"),
    "plain, SIGBUS": (PLAIN, SIGNAL_SELF.format("SIGBUS"), -signal.SIGBUS, "FAILED", "SIGBUS"),
    "plain, training that did not end": (
        PLAIN,
        "run._recorder.training_began()",
        0,
        "FAILED",
        "the training did not end",
    ),
    "block, to its end": (BLOCK, "", 0, "FINISHED", None),
    "block, exception": (BLOCK, "raise ValueError('no more data')", 1, "FAILED", "ValueError: no more data"),
    "block, sys.exit(3)": (BLOCK, "sys.exit(3)", 3, "FAILED", "exit code 3"),
    "block, sys.exit(0)": (BLOCK, "sys.exit(0)", 0, "FINISHED", None),
    "block, Ctrl-C": (BLOCK, "os.kill(os.getpid(), signal.SIGINT); time.sleep(30)", -2, "KILLED", "SIGINT"),
    "block, SIGTERM": (BLOCK, "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -15, "KILLED", "SIGTERM"),
}


@pytest.mark.parametrize(("script", "ending", "code", "status", "reason"), ENDINGS.values(), ids=ENDINGS)
def test_the_status_tells_how_it_ended(
    server: MlflowServer, trainer: Trainer, script: str, ending: str, code: int, status: str, reason: str | None
) -> None:
    """Row by row: the server's status and reason are right, exit code, output and traceback as without tracking."""
    text = script.format(ending=ending)

    tracked = trainer.run(text, MLFLOW_TRACKING_URI=server.uri)

    untracked = trainer.run(text, MLOPS_MODE="disabled")
    assert (tracked.returncode, tracked.stdout) == (code, untracked.stdout)
    assert untracked.returncode == code
    assert without_our_lines(tracked.stderr) == without_our_lines(untracked.stderr)
    uid = RunDirectory((trainer.root / "latest").resolve()).spec().uid

    def as_expected() -> bool:
        runs = server.runs(uid)
        return bool(runs) and runs[0].info.status == status and runs[0].data.tags.get("mlops.exit.reason") == reason

    eventually(as_expected, 30)
    assert server.points(server.the_run(uid).info.run_id) == trainer.recorded()


def without_our_lines(stderr: str) -> str:
    """What a program says on stderr itself."""
    return re.sub(r"^mlops: .*\n", "", stderr, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("ending", "status", "reason"),
    [
        ("sys.exit(3)", "FAILED", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "KILLED", "SIGKILL"),
        ("pass", "FINISHED", None),
    ],
)
def test_a_run_without_server_knows_how_it_ended(
    trainer: Trainer, ending: str, status: str, reason: str | None
) -> None:
    """The side process watches a run that is only recorded, too."""
    trainer.run(PLAIN.format(ending=ending))

    run = RunDirectory((trainer.root / "latest").resolve())
    ended = eventually(lambda: (known := run.ending()) and run.exit_of(run.journals()[0]) and known)
    assert (ended.status, ended.reason) == (status, reason)


def test_a_process_stuck_in_c_dies_at_once_on_sigterm(server: MlflowServer, trainer: Trainer) -> None:
    """With no signal handler of ours, SIGTERM ends a process that never comes back to Python, and the run is KILLED."""
    process = trainer.start(
        PLAIN.format(ending="print('stuck', flush=True)\nctypes.PyDLL(None).pause()"), MLFLOW_TRACKING_URI=server.uri
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "stuck\n"
    time.sleep(0.2)  # into the call, which holds the interpreter's lock

    process.terminate()
    process.communicate(timeout=10)

    assert process.returncode == -signal.SIGTERM
    run = server.closed(trainer.uid)
    assert (run.info.status, run.data.tags["mlops.exit.reason"]) == ("KILLED", "SIGTERM")


def can_unshare() -> bool:
    """Whether this machine lets us make a process namespace."""
    tool = shutil.which("unshare")
    return tool is not None and subprocess.run([tool, "-pf", "--mount-proc", "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a process namespace (root)")
@pytest.mark.parametrize("killed", [False, True], ids=["to its end", "killed"])
def test_a_trainer_that_is_process_1_loses_nothing(server: MlflowServer, trainer: Trainer, killed: bool) -> None:
    """When a container's first process ends, the side process dies with it; what is on disk is delivered by `sync`."""
    script = """
import os, signal, sys
import mlops_integrations as mlops
assert os.getpid() == 1
run = mlops.start_run(experiment_name='process 1')
for i in range(5000):
    run.log_metric('a', i, step=i)
print('logged', flush=True)
sys.stdin.readline()
"""
    process = trainer.start(
        script, wrapper=("unshare", "-pf", "--mount-proc", "--kill-child"), MLFLOW_TRACKING_URI=server.uri
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    if killed:
        process.kill()  # `unshare` takes its child with it
        process.wait(timeout=30)
    process.communicate(None if killed else "\n", timeout=30)

    synced = trainer.sync("--close")

    assert synced.returncode == 0, synced.stderr
    run = server.the_run(trainer.uid)
    assert len(server.points(run.info.run_id)) == 5000
    assert run.info.status == ("FAILED" if killed else "FINISHED")


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of 300 MB, where this machine lets us make one."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"mlops-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text("300M")
        except OSError:
            group.rmdir()
            continue
        yield group
        eventually(lambda members=group / "cgroup.procs": not members.read_text().strip())
        group.rmdir()
        return
    pytest.skip("needs the right to make a memory control group (root)")


def test_a_trainer_that_ran_out_of_memory_has_failed(
    server: MlflowServer, trainer: Trainer, memory_group: Path
) -> None:
    """Killed by the kernel for want of memory: FAILED, and the reason says so."""
    script = f"""
import os
from pathlib import Path
import mlops_integrations as mlops
Path({str(memory_group / "cgroup.procs")!r}).write_text(str(os.getpid()))
run = mlops.start_run(experiment_name='endings')
run.log_metric('a', 1)
run.wait(30)
hoard = []
while True:
    hoard.append(bytearray(10_000_000))
"""
    done = trainer.run(script, MLFLOW_TRACKING_URI=server.uri)

    assert done.returncode == -signal.SIGKILL
    run = server.closed(trainer.uid)
    assert (run.info.status, run.data.tags["mlops.exit.reason"]) == ("FAILED", "SIGKILL (out of memory)")
    assert server.points(run.info.run_id) == trainer.recorded()
    eventually(lambda: not side_processes(trainer.directory))
