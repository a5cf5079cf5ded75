"""Many runs share one server: no herd after an outage, each gets its share, the backlog goes as fast as it can.

The table is printed: ``pytest -s tests/faults/test_fleet.py``, or ``python tests/faults/harness/fleet.py``.
"""

from __future__ import annotations

import os

import pytest

import fleet
from fleet import HEADER, row, simulate

ALL = [(runs, announces) for runs in (1, 10, 100, 1_000, 10_000) for announces in (False, True)]
IN_CI = [case for case in ALL if case != (10_000, True)]


@pytest.mark.parametrize(("runs", "announces"), ALL if "FAULT_SEEDS" in os.environ else IN_CI)
def test_runs_that_share_a_server(runs: int, announces: bool) -> None:
    """Ten minutes of outage, whether the server tells when it is back or not, and an end of all runs at once."""
    one = simulate(runs, announces=announces)
    print(f"\n{HEADER}\n{row(one)}")

    assert one.undelivered == 0
    assert one.used <= 1.0
    assert one.queue < fleet.ACCEPT_QUEUE or runs > fleet.ACCEPT_QUEUE
    assert one.herd <= max(0.1, 2.0 / runs**0.5)  # few runs are no herd
    assert one.fairness <= 4.0
    assert one.wasted <= 0.2
    assert one.caught_up <= 2.0 * one.least + 240.0  # who has just asked in vain waits a minute, then its turn
    assert one.drained <= 2.0 * one.least_drained + 1.0
