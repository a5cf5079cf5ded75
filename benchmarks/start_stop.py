"""What it costs to begin and to end: importing, ``start_run``, finishing, a thousand short runs; memory and disk.

``nox -s bench -- start_stop`` runs all of it.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import HERE, alone, in_turns, save

IMPORTED: Final = ("mlops_integrations", "mlflow", "wandb", "trackio", "swanlab", "comet_ml", "dvclive")
INSTALLED: Final = {
    "here": (str(HERE.parent),),
    "mlflow": ("mlflow",),
    "mlflow-skinny": ("mlflow-skinny",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
}
SHORT_RUNS: Final = 1_000


def importing(module: str | None) -> Callable[[], float]:
    """Seconds of a Python that imports a module and ends."""
    command = [sys.executable, "-c", f"import {module}" if module else "pass"]

    def timed() -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began

    return timed


def imports(repeats: int) -> dict[str, float]:
    """Seconds that importing adds to a bare Python, medians; a first, uncounted import fills the caches."""
    there = [
        module for module in IMPORTED if subprocess.run([sys.executable, "-c", f"import {module}"]).returncode == 0
    ]
    found = in_turns({"": importing(None), **{module: importing(module) for module in there}}, repeats)
    return {module: found[module] - found[""] for module in there}


def starts(uri: str) -> dict[str, float]:
    """Seconds of ``start_run`` and of ``finish``, and the side process's memory in MB."""
    import mlops_integrations as mlops

    begins, ends, memory = [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        for _ in range(11):
            began = time.perf_counter()
            run = mlops.start_run(tracking_uri=uri, directory=directory, experiment_name="bench")
            begins.append(time.perf_counter() - began)
            for step in range(100):
                run.log_metrics({"loss": 0.5}, step=step)
            run.wait(60)
            run.flush(60)
            memory.append(resident(children(run.directory)))
            began = time.perf_counter()
            run.finish(timeout=60)
            ends.append(time.perf_counter() - began)
    return {
        "start_run": statistics.median(begins[1:]),
        "first start_run": begins[0],
        "finish, all delivered": statistics.median(ends),
        "side process, MB": statistics.median(memory),
    }


def children(run_directory: Path) -> list[int]:
    """The side processes of a run: they work in its directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.resolve() == run_directory.resolve():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


def resident(pids: list[int]) -> float:
    """MB that are these processes' own (anonymous memory and file pages that they touched)."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total / 1024


def short_runs(uri: str, mode: str) -> dict[str, float]:
    """Seconds and memory of many runs one after the other in one process."""
    import mlops_integrations as mlops

    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        before = peak()
        times = []
        for _ in range(SHORT_RUNS):
            began = time.perf_counter()
            with mlops.start_run(
                tracking_uri=uri or None, directory=directory, mode=mode, experiment_name="bench", uploader="thread"
            ) as run:
                for step in range(10):
                    run.log_metrics({"loss": 0.5}, step=step)
                run.finish(timeout=0.0)
            times.append(time.perf_counter() - began)
        tenth = SHORT_RUNS // 10
        return {
            "first tenth, ms each": 1e3 * statistics.median(times[:tenth]),
            "last tenth, ms each": 1e3 * statistics.median(times[-tenth:]),
            "memory, MB more": peak() - before,
        }


def peak() -> float:
    """The most memory that this process has had, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sizes() -> dict[str, dict[str, float]]:
    """Packages and MB of a fresh environment with one tracker in it, without pip."""
    found = {}
    for name, requirements in INSTALLED.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
            target = Path(temporary) / "packages"
            command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), *requirements]
            subprocess.run(command, check=True, capture_output=True)
            shutil.rmtree(target / "bin", ignore_errors=True)
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
            found[name] = {"packages": len(list(target.glob("*.dist-info"))), "MB": size / 1e6}
    return found


def main() -> None:
    """Everything."""
    from real_mlflow import MlflowServer

    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        server = MlflowServer(Path(temporary), "--workers", "4")
        server.start()
        try:
            found: dict[str, Any] = {"imports": imports(9), **alone("benchmarks.start_stop", "starts", server.uri, "")}
        finally:
            server.stop()
    found["short runs, no server"] = alone("benchmarks.start_stop", "short", "", "offline")
    found["installed"] = sizes()
    save("start_stop", found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        kind, uri, mode = sys.argv[1:4]
        print(json.dumps(starts(uri) if kind == "starts" else short_runs(uri, mode)))
    else:
        main()
