"""When to send and how long to wait: bounds that hold for every duration and every attempt."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from mlops_integrations.upload.pacing import Pacer, backoff

SECONDS = st.floats(0.0, 1e6)


class Edge(random.Random):
    """Chance at one of its ends."""

    def __init__(self, at: float) -> None:
        super().__init__(0)
        self.at = at

    def uniform(self, a: float, b: float) -> float:
        """The lower or the upper bound, or between."""
        return a + (b - a) * self.at


EDGES = st.sampled_from([0.0, 0.5, 1.0]).map(Edge)


def test_first_records_go_at_once() -> None:
    """Before anything is known of the server there is no pause."""
    assert Pacer(random.Random(0)).pause() == 0.0


@given(st.lists(SECONDS, min_size=1), EDGES)
def test_pause_bounds(durations: list[float], rng: random.Random) -> None:
    """However fast or slow the server is, the pause lies between half a second and five minutes, and its jitter."""
    pacer = Pacer(rng)
    for seconds in durations:
        pacer.observe(seconds, full=False)
    assert 0.5 * 0.8 <= pacer.pause() <= 300.0 * 1.2


def test_pause_is_nine_requests_long() -> None:
    """A run takes about a tenth of the server's time."""
    pacer = Pacer(Edge(0.5))
    for _ in range(3):
        pacer.observe(0.2, full=False)
    assert pytest.approx(1.8) == pacer.pause()


def test_pause_follows_the_server() -> None:
    """One slow request does not count for all, and is forgotten."""
    pacer = Pacer(Edge(0.5))
    pacer.observe(0.1, full=False)
    pacer.observe(1.1, full=False)
    slow = pacer.pause()
    assert 0.9 < slow < 9.0
    for _ in range(50):
        pacer.observe(0.1, full=False)
    assert pytest.approx(0.9, rel=0.01) == pacer.pause()


def test_jitter_keeps_runs_apart() -> None:
    """Runs that began together don't stay together."""
    pacer = Pacer(random.Random(0))
    pacer.observe(0.2, full=False)
    pauses = [pacer.pause() for _ in range(100)]
    assert len(set(pauses)) > 50
    assert max(pauses) <= 1.8 * 1.2 + 1e-9
    assert min(pauses) >= 1.8 * 0.8 - 1e-9


def test_strained() -> None:
    """Two full requests of four times the fastest one's time mean that the server can't keep up; until it can."""
    pacer = Pacer(random.Random(0))
    assert not pacer.strained
    pacer.observe(100.0, full=False)
    assert not pacer.strained
    took = [(0.1, False), (0.4, False), (0.4, True), (0.2, False), (0.05, False), (0.2, False), (0.3, True)]
    for seconds, strained in took:
        pacer.observe(seconds, full=True)
        assert strained is pacer.strained


def test_fast_hour_long_ago_is_forgotten() -> None:
    """A server that has become slow for good is not strained for ever."""
    pacer = Pacer(random.Random(0))
    pacer.observe(0.01, full=True)
    for _ in range(100):
        pacer.observe(1.0, full=True)
    assert not pacer.strained


@given(st.integers(1, 10**6), st.none() | st.floats(0.0, allow_infinity=True, allow_nan=False), EDGES)
def test_backoff_bounds(attempt: int, retry_after: float | None, rng: random.Random) -> None:
    """A minute of our own will at most; what the server asks for, up to five minutes, and half of that on top."""
    seconds = backoff(attempt, retry_after, rng)
    asked = min(retry_after or 0.0, 300.0)
    assert asked <= seconds <= asked + max(60.0, 0.5 * asked)


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(1, 1.0), (2, 2.0), (6, 32.0), (7, 60.0), (10**6, 60.0), (10**400, 60.0)]
)
def test_backoff_grows_and_does_not_overflow(attempt: int, ceiling: float) -> None:
    """It doubles up to a minute; an outage of days is no arithmetic error. Chance may make it nothing."""
    assert ceiling == backoff(attempt, None, Edge(1.0))
    assert backoff(attempt, None, Edge(0.0)) == 0.0
