"""What a server refuses is found by halving, set aside with its reason, and costs no other record."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from mlops_integrations.backends.protocol import Batch, Kind, Metric, Outcome
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.upload.rejection import RejectedRecords, bisect, deliver_all_but_rejected

REFUSED: Outcome[None] = Outcome(Kind.REFUSED, None, "bad", "BAD")


def metrics(count: int) -> list[Metric]:
    """So many different ones."""
    return [("loss", float(number), number, number) for number in range(count)]


class Server:
    """Takes requests as a whole, unless there is poison in them."""

    def __init__(self, poison: set[int]) -> None:
        self.poison = poison
        self.taken: list[Metric] = []
        self.asked = 0

    def send(self, batch: Batch) -> Outcome[None]:
        """All or nothing, as MLflow does it."""
        self.asked += 1
        if any(item[3] in self.poison for item in batch.metrics):
            return REFUSED
        self.taken += batch.metrics
        return Outcome(Kind.OK)


@given(st.integers(1, 200), st.sets(st.integers(0, 199), max_size=8))
def test_only_the_culprits_are_set_aside(count: int, poison: set[int]) -> None:
    """Everything else is delivered, once, in order; and counted so."""
    server, aside = Server(poison), []
    batch = Batch(metrics(count))
    culprits = [item for item in batch.metrics if item[3] in poison]
    if not culprits:
        return
    taken = bisect(batch, server.send, lambda part, outcome: aside.append((part, outcome)), REFUSED)
    assert [item for item in batch.metrics if item[3] not in poison] == server.taken
    assert len(server.taken) == taken
    assert [(Batch([item]), REFUSED) for item in culprits] == [(Batch(list(part.metrics)), why) for part, why in aside]


def test_one_culprit_is_found_in_few_requests() -> None:
    """About two for each halving."""
    server = Server({617})
    bisect(Batch(metrics(1_000)), server.send, lambda *_: None, REFUSED)
    assert server.asked <= 2 * 10


FAILED: Outcome[None] = Outcome(Kind.REFUSED, None, "oops", "INTERNAL_ERROR", suspect=True)


class FailingServer(Server):
    """Fails at poison each time; and at everything, for the first requests."""

    def __init__(self, poison: set[int], ill: int) -> None:
        super().__init__(poison)
        self.ill = ill

    def send(self, batch: Batch) -> Outcome[None]:
        outcome = super().send(batch)
        if self.asked > self.ill:
            return outcome if outcome.ok else FAILED
        if outcome.ok:
            del self.taken[-len(batch) :]
        return FAILED


@pytest.mark.parametrize("ill", [0, 1, 7, 25, 60])
def test_what_a_server_only_fails_at_gets_more_chances(ill: int) -> None:
    """A server that fails at everything for some requests costs no innocent, and a culprit is found all the same."""
    server, aside, waits = FailingServer({5}, ill), [], []
    taken = deliver_all_but_rejected(
        Batch(metrics(20)), server.send, lambda part, _: aside.append(part), FAILED, waits.append
    )

    assert [item for item in metrics(20) if item[3] != 5] == sorted(server.taken, key=lambda item: item[3])
    assert 19 == taken
    assert [metrics(20)[5]] == [metric for part in aside for metric in part.metrics]
    assert [1.0, 4.0, 25.0, 60.0] == waits


def test_a_batch_of_culprits_is_given_up_in_the_end() -> None:
    """Where nothing at all is taken the server gets more time; then all is set aside, and the rest may go on."""
    server, aside, waits = FailingServer(set(range(4)), 0), [], []
    assert 0 == deliver_all_but_rejected(
        Batch(metrics(4)), server.send, lambda part, _: aside.append(part), FAILED, waits.append
    )
    assert metrics(4) == [metric for part in aside for metric in part.metrics]
    assert [1.0, 4.0, 25.0, 60.0, 60.0] == waits


def test_a_clear_no_needs_no_second_chance() -> None:
    """What the server says no to is set aside at once."""
    server, aside, waits = Server({3}), [], []
    assert 7 == deliver_all_but_rejected(
        Batch(metrics(8)), server.send, lambda part, _: aside.append(part), REFUSED, waits.append
    )
    assert ([metrics(8)[3]], []) == ([metric for part in aside for metric in part.metrics], waits)


def test_params_and_tags() -> None:
    """They are halved as metrics are."""
    aside: list[Batch] = []

    def send(batch: Batch) -> Outcome[None]:
        return REFUSED if ("bad", "x") in [*batch.params, *batch.tags] else Outcome(Kind.OK)

    items = [("a", "1"), ("bad", "x"), ("b", "2")]
    assert bisect(Batch(params=items), send, lambda part, _: aside.append(part), REFUSED) == 2
    assert bisect(Batch(tags=items), send, lambda part, _: aside.append(part), REFUSED) == 2
    assert [Batch(params=[("bad", "x")]), Batch(tags=[("bad", "x")])] == aside


def test_refused_file(tmp_path: Path) -> None:
    """Each item stands in the file whole, with the reason and with where it should have gone."""
    state = Cursor("http://h", refused={"earlier": 1})
    path = tmp_path / "refused.jsonl"
    refusals = RejectedRecords(path, state)
    refusals.set_aside(Batch([("потеря", "NaN", 5, -1), ("a", 0.5, 6, 2)]), "BAD", "the whole story")
    refusals.set_aside(Batch(params=[("p", "1")], tags=[("t", "2")]), "WORSE", "x" * 10_000)
    assert not path.exists()  # not before the cursor moves
    refusals.commit()
    refusals.commit()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert state.refused == {"earlier": 1, "BAD": 2, "WORSE": 2}
    assert state.refused_first == {"BAD": "потеря", "WORSE": "p"}
    assert [line["destination"] for line in lines] == ["http://h"] * 4
    assert [line["reason"] for line in lines] == ["BAD", "BAD", "WORSE", "WORSE"]
    assert lines[0]["metric"] == {"key": "потеря", "value": "NaN", "timestamp": 5, "step": -1}
    assert [lines[2]["param"], lines[3]["tag"]] == [{"key": "p", "value": "1"}, {"key": "t", "value": "2"}]
    assert lines[0]["message"] == "the whole story"
    assert len(lines[2]["message"]) <= 500


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_refused_file_is_private(tmp_path: Path) -> None:
    """Nobody else may read it, whatever the umask."""
    before = os.umask(0)
    try:
        refusals = RejectedRecords(tmp_path / "refused.jsonl", Cursor("http://h"))
        refusals.set_aside(Batch(tags=[("t", "1")]), "BAD", "")
        refusals.commit()
    finally:
        os.umask(before)
    assert (tmp_path / "refused.jsonl").stat().st_mode & 0o777 == 0o600
