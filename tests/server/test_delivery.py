"""What is logged is what the server holds: every point, once, with its own time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from real_mlflow import MlflowServer
from trainer import Trainer

MANY = """
import math, os, random
import mlops_integrations as mlops
rng = random.Random(7)
keys = [f"train/loss.{i}" for i in range(10)] + [f"точность_{i}" for i in range(5)] + [f"损失 {i}" for i in range(5)]
steps = [-5, 2**63 - 1, -(2**63), 2**40, 0]
with mlops.start_run(experiment_name="many", run_name="many", params={"lr": 0.1, "net": {"width": 8}},
                     tags={"team": "зрение"}) as run:
    for i in range(5000):
        row = {key: rng.gauss(0, 1) * 10 ** rng.randint(-300, 300) for key in keys}
        if i % 97 == 0:
            row[keys[i % 20]] = float("nan")
        if i % 89 == 0:
            row[keys[(i + 3) % 20]] = math.inf if i % 2 else -math.inf
        run.log_metrics(row, step=steps[i] if i < len(steps) else i)
    delivered = run.finish(timeout=90)
print(delivered, run.run_id)
"""


TOLD = """
import mlflow
mlflow.set_tracking_uri({uri!r})
mlflow.set_experiment("moved over")
import mlops_integrations as mlops
with mlops.start_run() as run:
    run.log_metric("loss", 0.5)
"""


def test_what_mlflow_was_told_holds_here(server: MlflowServer, trainer: Trainer) -> None:
    """A script that names its server and experiment by MLflow's own calls needs no change."""
    done = trainer.run(TOLD.format(uri=server.uri))

    assert 0 == done.returncode, done.stderr
    experiment = server.client.get_experiment(server.closed(trainer.uid).info.experiment_id)
    assert "moved over" == experiment.name


def test_a_hundred_thousand_points_arrive_as_they_were_logged(server: MlflowServer, trainer: Trainer) -> None:
    """Every point of a large run is on the server with its key, step, time and value; so are params and tags."""
    done = trainer.run(MANY, MLFLOW_TRACKING_URI=server.uri)

    assert (done.returncode, done.stdout.split()[0]) == (0, "True"), done.stderr
    run = server.the_run(trainer.uid)
    recorded = trainer.recorded()
    assert len(recorded) == 100_000
    assert recorded == server.points(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "net/width": "8"}
    assert run.data.tags["team"] == "зрение"


def test_a_run_shows_who_ran_what(server: MlflowServer, trainer: Trainer) -> None:
    """User, source, name and times stand where MLflow's own client puts them."""
    done = trainer.run(
        "import mlops_integrations as mlops\n"
        "with mlops.start_run(experiment_name='who', run_name='parent') as parent:\n"
        "    parent.log_metric('a', 1)\n"
        "    with mlops.start_run(experiment_name='who', run_name='child', parent=parent) as child:\n"
        "        child.log_metric('a', 1)\n"
        "    print(parent.run_id, child.run_id)\n",
        MLFLOW_TRACKING_URI=server.uri,
        USER="ada",
        LOGNAME="ada",
    )

    parent, child = (server.client.get_run(run_id) for run_id in done.stdout.split())
    assert "ada" == child.data.tags["mlflow.user"] == child.info.user_id
    assert str(trainer.directory / "train.py") == child.data.tags["mlflow.source.name"]
    assert child.data.tags["mlflow.source.type"] == "LOCAL"
    assert (child.data.tags["mlflow.runName"], child.info.run_name) == ("child", "child")
    assert parent.info.run_id == child.data.tags["mlflow.parentRunId"]
    assert child.info.start_time <= child.info.end_time


