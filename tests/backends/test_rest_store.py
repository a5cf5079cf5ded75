"""What ``TrackingClient`` takes for an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.errors import ServerError


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    """A server with one run."""
    with FakeMlflow() as running:
        yield running


@pytest.fixture
def client(server: FakeMlflow) -> mlops.TrackingClient:
    """A client of it, which knows what it speaks."""
    return mlops.TrackingClient(server.uri, dialect="mlflow")


WRITES: dict[str, Callable[[mlops.TrackingClient, str], object]] = {
    "runs/log-batch": lambda client, run_id: client.log_batch(run_id, [mlops.entities.Metric("loss", 1.0, 1, 0)]),
    "runs/log-metric": lambda client, run_id: client.log_metric(run_id, "loss", 1.0),
    "runs/log-parameter": lambda client, run_id: client.log_param(run_id, "lr", 1.0),
    "runs/set-tag": lambda client, run_id: client.set_tag(run_id, "team", "vision"),
    "runs/update": lambda client, run_id: client.update_run(run_id, "FINISHED"),
    "runs/create": lambda client, _: client.create_run("1"),
    "experiments/create": lambda client, _: client.create_experiment("other"),
}


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize("body", [{"status": "maintenance"}, {"error_code": "TEMPORARILY_UNAVAILABLE"}])
def test_a_write_that_something_else_has_answered_raises(
    server: FakeMlflow, client: mlops.TrackingClient, call: str, body: dict[str, Any]
) -> None:
    """It is not sent again, for it may be done: whoever called has to look."""
    run_id = client.create_run(client.create_experiment("digits")).info.run_id
    server.answer_next(call, 200, times=9, body=body)
    asked = server.requests.count(call)

    with pytest.raises(ServerError, match=f"no answer to {call}.*Whether it was done is not known"):
        WRITES[call](client, run_id)

    assert server.requests.count(call) == asked + 1


def test_a_read_is_asked_again(server: FakeMlflow, client: mlops.TrackingClient) -> None:
    """A gateway's word in between is no empty result."""
    run_id = client.create_run(client.create_experiment("digits")).info.run_id
    client.log_batch(run_id, [mlops.entities.Metric("loss", 1.0, 1, 0)])
    server.answer_next("metrics/get-history", 200, times=2, body={"status": "maintenance"})

    assert [metric.value for metric in client.get_metric_history(run_id, "loss")] == [1.0]
