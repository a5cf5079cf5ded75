"""The side process is in nobody's way: no child of the training process, no zombie, no file, not a second too long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fake_mlflow import FakeMlflow
from hosts import SilentServer, delivered
from mlops_integrations.journal import lease
from mlops_integrations.upload import side_process
from real_mlflow import eventually
from trainer import Trainer, side_processes

STARTERS = {
    "by the shell": "",
    "where there is no shell": "from mlops_integrations.upload import detached_process; from pathlib import Path\n"
    "detached_process._SHELL = Path('/nowhere/sh')",
}

WAITS = """
import os, sys
import mlops_integrations as mlops
{before}
run = mlops.start_run(experiment_name='hosts')
run.log_metric('a', 1)
own = set()
for number in range(5):
    child = os.fork()
    if child == 0:
        os._exit(number)
    own.add(child)
waited = set()
while True:
    try:
        waited.add(os.wait()[0])
    except ChildProcessError:
        break
print(waited == own)
print(run.finish(timeout=60))
"""


@pytest.mark.parametrize("before", STARTERS.values(), ids=STARTERS)
def test_a_host_that_waits_for_any_child(trainer: Trainer, fake: FakeMlflow, before: str) -> None:
    """It is told of its own children only, and comes to an end: the side process is none of them."""
    done = trainer.run(WAITS.format(before=before), MLFLOW_TRACKING_URI=fake.uri)

    assert (done.returncode, done.stdout.split()) == (0, ["True", "True"]), done.stderr
    assert "thread" not in done.stderr
    delivered(fake, trainer.latest, "FINISHED")


ENDS_CHILDREN = """
import os, signal, sys
from pathlib import Path
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='hosts')
run.log_metric('a', 1)
print(run.flush(60))
print(Path(f'/proc/self/task/{os.getpid()}/children').read_text().split())
"""


def test_a_host_that_ends_all_its_children(trainer: Trainer, fake: FakeMlflow) -> None:
    """There is none of ours among them, so the one who closes the run is still there."""
    done = trainer.run(ENDS_CHILDREN + "os.kill(os.getpid(), signal.SIGKILL)", MLFLOW_TRACKING_URI=fake.uri)

    assert done.stdout.splitlines() == ["True", "[]"], done.stderr
    delivered(fake, trainer.latest, "KILLED")


FORGETS = """
from mlops_integrations.recording import active_runs, process_exit
process_exit._recorders.clear(), active_runs._stack.clear()  # as happens to the first of many runs
run.finish(timeout=0)
del run
"""


@pytest.mark.parametrize("ending", ["run.finish(timeout=60)", "pass", FORGETS], ids=["finish", "exit", "forgotten"])
def test_no_warning_of_python_about_a_process(trainer: Trainer, fake: FakeMlflow, ending: str) -> None:
    """Python's warnings of resources that nobody has closed tell of none of ours, however the script ends."""
    script = f"import mlops_integrations as mlops\nrun = mlops.start_run()\nrun.log_metric('a', 1)\n{ending}\n"

    done = trainer.run(script, MLFLOW_TRACKING_URI=fake.uri, PYTHONWARNINGS="default", PYTHONDEVMODE="1")

    assert (done.returncode, done.stdout) == (0, "")
    assert [line for line in done.stderr.splitlines() if not line.startswith("mlops: ")] == []
    delivered(fake, trainer.latest, "FINISHED")


FIRST_PROCESS = """
import os, time
from pathlib import Path
import mlops_integrations as mlops
assert os.getpid() == 1
run = mlops.start_run(experiment_name='hosts')
run.log_metric('a', 1)
print(run.flush(60), flush=True)

def others():
    found = {}
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit() and entry.name != '1':
            found[entry.name] = (entry / 'stat').read_text().rpartition(')')[2].split()[0]
    return found

(first,) = others()
os.kill(int(first), 9)
run.log_metric('a', 2)
print(run.flush(60))
print(first not in others(), 'Z' in others().values())
print(run.finish(timeout=60))
print(others())
"""


@pytest.mark.root
@pytest.mark.program("unshare")
def test_the_first_process_of_a_container_has_no_zombies(trainer: Trainer, fake: FakeMlflow) -> None:
    """Orphans go to it, ours too: it collects those of ours that have ended, and replaces a killed one."""
    process = trainer.start(
        FIRST_PROCESS, wrapper=("unshare", "-pf", "--mount-proc", "--kill-child"), MLFLOW_TRACKING_URI=fake.uri
    )
    out, err = process.communicate(timeout=100)

    assert out.splitlines() == ["True", "True", "True False", "True", "{}"], err
    delivered(fake, trainer.latest, "FINISHED")


