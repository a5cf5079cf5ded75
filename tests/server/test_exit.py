"""The end of a process is bounded, and what it leaves behind is delivered by the command that it prints."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from real_mlflow import MlflowServer, eventually, free_port
from trainer import Trainer, side_processes

FINISH = """
import time
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='exit')
for i in range(2000):
    run.log_metric('a', i, step=i)
began = time.monotonic()
print(run.finish(timeout=3))
print(time.monotonic() - began)
"""

EXIT = """
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='exit')
for i in range(2000):
    run.log_metric('a', i, step=i)
"""


class SilentServer:
    """Accepts every connection, and never answers."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._connections.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        """Close all."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._connections:
            connection.close()


@pytest.fixture(params=["closed port", "silent server"])
def bad_server(request: pytest.FixtureRequest, own_server: MlflowServer) -> Iterator[MlflowServer]:
    """A server that is not there, or only seems to be; ``start`` brings up the real one in its place."""
    silent = SilentServer(own_server.port) if request.param == "silent server" else None
    start = own_server.start

    def replace() -> None:
        if silent is not None:
            silent.close()
        start()

    own_server.start = replace  # type: ignore[method-assign]
    yield own_server
    own_server.start = start  # type: ignore[method-assign]
    if silent is not None:
        with contextlib.suppress(OSError):
            silent.close()


@pytest.mark.parametrize("uploader", ["process", "thread"])
@pytest.mark.parametrize("script", [FINISH, EXIT], ids=["finish", "interpreter exit"])
def test_the_end_is_bounded_and_the_printed_command_delivers_the_rest(
    bad_server: MlflowServer, trainer: Trainer, script: str, uploader: str
) -> None:
    """With a server that is not there or never answers, the process ends in time, and says how to deliver the rest."""
    began = time.monotonic()
    done = trainer.run(script, MLFLOW_TRACKING_URI=bad_server.uri, MLOPS_FINISH_TIMEOUT="3", MLOPS_UPLOADER=uploader)
    took = time.monotonic() - began

    assert done.returncode == 0
    assert took < 3 + 10
    if script is FINISH:
        finished, seconds = done.stdout.split()
        assert finished == "False"
        assert float(seconds) < 3 + 5
    (command,) = re.findall(r"^mlops: 0 of 2,000 points delivered.*The rest: (.*)$", done.stderr, re.MULTILINE)

    bad_server.start()
    pasted = subprocess.run(
        command,
        shell=True,
        cwd="/",
        env=trainer.environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert pasted.returncode == 0, pasted.stderr
    run = bad_server.the_run(trainer.uid)
    assert run.info.status == "FINISHED"
    assert bad_server.points(run.info.run_id) == trainer.recorded()
    assert len(trainer.recorded()) == 2000
    eventually(lambda: not side_processes(trainer.directory))


def test_many_runs_share_one_wait_at_exit(trainer: Trainer) -> None:
    """Ten runs that can't be delivered delay the end of their process by one time-out, not by ten."""
    began = time.monotonic()
    done = trainer.run(
        "import mlops_integrations as mlops\n"
        "for i in range(10):\n"
        "    mlops.start_run(experiment_name='exit').log_metric('a', 1)\n",
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}",
        MLOPS_FINISH_TIMEOUT="3",
        MLOPS_LINGER="0",
    )

    assert time.monotonic() - began < 20
    assert done.stderr.count("The rest:") == 10
    eventually(lambda: not side_processes(trainer.directory), 20)


def test_the_side_process_lingers_as_long_as_it_was_told(own_server: MlflowServer, trainer: Trainer) -> None:
    """After the trainer's end the side process goes on trying, and delivers when the server comes back."""
    trainer.run(EXIT, MLFLOW_TRACKING_URI=own_server.uri, MLOPS_FINISH_TIMEOUT="0")
    assert side_processes(trainer.directory)

    own_server.start()

    run = own_server.closed(trainer.uid, 90)
    assert run.info.status == "FINISHED"
    assert own_server.points(run.info.run_id) == trainer.recorded()
    eventually(lambda: not side_processes(trainer.directory))


@pytest.mark.parametrize("how", ["linger", "SIGTERM"])
def test_the_side_process_stops_when_its_time_is_over(trainer: Trainer, how: str) -> None:
    """With nobody to deliver to, it stops after MLOPS_LINGER, and a few seconds after SIGTERM."""
    port = free_port()
    trainer.run(
        EXIT,
        MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}",
        MLOPS_FINISH_TIMEOUT="0",
        MLOPS_LINGER="2" if how == "linger" else "600",
    )
    (pid,) = side_processes(trainer.directory)
    if how == "SIGTERM":
        os.kill(pid, signal.SIGTERM)

    eventually(lambda: not side_processes(trainer.directory), 30)

    assert not (trainer.latest / "lease").exists()


def test_sigterm_does_not_end_a_side_process_whose_trainer_lives(server: MlflowServer, trainer: Trainer) -> None:
    """A SIGTERM to the whole job leaves the side process at work until the trainer is gone."""
    process = trainer.start(
        EXIT + "input()\nfor i in range(2000, 3000):\n    run.log_metric('a', i, step=i)\n",
        MLFLOW_TRACKING_URI=server.uri,
    )
    (pid,) = eventually(lambda: side_processes(trainer.directory))
    eventually(lambda: (trainer.latest / "side_process").exists())
    os.kill(pid, signal.SIGTERM)

    process.communicate("\n", timeout=60)

    run = server.closed(trainer.uid)
    assert len(server.points(run.info.run_id)) == 3000
    eventually(lambda: not side_processes(trainer.directory))
    assert Path(trainer.latest / "uploader.log").read_text().count("done") == 1
