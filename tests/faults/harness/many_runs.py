"""A process of several trainings at once, which prints their uids: ``many_runs.py NUMBER RUNS POINTS``."""

from __future__ import annotations

import sys
import threading

import mlops_integrations as mlops


def train(process: int, number: int, points: int, delivered: list[bool]) -> None:
    """One training: the last of each process fails."""
    run = mlops.start_run(experiment_name="many", run_name=f"run-{process}-{number}", params={"process": process})
    sys.stdout.write(f"{run.uid}\n")  # in one piece: others print, too
    for step in range(points):
        run.log_metrics({"loss": process + number / 100 + step / 1e6, "step": float(step)}, step=step)
    delivered.append(run.finish("FAILED" if number == 0 else "FINISHED", timeout=120))


def main(process: int, runs: int, points: int) -> int:
    """All at once; 0 if each was delivered in time."""
    delivered: list[bool] = []
    threads = [threading.Thread(target=train, args=(process, number, points, delivered)) for number in range(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if delivered == [True] * runs else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
