"""The side process is killed at each of its steps: whoever comes next finishes what it had begun."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fake_mlflow import FakeMlflow
from hosts import check
from mlops_integrations.cli.arguments import main
from mlops_integrations.upload import side_process
from trainer import Trainer, side_processes

SEEDS = int(os.environ.get("FAULT_SEEDS", "0"))
STEPS = "link,linkat,rename,renameat,renameat2,unlink,unlinkat,flock,fsync,write,sendto,recvfrom"
"""The system calls that something outside of a process sees."""

RECORDS = """
import mlops_integrations as mlops
with mlops.start_run(experiment_name='steps', params={'lr': 0.1}, tags={'team': 'vision'}) as run:
    for step in range(1500):
        run.log_metric('a', step / 7, step=step)
"""


def by_hand(trainer: Trainer, directory: Path, uri: str, *wrapper: str) -> int:
    """Run a side process for a run whose training is gone, to its end; its exit code."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-I", side_process.__file__, str(directory), "1", uri],
        env=trainer.environment(MLOPS_SEARCH_PATH=os.pathsep.join(entry for entry in sys.path if entry)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )
    return done.returncode


@pytest.fixture
def recorded(trainer: Trainer) -> Path:
    """A run that was recorded and is not delivered."""
    trainer.run(RECORDS, MLOPS_MODE="offline", MLOPS_UPLOADER="thread")
    return trainer.latest


@pytest.mark.timeout(1800)
@pytest.mark.program("strace")
def test_killed_at_each_step(trainer: Trainer, recorded: Path, tmp_path: Path) -> None:
    """A later one, or `sync`, finishes it: one run, every point once, the right status, whatever was half done."""
    with FakeMlflow() as server:
        log = tmp_path / "steps"
        assert (
            by_hand(trainer, copy(recorded, tmp_path, 0), server.uri, "strace", "-qq", "-o", str(log), "-e", STEPS) == 0
        )
        steps = len(log.read_text().splitlines())
    assert steps > 50
    numbers = range(1, steps + 1, 1 if SEEDS else 2)
    for number in numbers:
        with FakeMlflow() as server:
            directory = copy(recorded, tmp_path, number)
            inject = f"inject={STEPS}:signal=SIGKILL:when={number}"
            code = by_hand(trainer, directory, server.uri, "strace", "-qq", "-o", "/dev/null", "-e", inject)
            assert code in {0, -signal.SIGKILL, 128 + signal.SIGKILL}, number
            if number % 5:
                assert main(["sync", str(directory), "--to", server.uri]) == 0, number
            else:
                assert by_hand(trainer, directory, server.uri) == 0, number
            check(server, directory, "FINISHED")
            (run,) = [run for run in server.runs.values() if not run.deleted]  # a twin that came late is deleted
            assert ("0.1", "vision") == (run.params["lr"], run.tags["team"]), number
            assert not (directory / "lease").exists(), number
            shutil.rmtree(directory)
    print(f"killed at {len(numbers)} of {steps} steps")


def copy(recorded: Path, tmp_path: Path, number: int) -> Path:
    """A run directory of the test's own."""
    return Path(shutil.copytree(recorded, tmp_path / f"copy-{number}"))


REUSED = """
import json, os, signal, subprocess, sys
from pathlib import Path

trainer = subprocess.Popen([sys.executable, '-c', '''
import sys, time
import mlops_integrations as mlops
run = mlops.start_run(mode=sys.argv[2], tracking_uri=sys.argv[1], experiment_name='reused')
for step in range(100):
    run.log_metric("a", step, step=step)
print(run.wait(60) if sys.argv[2] == "online" else None, flush=True)
time.sleep(600)
''', *sys.argv[1:3]], stdout=subprocess.PIPE, text=True)
trainer.stdout.readline()
directory = os.path.realpath('mlops_runs/latest')
pids = [trainer.pid]
lease = Path(directory, 'lease')
if lease.exists():
    pids.append(json.loads(lease.read_bytes())['identity']['pid'])
for pid in pids:
    os.kill(pid, signal.SIGKILL)
trainer.wait()
try:
    while True:
        os.wait()  # orphans are ours to collect: this is the first process
except ChildProcessError:
    pass
again = set()
for pid in pids:
    for _ in range(20):
        if pid not in again:
            Path('/proc/sys/kernel/ns_last_pid').write_text(str(pid - 1))
            again.add(subprocess.Popen(['sleep', '600']).pid)
assert again >= set(pids), (again, pids)
synced = subprocess.run([sys.executable, '-m', 'mlops_integrations', 'sync'], capture_output=True, text=True)
print(json.dumps([len(pids), synced.returncode, synced.stdout]))
"""


@pytest.mark.root
@pytest.mark.program("unshare")
@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_number_that_is_used_again(trainer: Trainer, fake: FakeMlflow, mode: str) -> None:
    """Other processes that got the training's number, and its uploader's, are not taken for them."""
    script = trainer.directory / "reused.py"
    script.write_text(REUSED)
    done = subprocess.run(
        ["unshare", "-pf", "--mount-proc", "--kill-child", sys.executable, str(script), fake.uri, mode],
        cwd=trainer.directory,
        env=trainer.environment(**({"MLOPS_UPLOADER": "thread"} if mode == "offline" else {})),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert [2 if mode == "online" else 1, 0] == json.loads(done.stdout.splitlines()[-1])[:2], done.stdout
    check(fake, trainer.latest, "FAILED")
    (run,) = fake.runs.values()
    assert re.match("process disappeared", run.tags["mlops.exit.reason"])
    assert side_processes(trainer.directory) == []


@pytest.mark.program("strace")
@pytest.mark.parametrize("call", ["read", "fsync"])
def test_a_journal_that_can_not_be_read_for_a_moment(trainer: Trainer, recorded: Path, call: str) -> None:
    """Each of its reads fails once with EIO: the side process tries again, and delivers everything, once."""
    for number in range(1, 13, 1 if SEEDS else 4):
        with FakeMlflow() as server:
            directory = copy(recorded, trainer.directory, number)
            path = str(directory / "journal-0001.jsonl")
            inject = f"inject={call}:error=EIO:when={number}..{number + 2}"
            code = by_hand(trainer, directory, server.uri, "strace", "-qq", "-o", "/dev/null", "-P", path, "-e", inject)
            assert code == 0, number
            check(server, directory, "FINISHED")
