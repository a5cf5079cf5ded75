"""Cost against size: points, keys, run directories. All should grow as the size does, or slower; memory not at all.

``python -m benchmarks.size`` runs all of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import stub_server
from benchmarks.measure import alone, save
from benchmarks.trackers import some_metrics

POINTS: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
KEYS: Final = (1, 10, 100, 1_000, 10_000)
RUNS: Final = (1, 10, 100, 1_000)


def memory() -> float:
    """The most MB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def record(directory: Path, points: int, keys: int) -> dict[str, float]:
    """Log so many points in calls of so many keys (a run directory for the other parts): seconds and MB."""
    import mlops_integrations as mlops

    metrics = some_metrics(keys)
    with mlops.start_run(directory=directory, mode="offline", run_name="size") as run:
        run.log_metrics(metrics, step=0)
        before, began = memory(), time.perf_counter()
        for step in range(1, points // keys):
            run.log_metrics(metrics, step=step)
        took = time.perf_counter() - began
    return {"seconds": took, "MB more": memory() - before}


def command(*arguments: str) -> dict[str, float]:
    """One command line of ours in this process: seconds, and the most MB."""
    from mlops_integrations.cli.arguments import main as command_line

    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = command_line(list(arguments))
    if code not in {0, 1}:
        raise RuntimeError(f"{arguments} ended with {code}")
    return {"seconds": time.perf_counter() - began, "MB": memory()}


def steps_left_out(directory: Path, points: int) -> dict[str, float]:
    """The first call without a step on a resumed run, which has to look for the last one."""
    import mlops_integrations as mlops

    run = mlops.start_run(directory=directory, mode="offline", resume=next(directory.glob("2*")).name)
    began = time.perf_counter()
    run.log_metrics({"train/metric_0": 0.5})
    took = time.perf_counter() - began
    run.finish(timeout=0.0)
    return {"seconds": took, "points": points}


def one_size(uri: str, points: int, keys: int) -> dict[str, Any]:
    """All parts on a journal of this size."""
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = "benchmarks.size"
        found = {"log": alone(place, "record", temporary, str(points), str(keys))}
        run = str(next(Path(temporary).glob("2*")))
        found["show"] = alone(place, "command", "show", run)
        found["runs"] = alone(place, "command", "runs", "--dir", temporary)
        found["sync"] = alone(place, "command", "sync", run, "--to", uri)
    return found


def many_runs(uri: str, count: int) -> dict[str, Any]:
    """All parts on so many run directories of 100 points each."""
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        place = "benchmarks.size"
        found = {"log": alone(place, "many", temporary, str(count))}
        found["runs"] = alone(place, "command", "runs", "--dir", temporary)
        found["status"] = alone(place, "command", "status", temporary)
        found["sync"] = alone(place, "command", "sync", temporary, "--to", uri)
    return found


def record_many(directory: Path, count: int) -> dict[str, float]:
    """So many short runs."""
    began = time.perf_counter()
    for _ in range(count):
        record(directory, 100, 10)
    return {"seconds": time.perf_counter() - began, "MB": memory()}


def main() -> None:
    """Everything."""
    found: dict[str, Any] = {"points": {}, "keys": {}, "runs": {}}
    with stub_server.running() as uri:
        for points in POINTS:
            found["points"][points] = one_size(uri, points, 10)
        for keys in KEYS:
            found["keys"][keys] = one_size(uri, 100_000, keys)
        for count in RUNS:
            found["runs"][count] = many_runs(uri, count)
    save("size", found)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:] or ["main"]
    if kind == "record":
        print(json.dumps(record(Path(rest[0]), int(rest[1]), int(rest[2]))))
    elif kind == "many":
        print(json.dumps(record_many(Path(rest[0]), int(rest[1]))))
    elif kind == "command":
        print(json.dumps(command(*rest)))
    else:
        main()