LOGS = """
import sys
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='hosts')
for i in range(100):
    run.log_metric('a', i, step=i)
print('logged', flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("how", "drips"),
    [("linger", False), ("linger", True), ("SIGTERM", True)],
    ids=["no answer", "a byte now and then", "a byte now and then, SIGTERM"],
)
def test_it_does_not_outlive_its_time_in_a_request(trainer: Trainer, drips: bool, how: str) -> None:
    """A request that does not end holds it up no longer than its time after the training's end, or after SIGTERM."""
    with SilentServer(drips=drips) as server:
        process = trainer.start(
            LOGS,
            MLFLOW_TRACKING_URI=server.uri,
            MLFLOW_HTTP_REQUEST_TIMEOUT="3600",
            MLOPS_LINGER="1" if how == "linger" else "3600",
        )
        assert server.asked.wait(60)
        process.kill()
        process.communicate(timeout=30)
        for pid in side_processes(trainer.directory) if how == "SIGTERM" else ():
            os.kill(pid, signal.SIGTERM)

        eventually(lambda: not side_processes(trainer.directory))

    assert lease.read(trainer.latest / "lease") is None
    assert "Traceback" not in (trainer.latest / "uploader.log").read_text()


def by_hand(trainer: Trainer, directory: Path, uri: str, *wrapper: str) -> subprocess.Popen[bytes]:
    """A side process for a run whose training is long gone."""
    return subprocess.Popen(
        [*wrapper, sys.executable, "-I", side_process.__file__, str(directory), "1", uri],
        env=trainer.environment(MLOPS_SEARCH_PATH=os.pathsep.join(entry for entry in sys.path if entry)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_of_two_at_once_one_works_and_the_other_says_who(trainer: Trainer, fake: FakeMlflow) -> None:
    """The second one names the holder of the lease, stands by, and takes over when that is killed."""
    process = trainer.start(LOGS, MLFLOW_TRACKING_URI=fake.uri)
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    holder = eventually(lambda: lease.live_holder(trainer.latest))
    second = by_hand(trainer, trainer.latest, fake.uri)
    assert second.stdout is not None
    assert f"side process (process {holder.identity.pid} on " in second.stdout.readline().decode()

    os.kill(holder.identity.pid, signal.SIGKILL)

    eventually(lambda: (found := lease.live_holder(trainer.latest)) and found.identity.pid == second.pid)
    process.communicate("\n", timeout=60)
    second.communicate(timeout=60)
    delivered(fake, trainer.latest, "FINISHED")


RANKS = """
import sys, time
import mlops_integrations as mlops
from mlops_integrations.upload import supervisor
supervisor._READY_SECONDS = 0.0
first = mlops.start_run(experiment_name='hosts')
second = mlops.start_run(resume=first.uid)
second._recorder._supervisor._start_process()
words = first._recorder.directory
pids = {one._recorder._supervisor._process.pid for one in (first, second)}
while not pids <= {abs(word) for word in words._words()}:
    time.sleep(0.01)
for one in (first, second):
    one._recorder._supervisor.check()
    assert not one._recorder._supervisor._has_thread()
    one.finish(timeout=0)
"""


def test_two_at_once_are_both_seen_to_be_there(trainer: Trainer, fake: FakeMlflow) -> None:
    """Neither hides the other's sign that it has come up, which would have made a thread take its place."""
    done = trainer.run(RANKS, MLFLOW_TRACKING_URI=fake.uri)

    assert done.returncode == 0, done.stderr
    assert "thread" not in done.stderr


HINDRANCES = {
    "too many open files": "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) - 1, most))",
    "a log that can't be written": "os.mkdir(driver._directory.log)",
    "a python that can't be executed": "sys.executable = sys.argv[0]",
    "a python without our libraries": "sys.path[:] = []; sys.executable = program('exec {} -S \"$@\"')",
    "one that is killed at once": "sys.executable = program('kill -9 $$')",
}

HINDERED = """
import os, resource, sys
from pathlib import Path
import mlops_integrations as mlops
import mlops_integrations.upload.worker, mlops_integrations.backends.registry, requests, idna
from mlops_integrations.upload.supervisor import Supervisor

def program(line):
    path = Path('program')
    path.write_text('#!/bin/sh\\n' + line.format(python) + '\\n')
    path.chmod(0o755)
    return str(path.absolute())

def hindered(driver):
    {why_not}
    start(driver)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))

python = sys.executable
limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
start, Supervisor.start = Supervisor.start, hindered
run = mlops.start_run(experiment_name='hosts')
for i in range(100):
    run.log_metric('a', i, step=i)
print(run.finish(timeout=60))
"""


@pytest.mark.parametrize("why_not", HINDRANCES.values(), ids=HINDRANCES)
def test_where_it_can_not_start_a_thread_delivers(trainer: Trainer, fake: FakeMlflow, why_not: str) -> None:
    """Whatever keeps it from starting is said once, on a line of its own, and everything is delivered all the same."""
    done = trainer.run(HINDERED.replace("{why_not}", why_not), MLFLOW_TRACKING_URI=fake.uri)

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.count("a thread uploads instead") == 1
    assert [line for line in done.stderr.splitlines() if not line.startswith("mlops: ")] == []
    delivered(fake, trainer.latest, "FINISHED")
    assert side_processes(trainer.directory) == []
