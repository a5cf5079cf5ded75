"""Whatever server and machine do: what a log call has acknowledged is on the server, once, payload for payload."""

from __future__ import annotations

from pathlib import Path

import pytest

from conservation import TRIED, again, seeds
from virtual_world import World


@pytest.mark.parametrize("seed", seeds(300))
def test_every_acknowledged_call_is_there_once(seed: int, tmp_path: Path) -> None:
    """Uploaders killed at any line, trainers killed, a server that fails in every way: nothing lost, nothing twice."""
    try:
        with World(seed, tmp_path) as world:
            world.play()
    except Exception as error:
        raise AssertionError(f"{error}\n{again('acknowledged_call', seed)}") from error
    tried = TRIED.setdefault("virtual", world.tried)
    if tried is not world.tried:
        tried.update(world.tried)
    tried.update({f"fault: {fault.value}": count for fault, count in world.server.faults.items()})
