"""One bad value among thousands costs itself and a few requests; a run that the server won't have is no bad value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fault_plan import Plan
from faulty_server import Answers, FaultyServer, Request, passing_on
from mlops_integrations.journal import cursor
from real_mlflow import MlflowServer, rest_runs
from strict_store import Store
from trainer import Trainer

Point = tuple[str, int, int, float | str]

BATCH = 1_000
HALVINGS = 2 * math.ceil(math.log2(BATCH))
"""Requests that find one culprit in a full batch."""
ASKS_FOR_THE_RUN = 2
"""Whether it is the run that is refused: before the halving and after it."""

RECORD = """
import mlops_integrations as mlops
with mlops.start_run(experiment_name='poison', resume={resume!r}) as run:
    for step in range(1000):
        run.log_metrics({{key: step + n / 10 for n, key in enumerate('abcde')}}, step=step)
        if step == 617:
            {poison}
    run.log_params({{f'p{{n}}': n for n in range(300)}})
"""


@contextmanager
def in_front(answers: Answers) -> Iterator[FaultyServer]:
    """A server without faults of its own, that counts what comes."""
    with FaultyServer(answers, Plan("none", slow=0)) as server:
        server.calm()
        yield server


def refusing_nan(answers: Answers) -> Answers:
    """As some servers do, whose stores have no word for it."""

    def answer(request: Request) -> tuple[int, bytes]:
        if b'"NaN"' in request.body:
            return 400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "NaN is not supported"}'
        return answers(request)

    return answer


def record(trainer: Trainer, poison: str, resume: str | None = None) -> None:
    """A training without a server."""
    done = trainer.run(RECORD.format(poison=poison, resume=resume))
    assert done.returncode == 0, done.stderr


def refused(trainer: Trainer) -> list[dict[str, object]]:
    """What was set aside."""
    path = trainer.latest / "refused.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without(points: list[Point], key: str, step: int = 617) -> list[Point]:
    """All but this one."""
    return [point for point in points if point[:2] != (key, step)]


POISON = {
    "a bad name": ("run.log_metric('acc@1', 1.0, step=step)", "acc@1", "name with characters other than", 0),
    "an over-long name": ("run.log_metric('x' * 251, 1.0, step=step)", "x" * 251, "name of over 250 characters", 0),
    "a path for a name": ("run.log_metric('../x', 1.0, step=step)", "../x", "name that reads as a path", 0),
    "NaN": (
        "run.log_metric('nan', float('nan'), step=step)",
        "nan",
        "INVALID_PARAMETER_VALUE",
        HALVINGS + ASKS_FOR_THE_RUN,
    ),
}


def about_runs(server: FaultyServer) -> int:
    """Requests; an experiment is made once for several runs."""
    return sum(call.startswith("runs/") for call in server.requests)


@pytest.mark.parametrize(("poison", "key", "reason", "most"), POISON.values(), ids=POISON)
def test_one_value_among_thousands(
    mlflow: MlflowServer, trainer: Trainer, poison: str, key: str, reason: str, most: int
) -> None:
    """It is set aside with its reason; all others are on the server; it costs about two requests for each halving."""
    with in_front(refusing_nan(passing_on(mlflow.uri))) as server:
        record(trainer, "run.log_metric('good', 1.0, step=step)")
        assert trainer.sync("--to", server.uri).returncode == 0
        without_poison = about_runs(server)
        server.requests.clear()
        record(trainer, poison)

        synced = trainer.sync("--to", server.uri, str(trainer.latest))

        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert about_runs(server) - without_poison <= most
    assert without(trainer.recorded(), key) == mlflow.points(mlflow.the_run(trainer.uid).info.run_id)
    assert 5_001 == len(trainer.recorded())
    (line,) = refused(trainer)
    assert (key, 617) == (line["metric"]["key"], line["metric"]["step"])  # type: ignore[index]
    assert str(line["reason"]).startswith(reason)
    assert "refused" in synced.stdout


def test_a_parameter_of_another_client(mlflow: MlflowServer, trainer: Trainer) -> None:
    """One of 300 that has another value on the server already: the other 299 and all metrics arrive."""
    with in_front(passing_on(mlflow.uri)) as server:
        record(trainer, "pass", resume=made(trainer, mlflow, {"p250": "taken"}))
        server.requests.clear()

        synced = trainer.sync("--to", server.uri, str(trainer.latest))

        assert synced.returncode == 0, synced.stdout + synced.stderr
        batches = 3 + 5 + 1  # parameters, metrics, and the tag that says how it ended
        extra = server.requests.count("runs/log-batch") - batches
        assert extra <= 2 * math.ceil(math.log2(100))
    (run,) = rest_runs(mlflow.uri, trainer.uid)
    assert {f"p{n}": str(n) for n in range(300)} | {"p250": "taken"} == run.params
    assert trainer.recorded() == mlflow.points(run.run_id)
    (line,) = refused(trainer)
    assert ({"key": "p250", "value": "250"}, "INVALID_PARAMETER_VALUE") == (line["param"], line["reason"])


def made(trainer: Trainer, mlflow: MlflowServer, params: dict[str, str]) -> str:
    """The uid of a run that is on the server, where somebody else has set these parameters."""
    trainer.run("import mlops_integrations as mlops\nmlops.start_run(experiment_name='poison').finish()\n")
    assert trainer.sync("--to", mlflow.uri).returncode == 0
    run_id = mlflow.the_run(trainer.uid).info.run_id
    for key, value in params.items():
        mlflow.client.log_param(run_id, key, value)
    return trainer.uid


LIVE = """
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='unwanted')
run.log_metric('first', 1, step=0)
print(run.flush(60), flush=True)
input()
for step in range(1000):
    run.log_metrics({key: step + n / 10 for n, key in enumerate('abcde')}, step=step)
