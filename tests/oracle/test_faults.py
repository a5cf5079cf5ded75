"""Whatever goes wrong in the middle of a training: nothing is lost, and nothing is written twice."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal import cursor, lease
from mlops_integrations.journal.cursor import Trouble
from oracle_gateway import Answer, Gateway, PassOnError, Seen
from real_mlflow import MlflowServer, eventually, rest_runs

from .conftest import Keys

POINTS = 400


def state_of(run: mlops.Run) -> cursor.Cursor:
    """What the uploader knows."""
    (state,) = cursor.load_all(run.directory)
    return state


def trouble_of(run: mlops.Run) -> Trouble:
    """Why nothing moves, as soon as that is so."""
    return eventually(lambda: next((state.trouble for state in cursor.load_all(run.directory)), None))


@contextmanager
def training(gateway: Gateway, server: MlflowServer, uri: str | None = None, **more: str) -> Iterator[mlops.Run]:
    """A run of so many points; afterwards they are all there, each written once, and the run is FINISHED."""
    run = mlops.start_run(experiment_name=uuid.uuid4().hex, tracking_uri=uri or gateway.uri, params={"lr": 0.1}, **more)
    yield run
    assert run.finish(timeout=100)
    written = gateway.points()
    assert [point[:2] for point in written] == [("loss", step) for step in range(POINTS)]
    (kept,) = rest_runs(server.uri, run.uid)
    assert kept.curve("loss") == [(step, float(step)) for step in range(POINTS)]
    assert (kept.status, kept.params) == ("FINISHED", {"lr": "0.1"})


def log(run: mlops.Run, first: int = 0, last: int = POINTS) -> None:
    """Some of the points."""
    for step in range(first, last):
        run.log_metric("loss", step, step=step)


class Faults:
    """The first requests of a call, and what becomes of them."""

    def __init__(self, gateway: Gateway, call: str, *answers: Callable[[Callable[[], Answer]], Answer | None]) -> None:
        self.came: list[Seen] = []
        self._call = call
        self._answers = list(answers)
        gateway.fault = self

    def __call__(self, seen: Seen, do: Callable[[], Answer]) -> Answer | None:
        """Answer one request."""
        if seen.call != self._call or not self._answers:
            raise PassOnError
        self.came.append(seen)
        return self._answers.pop(0)(do)


def says(status: int, code: str, **headers: str) -> Callable[[Callable[[], Answer]], Answer]:
    """An error, and nothing is done."""
    return lambda _do: Answer.error(status, code, **headers)


def done_but(answer: Answer | None) -> Callable[[Callable[[], Answer]], Answer | None]:
    """It is done, and answered so."""

    def act(do: Callable[[], Answer]) -> Answer | None:
        assert do().status == 200
        return answer

    return act


def test_a_service_that_throttles(gateway: Gateway, server: MlflowServer) -> None:
    """After 429 nothing is asked until the time that the service named is over; each attempt is signed anew."""
    faults = Faults(gateway, "runs/log-batch", *[says(429, "TooManyRequests", Retry_After="2")] * 2)
    with training(gateway, server) as run:
        log(run)
    first, second = faults.came
    third = gateway.calls("runs/log-batch", 200)[0]
    assert first.token == second.token == third.token
    dates = [seen.headers["date"] for seen in (first, second, third)]
    assert len(set(dates)) == 3, "signed anew, seconds apart"
    assert len({seen.headers["opc-request-id"] for seen in (first, second, third)}) == 3
    assert len({seen.headers["authorization"] for seen in (first, second, third)}) == 3


@pytest.mark.parametrize("call", ["runs/create", "runs/log-batch", "runs/update", "experiments/create"])
@pytest.mark.parametrize("answer", [Answer.error(500, "InternalServerError"), None], ids=["500", "no reply"])
def test_a_failure_after_the_write(
    gateway: Gateway, server: MlflowServer, call: str, answer: Answer | None, tmp_path: Path
) -> None:
    """It was done and it is asked for again by the same token: done once. The run is made once, too."""
    faults = Faults(gateway, call, done_but(answer))
    with training(gateway, server) as run:
        log(run)
    (lost,) = faults.came
    again = [seen for seen in gateway.calls(call, 200) if seen.token == lost.token]
    # A run or experiment that is there already is found before it is asked for again.
    assert len(again) == (0 if call.endswith("create") else 1)
    assert len(rest_runs(server.uri, run.uid)) == 1
    assert len({seen.token for seen in gateway.done}) == len(gateway.done)


def test_a_token_that_expires(gateway: Gateway, server: MlflowServer, keys: Keys) -> None:
    """In the middle of the run; it is read again, and the refused request is asked for once more by its token."""
    with training(gateway, server, f"{gateway.uri}?profile=SESSION") as run:
        log(run, 0, 200)
        assert run.flush(timeout=30)
        keys.token.write_text("second-token")
        gateway.keys["ST$second-token"] = gateway.keys.pop("ST$first-token")
        log(run, 200, POINTS)
    assert {seen.key_id for seen in gateway.done} == {"ST$first-token", "ST$second-token"}
    (denied,) = [seen for seen in gateway.seen if seen.status == 401]
    after = gateway.seen[gateway.seen.index(denied) + 1]
    assert (after.status, after.token, after.body is not None) == (200, denied.token, True)


def test_a_token_that_comes_late(gateway: Gateway, server: MlflowServer, keys: Keys) -> None:
    """While there is none that does, all is kept, and it is said with the request's name."""
    with training(gateway, server, f"{gateway.uri}?profile=SESSION") as run:
        log(run, 0, 200)
        assert run.flush(timeout=30)
        public = gateway.keys.pop("ST$first-token")
        log(run, 200, POINTS)
        trouble = trouble_of(run)
        assert trouble.message.startswith("NotAuthenticated: ")
        assert trouble.request_id in {seen.request_id for seen in gateway.seen if seen.status == 401}
        gateway.keys["ST$second-token"] = public
        keys.token.write_text("second-token")