def test_a_run_without_server_is_delivered_later_with_its_own_times(server: MlflowServer, trainer: Trainer) -> None:
    """Recorded with no server at all, then synced twice: the same points, the original times, one run."""
    done = trainer.run(
        "import mlops_integrations as mlops\n"
        "with mlops.start_run(experiment_name='offline', params={'a': 1}) as run:\n"
        "    for i in range(3000):\n"
        "        run.log_metrics({'loss': 1 / (i + 1), 'acc': i}, step=i)\n"
    )
    assert done.returncode == 0, done.stderr
    before = time.time() * 1000

    for _ in range(2):
        synced = trainer.sync("--to", server.uri)
        assert synced.returncode == 0, synced.stderr

    run = server.the_run(trainer.uid)
    points = server.points(run.info.run_id)
    assert trainer.recorded() == points
    assert len(points) == 6000
    assert max(time for _, _, time, _ in points) <= before
    assert run.info.status == "FINISHED"
    assert run.info.end_time <= before


OUTAGE = """
import time
from pathlib import Path
import mlops_integrations as mlops
slowest = 0.0
def log(first, count):
    global slowest
    for i in range(first, first + count):
        began = time.monotonic()
        run.log_metrics({'loss': i, 'acc': -i}, step=i)
        slowest = max(slowest, time.monotonic() - began)
with mlops.start_run(experiment_name='outage') as run:
    log(0, 2000)
    print(run.flush(30), flush=True)
    input()
    log(2000, 2000)
    print(run.flush(1), flush=True)
    input()
    print(run.finish(timeout=60), slowest)
"""


def test_a_server_that_stops_and_starts_again_loses_nothing(own_server: MlflowServer, trainer: Trainer) -> None:
    """Through an outage in the middle of a run no log call waits for it, and all of it arrives afterwards."""
    own_server.start()
    process = trainer.start(OUTAGE, MLFLOW_TRACKING_URI=own_server.uri)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    own_server.stop()
    process.stdin.write("down\n")
    process.stdin.flush()
    assert process.stdout.readline() == "False\n"
    own_server.start()

    out, err = process.communicate("up again\n", timeout=90)

    finished, slowest = out.split()
    assert finished == "True", err
    assert float(slowest) < 1.0
    assert "does not take the records" in err
    points = own_server.points(own_server.the_run(trainer.uid).info.run_id)
    assert len(points) == 8000
    assert trainer.recorded() == points


def test_what_the_server_refuses_is_set_aside_and_the_rest_arrives(server: MlflowServer, trainer: Trainer) -> None:
    """A bad name, a parameter that another client has set, and an over-long text cost only themselves."""
    done = trainer.run(
        "import mlflow, mlops_integrations as mlops\n"
        "with mlops.start_run(experiment_name='poison', tags={'long': 'x' * 9000}) as run:\n"
        "    mlflow.MlflowClient().log_param(run.wait(), 'taken', 'by another')\n"
        "    run.log_params({'taken': 'mine', 'mine': 1, 'also mine': 2})\n"
        "    for i in range(100):\n"
        "        run.log_metrics({'acc@1': i, 'good': i}, step=i)\n"
        "    print(run.finish())\n",
        MLFLOW_TRACKING_URI=server.uri,
    )

    assert done.stdout == "True\n", done.stderr
    run = server.the_run(trainer.uid)
    assert run.data.params == {"taken": "by another", "mine": "1", "also mine": "2"}
    assert len(run.data.tags["long"]) == 8000
    assert [("good", i) for i in range(100)] == sorted((p[0], p[1]) for p in server.points(run.info.run_id))
    refused = [json.loads(line) for line in (trainer.latest / "refused.jsonl").read_text().splitlines()]
    assert len(refused) == 101
    assert [line["param"]["key"] for line in refused if "param" in line] == ["taken"]
    assert "refuses" in done.stderr


