"""Whatever server and machine do: what a log call has acknowledged is on the server, once, payload for payload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conservation import TRIED, Content, again, held_by, seeds
from fault_plan import Plan
from faulty_server import FaultyServer, passing_on
from real_mlflow import MlflowServer
from real_world import RealWorld, held_by_mlflow
from strict_store import Store
from virtual_world import World

AT_ONCE = 4
"""Real worlds mostly wait."""


def note(what: str, world: World | RealWorld, server: FaultyServer) -> None:
    """Count what was tried, for the summary."""
    tried = TRIED.setdefault(what, Counter())
    tried.update(world.tried)
    tried["faults"] += sum(server.faults.values())


@pytest.mark.parametrize("seed", seeds(300))
def test_every_acknowledged_call_is_there_once(seed: int, tmp_path: Path) -> None:
    """Uploaders killed at any line, trainers killed, a server that fails in every way: nothing lost, nothing twice."""
    try:
        with World(seed, tmp_path) as world:
            world.play()
    except Exception as error:
        raise AssertionError(f"{error}\n{again('acknowledged_call', seed)}") from error
    note("virtual time", world, world.server)


def play_all(wanted: list[int], test: str, make: Callable[[int], tuple[RealWorld, FaultyServer]]) -> None:
    """Real worlds, some at once."""

    def play(seed: int) -> None:
        world, server = make(seed)
        try:
            with world:
                world.play()
        except Exception as error:
            raise AssertionError(f"{error}\n{again(test, seed)}") from error
        note(test.replace("_", " "), world, server)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(play, seed) for seed in wanted]:
            done.result()


@pytest.mark.timeout(3600)
def test_real_processes(tmp_path: Path) -> None:
    """The same of real trainings and side processes under real SIGKILLs, ended by a real `sync`."""

    def make(seed: int) -> tuple[RealWorld, FaultyServer]:
        store = Store(keeps_duplicates=seed % 3 == 0)
        server = FaultyServer(store, Plan(f"real {seed}", slow=2, least=0.3), prompt=store.keeps_duplicates)
        directory = tmp_path / str(seed)
        directory.mkdir()
        return RealWorld(seed, directory, server, held_by(store)), server

    play_all(list(seeds(16, 18)), "real_processes", make)


@pytest.mark.timeout(3600)
def test_real_mlflow(mlflow: MlflowServer, tmp_path: Path) -> None:
    """The same with a real MLflow server behind the faults, read back by MLflow's own client."""

    def make(seed: int) -> tuple[RealWorld, FaultyServer]:
        server = FaultyServer(passing_on(mlflow.uri), Plan(f"mlflow {seed}", slow=2, least=0.3))
        directory = tmp_path / str(seed)
        directory.mkdir()
        return RealWorld(seed, directory, server, held_by_mlflow(mlflow), Content.in_sql), server

    play_all(list(seeds(4, 75)), "real_mlflow", make)