print(run.finish(timeout=4))
"""
RESUMED = """
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='unwanted', resume={uid!r})
run.log_metric('last', 1, step=0)
print(run.finish(timeout=90))
"""


def train_until_unwanted(trainer: Trainer, server: FaultyServer, turn: Callable[[], object]) -> str:
    """A live training, whose run the server turns against after its first record; what it said at its end."""
    process = trainer.start(LIVE, MLFLOW_TRACKING_URI=server.uri, MLOPS_LINGER="1")
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    turn()
    server.requests.clear()
    out, err = process.communicate("\n", timeout=100)
    assert out == "False\n", err
    assert len(trainer.recorded()) == 5_001
    assert refused(trainer) == []
    return err


def check_that_another_server_gets_all(trainer: Trainer) -> None:
    """By `sync --to`."""
    with in_front(elsewhere := Store()) as other:
        synced = trainer.sync("--to", other.uri)
        assert synced.returncode == 0, synced.stdout + synced.stderr
    (run,) = elsewhere.runs_of(trainer.uid)
    assert run.status == "FINISHED"
    assert set(trainer.recorded()) == {(key, step, at, value) for key, value, at, step in run.metrics}


def check_that_it_goes_on(trainer: Trainer, server: FaultyServer, mlflow: MlflowServer) -> None:
    """By `resume`."""
    done = trainer.run(RESUMED.format(uid=trainer.uid), MLFLOW_TRACKING_URI=server.uri)
    assert done.stdout == "True\n", done.stderr
    run = mlflow.the_run(trainer.uid)
    assert run.info.status == "FINISHED"
    assert trainer.recorded() == mlflow.points(run.info.run_id)
    assert refused(trainer) == []


def test_a_deleted_run(mlflow: MlflowServer, trainer: Trainer) -> None:
    """It is asked about once, and said; `sync --to` another server delivers all, `resume` once it is restored."""
    with in_front(passing_on(mlflow.uri)) as server:
        said = train_until_unwanted(
            trainer, server, lambda: mlflow.client.delete_run(mlflow.the_run(trainer.uid).info.run_id)
        )
        assert "was deleted on the server. Everything is kept" in said
        assert ["runs/log-batch", "runs/get"] == server.requests
        check_that_another_server_gets_all(trainer)
        mlflow.client.restore_run(run_id_at(trainer, server.uri))
        check_that_it_goes_on(trainer, server, mlflow)


def run_id_at(trainer: Trainer, uri: str) -> str:
    """The run's id there."""
    state = cursor.load(cursor.cursor_path(trainer.latest, uri))
    assert state is not None
    assert state.run_id is not None
    return state.run_id


def test_a_forbidden_run(mlflow: MlflowServer, trainer: Trainer) -> None:
    """It is tried again, slower and slower, and said; `sync --to` delivers all, `resume` once it is allowed again."""
    forbidden = []

    def answer(request: Request) -> tuple[int, bytes]:
        if forbidden and request.call in {"runs/log-batch", "runs/update"}:
            return 403, b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}'
        return passing_on(mlflow.uri)(request)

    with in_front(answer) as server:
        said = train_until_unwanted(trainer, server, lambda: forbidden.append(True))
        assert "PERMISSION_DENIED" in said
        assert "The rest:" in said
        assert 1 <= server.requests.count("runs/log-batch") <= 6
        assert "runs/get" not in server.requests  # nothing was halved
        check_that_another_server_gets_all(trainer)
        forbidden.clear()
        check_that_it_goes_on(trainer, server, mlflow)


def test_a_run_that_the_server_knows_nothing_of_any_more(trainer: Trainer) -> None:
    """Its database was lost, say: that is said, with what to do, and `sync --to` another server delivers all."""
    store = Store()
    with in_front(store) as server:
        said = train_until_unwanted(trainer, server, store.runs.clear)
        assert "RESOURCE_DOES_NOT_EXIST" in said
        assert "Everything is kept: `sync --as-new` makes another run, `sync --to` goes to another server" in said
        assert ["runs/log-batch", "runs/get"] == server.requests
        check_that_another_server_gets_all(trainer)