def test_a_deleted_run_stops_delivery_and_keeps_everything(server: MlflowServer, trainer: Trainer) -> None:
    """A run deleted on the server is not poison: nothing is set aside, it is said, and a restored run gets the rest."""
    done = trainer.run(
        "import mlflow, mlops_integrations as mlops\n"
        "client = mlflow.MlflowClient()\n"
        "with mlops.start_run(experiment_name='deleted') as run:\n"
        "    run.log_metric('a', 1, step=0)\n"
        "    run.flush(20)\n"
        "    client.delete_run(run.run_id)\n"
        "    for i in range(1, 50):\n"
        "        run.log_metric('a', i, step=i)\n"
        "    print(run.finish(timeout=5), run.run_id)\n",
        MLFLOW_TRACKING_URI=server.uri,
    )
    finished, run_id = done.stdout.split()
    assert finished == "False"
    assert "deleted on the server" in done.stderr
    assert not (trainer.latest / "refused.jsonl").exists()

    server.client.restore_run(run_id)
    synced = trainer.sync()

    assert synced.returncode == 0, synced.stderr
    assert trainer.recorded() == server.points(run_id)
    assert server.client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_a_reopened_run_is_one_run(server: MlflowServer, trainer: Trainer, uploader: str) -> None:
    """Logging after finish re-opens the run: RUNNING again, then ended again, with all points in one run."""
    done = trainer.run(
        "import mlops_integrations as mlops\n"
        "run = mlops.start_run(experiment_name='reopened')\n"
        "run.log_metric('a', 1, step=0)\n"
        "print(run.finish(), mlops.active_run())\n"
        "run.log_metric('a', 2, step=1)\n"
        "print(run.flush(20), mlops.active_run() is run)\n"
        "import mlflow\n"
        "print(mlflow.MlflowClient().get_run(run.run_id).info.status)\n"
        "print(run.finish('FAILED'), run.finish('FAILED'))\n",
        MLFLOW_TRACKING_URI=server.uri,
        MLOPS_UPLOADER=uploader,
    )

    assert done.stdout.splitlines() == ["True None", "True True", "RUNNING", "True True"], done.stderr
    run = server.the_run(trainer.uid)
    assert run.info.status == "FAILED"
    assert trainer.recorded() == server.points(run.info.run_id)


def test_a_deleted_experiment_is_a_clear_error(server: MlflowServer, trainer: Trainer) -> None:
    """A deleted experiment is named as such with what to do, and nothing is lost."""
    server.client.delete_experiment(server.client.create_experiment("gone"))
    done = trainer.run(
        "import mlops_integrations as mlops\n"
        "with mlops.start_run(experiment_name='gone') as run:\n"
        "    run.log_metric('a', 1)\n"
        "    print(run.finish(timeout=5))\n",
        MLFLOW_TRACKING_URI=server.uri,
    )

    assert done.stdout == "False\n"
    assert "experiment 'gone' is deleted on the server: restore it there, or name another" in done.stderr
    assert len(trainer.recorded()) == 1


def test_a_server_below_a_path_is_reached(tmp_path: Path, trainer: Trainer) -> None:
    """A server behind a prefix gets the run, and the printed link leads to it."""
    prefixed = MlflowServer(tmp_path, prefix="/team/ml")
    prefixed.start()
    try:
        done = trainer.run(
            "import mlops_integrations as mlops\n"
            "with mlops.start_run(experiment_name='prefixed') as run:\n"
            "    run.log_metric('a', 1)\n"
            "    print(run.finish(timeout=30), run.url)\n",
            MLFLOW_TRACKING_URI=prefixed.uri + "/",
        )
        delivered, url = done.stdout.split()
        run = prefixed.the_run(trainer.uid)

        assert delivered == "True"
        assert url == f"{prefixed.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        assert prefixed.points(run.info.run_id) == trainer.recorded()
    finally:
        prefixed.stop()


def test_many_runs_of_a_new_experiment_share_it(server: MlflowServer, trainer: Trainer) -> None:
    """Runs that start at the same moment in an experiment that does not exist yet end up in one experiment."""
    done = trainer.run(
        "import mlops_integrations as mlops\n"
        "runs = [mlops.start_run(experiment_name='raced', run_name=f'r{i}') for i in range(6)]\n"
        "for run in runs: run.log_metric('a', 1)\n"
        "print([run.finish(timeout=60) for run in runs])\n",
        MLFLOW_TRACKING_URI=server.uri,
    )

    assert f"{[True] * 6}\n" == done.stdout, done.stderr
    experiment = server.client.get_experiment_by_name("raced")
    assert len(server.client.search_runs([experiment.experiment_id])) == 6
