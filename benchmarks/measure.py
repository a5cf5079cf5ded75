"""How things are measured here: side by side, several times, in turns; medians and the far end of the distribution.

Wall-clock figures of a shared machine are worth little alone: each table names its floor, measured in the same
process and in turns with what is compared to it, and gives the ratio.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
RESULTS: Final = Path(os.environ.get("BENCH_RESULTS", HERE / "results"))


def in_turns(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each contender returns, asked in turns so that a slow moment strikes all alike."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            found[name].append(contender())
    return {name: statistics.median(values) for name, values in found.items()}


def per_call(call: Callable[[int], object], calls: int) -> Callable[[], float]:
    """A contender for :func:`in_turns`: seconds of one call, on average over this many in a row."""
    step = 0

    def batch() -> float:
        nonlocal step
        began = time.perf_counter_ns()
        for number in range(step, step + calls):
            call(number)
        took = time.perf_counter_ns() - began
        step += calls
        return took / calls / 1e9

    return batch


def each_call(call: Callable[[int], object], calls: int, work: Callable[[], object] = lambda: None) -> dict[str, float]:
    """Seconds of single calls, with some work of the caller's own between them: mean, median, p99, p99.9, worst."""
    clock = time.perf_counter_ns
    times = []
    for number in range(calls):
        work()
        began = clock()
        call(number)
        times.append(clock() - began)
    times.sort()
    return {
        "mean": sum(times) / calls / 1e9,
        "p50": times[calls // 2] / 1e9,
        "p99": times[calls * 99 // 100] / 1e9,
        "p99.9": times[calls * 999 // 1000] / 1e9,
        "worst": times[-1] / 1e9,
    }


def some_work() -> int:
    """A few microseconds of Python, as lie between two log calls."""
    total = 0
    for number in range(100):
        total += number
    return total


def alone(module: str, *arguments: str, timeout: float = 900.0, env: Mapping[str, str] | None = None) -> Any:
    """What ``python -m module arguments`` prints, as JSON: a process of its own, which nothing else has touched.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "MLOPS_QUIET": "1", **(env or {})},
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


def save(name: str, figures: object) -> None:
    """Keep a part's figures for the report."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


def machine() -> dict[str, str]:
    """What was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": str(os.cpu_count()),
        "processor": model,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """The installed ones of these packages."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
