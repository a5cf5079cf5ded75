"""A real MLflow server to test against, and what its own client reads back from it."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import requests

SECONDS = 60.0


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true answer of ``check``; fails with the last answer when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {answer!r}")
        time.sleep(0.05)


class MlflowServer:
    """``mlflow server`` on SQLite, that can be stopped and started again on the same port."""

    def __init__(self, directory: Path, *options: str, prefix: str = "") -> None:
        self.directory = directory
        self._options = [*options, *(["--static-prefix", prefix] if prefix else [])]
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}{prefix}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.directory / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.directory / "artifacts"), "--workers", "1", *self._options]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_"))}
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=clean, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._answers, 120.0)

    def _answers(self) -> bool:
        try:
            return bool(requests.get(f"{self.uri}/health", timeout=2).ok)
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """Stop it and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @property
    def client(self) -> Any:
        """MLflow's own client."""
        return mlflow.MlflowClient(self.uri)

    def runs(self, uid: str) -> list[Any]:
        """The server's runs that carry our uid."""
        ids = [experiment.experiment_id for experiment in self.client.search_experiments()]
        return list(self.client.search_runs(ids, f"tags.`mlops.uid` = '{uid}'"))

    def the_run(self, uid: str) -> Any:
        """The only run that carries our uid."""
        (run,) = self.runs(uid)
        return run

    def points(self, run_id: str) -> list[tuple[str, int, int, float | str]]:
        """Every point of a run as (key, step, ms, value), sorted; NaN as text, so that it equals itself."""
        run = self.client.get_run(run_id)
        return sorted(
            (
                (metric.key, metric.step, metric.timestamp, comparable(metric.value))
                for key in run.data.metrics
                for metric in self.client.get_metric_history(run_id, key)
            ),
            key=str,
        )

    def closed(self, uid: str, seconds: float = SECONDS) -> Any:
        """The only run of our uid, once it is no longer RUNNING."""

        def look() -> Any:
            runs = self.runs(uid)
            return runs[0] if runs and runs[0].info.status != "RUNNING" else None

        eventually(look, seconds)
        return self.the_run(uid)


def comparable(value: float) -> float | str:
    """A value as this store keeps it: infinities as the largest floats; NaN as text."""
    if math.isnan(value):
        return "NaN"
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value
