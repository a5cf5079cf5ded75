"""A run is created once, whatever becomes of the reply to its creation and of the uploader that asked for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from fault_proxy import FaultProxy, Handler
from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer
from trainer import Trainer

Forward = Callable[[], tuple[int, bytes]]

SCRIPT = """
import mlops_integrations as mlops
with mlops.start_run(experiment_name='creation') as run:
    for i in range(100):
        run.log_metric('a', i, step=i)
    print(run.finish(timeout=80))
"""


@pytest.fixture
def proxy(server: MlflowServer) -> Iterator[FaultProxy]:
    """A proxy in front of the server."""
    between = FaultProxy(server.uri)
    yield between
    between.close()


def check_one_run(server: MlflowServer, trainer: Trainer, stdout: str, stderr: str) -> None:
    """Everything was delivered into one run, and there is no other that was created for it."""
    assert stdout == "True\n", stderr
    run = server.the_run(trainer.uid)
    assert run.info.status == "FINISHED"
    assert server.points(run.info.run_id) == trainer.recorded()
    assert len(trainer.recorded()) == 100


def test_a_lost_reply_makes_no_second_run(server: MlflowServer, trainer: Trainer, proxy: FaultProxy) -> None:
    """The reply to the creation is lost after the server has committed it: the run is found and taken."""
    lost = []

    def fault(handler: Handler, forward: Forward) -> bool:
        if handler.call == "runs/create" and not lost:
            lost.append(forward()[0])
            handler.reset()
            return True
        return False

    proxy.fault = fault

    done = trainer.run(SCRIPT, MLFLOW_TRACKING_URI=proxy.uri)

    check_one_run(server, trainer, done.stdout, done.stderr)
    assert lost == [200]
    assert proxy.requests.count("runs/create") == 1


def test_a_gateway_that_forwards_and_says_503_makes_no_second_run(
    server: MlflowServer, trainer: Trainer, proxy: FaultProxy
) -> None:
    """Two answers of 503, each after the server has committed, and one run: a first look finds the committed one."""
    lied = []

    def fault(handler: Handler, forward: Forward) -> bool:
        if handler.call == "runs/create" and len(lied) < 2:
            lied.append(forward()[0])
            handler.answer(503, b"upstream timed out")
            return True
        return False

    proxy.fault = fault

    done = trainer.run(SCRIPT, MLFLOW_TRACKING_URI=proxy.uri)

    check_one_run(server, trainer, done.stdout, done.stderr)
    assert lied == [200]


def test_an_uploader_killed_between_asking_and_saving_makes_no_second_run(
    server: MlflowServer, trainer: Trainer, proxy: FaultProxy
) -> None:
    """The side process dies after the server has committed and before it knows: its successor finds the run."""
    killed = []

    def fault(handler: Handler, forward: Forward) -> bool:
        if handler.call == "runs/create" and not killed:
            forward()
            pid = RunDirectory(trainer.latest).ready_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            return True
        return False

    proxy.fault = fault

    done = trainer.run(SCRIPT, MLFLOW_TRACKING_URI=proxy.uri)

    check_one_run(server, trainer, done.stdout, done.stderr)
    assert len(killed) == 1
    assert proxy.requests.count("runs/create") == 1


def test_a_commit_after_the_time_out_makes_no_second_run(
    server: MlflowServer, trainer: Trainer, proxy: FaultProxy
) -> None:
    """The server commits three seconds after the client has given up: a later look finds the run."""
    committed = []

    def fault(handler: Handler, forward: Forward) -> bool:
        if handler.call == "runs/create" and not committed:
            committed.append(0)
            late = threading.Timer(2.0 + 3.0, lambda: committed.append(forward()[0]))
            late.start()
            late.join()
            return True
        return False

    proxy.fault = fault

    done = trainer.run(SCRIPT, MLFLOW_TRACKING_URI=proxy.uri, MLFLOW_HTTP_REQUEST_TIMEOUT="2")

    check_one_run(server, trainer, done.stdout, done.stderr)
    assert committed == [0, 200]
    assert proxy.requests.count("runs/create") == 1


def test_an_empty_twin_is_deleted_at_the_end(server: MlflowServer, trainer: Trainer, proxy: FaultProxy) -> None:
    """A creation committed after all looks were in vain leaves a twin: at the end it is deleted, and that is said."""
    held: list[Forward] = []

    def fault(handler: Handler, forward: Forward) -> bool:
        if handler.call == "runs/create" and not held:
            held.append(forward)
            handler.reset()
            return True
        if handler.call == "runs/log-batch" and len(held) == 1:
            held.append(forward)
            held[0]()  # only now, after all looks and the second creation, the first one is committed
        return False

    proxy.fault = fault

    done = trainer.run(SCRIPT, MLFLOW_TRACKING_URI=proxy.uri)

    check_one_run(server, trainer, done.stdout, done.stderr)
    assert proxy.requests.count("runs/create") == 2
    assert proxy.requests.count("runs/delete") == 1
    assert "a second, empty run on the server" in done.stderr
