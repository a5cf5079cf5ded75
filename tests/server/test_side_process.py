"""The side process starts whatever lies in the user's directory, and where it can't start, a thread takes over."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from mlops_integrations.journal import lease
from real_mlflow import MlflowServer, eventually
from trainer import Trainer, side_processes

SCRIPT = """
{before}
import mlops_integrations as mlops
with mlops.start_run(experiment_name='side process') as run:
    for i in range(100):
        run.log_metric('a', i, step=i)
    print(run.finish(timeout=60))
{after}
"""

POISON = "raise SystemExit('a file of the user was imported in place of a library')\n"


def check_delivered(server: MlflowServer, trainer: Trainer) -> None:
    """All points are on the server."""
    run = server.the_run(trainer.uid)
    assert run.info.status == "FINISHED"
    assert server.points(run.info.run_id) == trainer.recorded()


@pytest.mark.parametrize("name", ["requests", "json", "keras", "msgspec", "logging", "mlops_integrations"])
def test_a_users_file_with_the_name_of_a_library_does_no_harm(
    server: MlflowServer, trainer: Trainer, name: str
) -> None:
    """The side process imports the libraries it means, not files that lie beside the script or in its directory."""
    # Written when the script has imported what it needs itself: only the side process could still fall for it.
    before = "import mlops_integrations.recording.start\n"
    before += f"open({name + '.py'!r}, 'w').write({POISON!r})"

    done = trainer.run(SCRIPT.format(before=before, after=""), MLFLOW_TRACKING_URI=server.uri)

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert "thread" not in done.stderr
    assert "Traceback" not in (trainer.latest / "uploader.log").read_text()
    check_delivered(server, trainer)


HINDRANCES = {
    "a frozen program": "import sys; sys.frozen = True",
    "no sys.executable": "import sys; sys.executable = ''",
    "a sys.executable that is not there": "import sys; sys.executable = '/nowhere/python'",
    "one that ends at once": "import sys; sys.executable = '/bin/false'",
}


@pytest.mark.parametrize("before", HINDRANCES.values(), ids=HINDRANCES)
def test_without_a_side_process_a_thread_takes_over(server: MlflowServer, trainer: Trainer, before: str) -> None:
    """Where no side process can be started, a thread delivers, and that is said once."""
    done = trainer.run(SCRIPT.format(before=before, after=""), MLFLOW_TRACKING_URI=server.uri)

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.count("a thread uploads instead") == 1
    check_delivered(server, trainer)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user whose processes can be limited")
def test_a_limit_on_processes_leaves_it_to_the_thread(server: MlflowServer, trainer: Trainer) -> None:
    """Where the system refuses another process, a thread delivers; where it refuses that too, recording goes on."""
    before = (
        "import os, resource, sys\n"
        "import mlops_integrations.recording.start, requests\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
    )
    script = SCRIPT.replace("timeout=60", "timeout=2")
    after = "print(len(open(run.directory / 'journal-0001.jsonl').readlines()))"
    with tempfile.TemporaryDirectory() as root:  # one that the other user can reach
        Path(root).chmod(0o777)
        done = trainer.run(
            script.format(before=before, after=after), MLFLOW_TRACKING_URI=server.uri, MLOPS_DIR=f"{root}/runs"
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(2 + 100 + 1)
    assert done.stderr.count("no uploader could be started") == 1
    assert "The rest:" in done.stderr


def test_a_slow_side_process_is_replaced_by_a_thread(server: MlflowServer, trainer: Trainer) -> None:
    """One that is not ready within ten seconds is not waited for: the thread takes over, said once."""
    sleeper = trainer.directory / "python-that-sleeps"
    sleeper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    sleeper.chmod(0o755)
    before = f"import sys; sys.executable = {str(sleeper)!r}"
    after = "import os; os.kill(run._recorder._supervisor._process.pid, 9)"

    done = trainer.run(SCRIPT.format(before=before, after=after), MLFLOW_TRACKING_URI=server.uri)

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.count("not ready within 10 s") == 1
    check_delivered(server, trainer)


def test_nothing_is_left_running_or_open(server: MlflowServer, trainer: Trainer) -> None:
    """After finish the side process is gone, no zombie, and the training process has no file open that is ours."""
    after = """
import os, subprocess, threading
from pathlib import Path
names = [str(entry.readlink()) for entry in Path('/proc/self/fd').iterdir() if entry.exists()]
print([name for name in names if 'mlops_runs' in name or 'pidfd' in name])
print(Path(f'/proc/self/task/{os.getpid()}/children').read_text().split())
print(threading.active_count())
"""

    done = trainer.run(SCRIPT.format(before="", after=after), MLFLOW_TRACKING_URI=server.uri)

    assert done.stdout.splitlines() == ["True", "[]", "[]", "1"], done.stderr
    assert side_processes(trainer.directory) == []
    assert lease.read(trainer.latest / "lease") is None


def test_it_inherits_nothing_and_shows_no_secret(server: MlflowServer, trainer: Trainer) -> None:
    """The side process holds none of the trainer's files, is in a session of its own, and its command has no secret."""
    process = trainer.start(
        "import socket, mlops_integrations as mlops\n"
        "held = open('held', 'w'); bound = socket.create_server(('127.0.0.1', 0)); bound.set_inheritable(True)\n"
        f"run = mlops.start_run(tracking_uri={server.uri.replace('//', '//user:canary-secret@')!r})\n"
        "run.log_metric('a', 1)\n"
        "print(run.flush(30), flush=True)\n"
        "input()\n"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    (pid,) = side_processes(trainer.directory)

    open_files = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    command = Path(f"/proc/{pid}/cmdline").read_text()
    files = [path for path in trainer.latest.iterdir() if path.is_file()]
    own_session = os.getsid(pid) == pid
    working_directory = Path(f"/proc/{pid}/cwd").readlink()
    _, err = process.communicate("\n", timeout=60)

    assert not [name for name in open_files if name.endswith("held") or name.startswith("pipe:")]
    assert len([name for name in open_files if name.startswith("socket:")]) <= 1  # its own, to the server
    assert own_session
    assert working_directory == trainer.latest
    assert "canary-secret" not in command + err + "".join(path.read_text() for path in files)


def test_it_records_nothing_itself(server: MlflowServer, trainer: Trainer) -> None:
    """Tracking is switched off within the side process, so that it never tracks its own work."""
    process = trainer.start(
        "import mlops_integrations as mlops\nrun = mlops.start_run()\ninput()\n",
        MLFLOW_TRACKING_URI=server.uri,
    )
    (pid,) = eventually(lambda: side_processes(trainer.directory))

    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")

    process.communicate("\n", timeout=60)
    assert "MLOPS_MODE=disabled" in variables