def test_a_retry_token_that_is_not_valid_any_more(gateway: Gateway, server: MlflowServer) -> None:
    """What is there is looked up, and only what is missing is written, by a token of its own."""

    def lose_and_invalidate(do: Callable[[], Answer]) -> None:
        assert do().status == 200
        gateway.invalidated.add(faults.came[-1].token or "")

    with training(gateway, server) as run:
        assert run.flush(timeout=30)
        faults = Faults(gateway, "runs/log-batch", lose_and_invalidate)
        log(run)
    assert gateway.calls("runs/log-batch", 409) != []
    assert gateway.calls("metrics/get-history", 200) != []
    assert state_of(run).doubled == 0


def test_conflicts_that_pass(gateway: Gateway, server: MlflowServer) -> None:
    """By their code: these are asked for again."""
    faults = Faults(gateway, "runs/log-batch", says(409, "IncorrectState"), says(409, "LockConflict"))
    with training(gateway, server) as run:
        log(run)
    assert len(faults.came) == 2


def test_an_uploader_that_is_killed(gateway: Gateway, server: MlflowServer) -> None:
    """Between the write and its own note of it: the next one asks for the same write by the same token."""
    arrived = threading.Event()
    killed: list[Seen] = []

    def kill(seen: Seen, do: Callable[[], Answer]) -> Answer | None:
        if killed or not (seen.body or {}).get("metrics"):
            raise PassOnError
        assert do().status == 200
        holder = lease.live_holder(run.directory)
        assert holder is not None
        assert holder.identity.pid != os.getpid()
        os.kill(holder.identity.pid, signal.SIGKILL)
        killed.append(seen)
        arrived.set()
        return None

    with training(gateway, server) as run:
        assert run.wait(timeout=30) is not None
        gateway.fault = kill
        log(run, 0, 200)
        assert arrived.wait(60)
        log(run, 200, POINTS)
    (first,) = killed
    again = [seen for seen in gateway.calls("runs/log-batch", 200) if seen.token == first.token]
    assert [seen.body for seen in again] == [first.body]
    assert gateway.replays == 1


def test_a_clock_that_is_wrong(gateway: Gateway, server: MlflowServer) -> None:
    """The signature is refused for its date: kept, said with a hint, and delivered when the clock is right again."""
    gateway.ahead = 3_600
    with training(gateway, server) as run:
        log(run)
        trouble = trouble_of(run)
        assert "clock" in trouble.message
        gateway.ahead = 0


def test_no_such_workspace(gateway: Gateway, server: MlflowServer) -> None:
    """It is kept, and said what it may be; with the request's name, for whoever asks Oracle."""
    uri = gateway.uri.replace("workspaces/8a", "workspaces/9a")
    with mlops.start_run(experiment_name="faults", tracking_uri=uri) as run:
        run.log_metric("loss", 1)
    assert not run.finish(timeout=30)
    trouble = trouble_of(run)
    assert trouble.stopped
    assert "not there, or these credentials may not see it" in trouble.message
    assert "(request service-" in trouble.message


def test_a_value_that_is_refused(gateway: Gateway, server: MlflowServer) -> None:
    """It is found in its batch and set aside; all others arrive."""
    with mlops.start_run(experiment_name="faults", tracking_uri=gateway.uri) as run:
        run.log_metric("bad\x00name", 1.0)
        for step in range(10):
            run.log_metric("loss", step, step=step)
    assert run.finish(timeout=60)
    state = state_of(run)
    assert (state.points, sum(state.refused.values())) == (10, 1)
    text = (run.directory / "refused.jsonl").read_text()
    assert "InvalidParameter" in text
    assert "(request service-" in text
    assert rest_runs(server.uri, run.uid)[0].curve("loss") == [(step, float(step)) for step in range(10)]
