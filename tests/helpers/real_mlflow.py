"""A real MLflow server to test against, and what its own client reads back from it.

The server's package need not be in the tests' environment: ``TEST_SERVER_PYTHON`` names an interpreter that has it.
Then there is no client either, and what is read back comes from the REST API.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import requests

SECONDS = 60.0

SPARING = {"UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "60", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""What spares a small machine. A worker that does not answer for 5 s, since the cores are busy, would be killed by the
server; and what runs jobs, which nobody gives it here, takes longer to start than four workers do.
"""


def free_port() -> int:
    """A port of this machine that nobody listens on, nor will by chance: systems give only higher ones unasked."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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


def _python() -> str:
    return os.environ.get("TEST_SERVER_PYTHON", sys.executable)


def _bare_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_"))} | SPARING


class MlflowServer:
    """``mlflow server`` on SQLite, that can be stopped and started again on the same port.

    It has MLflow's default number of workers, 4: one alone answers as none of them does. With options it is started by
    the command itself, in twenty seconds; without by ``mlflow_launcher``, in two.
    """

    _launcher: ClassVar[subprocess.Popen[str] | None] = None

    def __init__(self, directory: Path, *options: str, prefix: str = "", **environment: str) -> None:
        self.directory = directory
        self._environment = environment
        self._options = [*options, *(["--static-prefix", prefix] if prefix else [])]
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}{prefix}"
        self._process: subprocess.Popen[bytes] | None = None
        self._group: int | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if self._options:
            self._process = self._command()
        else:
            directory = str(self.directory)
            self._group = self._ask_launcher(port=self.port, directory=directory, environment=self._environment)
        eventually(self._answers, 240.0)

    def _command(self) -> subprocess.Popen[bytes]:
        command = [_python(), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.directory / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.directory / "artifacts"), *self._options]
        env = _bare_environment() | self._environment
        with (self.directory / "server.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.directory, env=env, stdout=log, stderr=log, start_new_session=True
            )

    def _ask_launcher(self, **wanted: Any) -> int:
        launcher = MlflowServer._launcher
        if launcher is None or launcher.poll() is not None:
            program = Path(__file__).with_name("mlflow_launcher.py")
            launcher = MlflowServer._launcher = subprocess.Popen(
                [_python(), "-W", "ignore", str(program)],
                env=_bare_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        launcher.stdin.write(json.dumps(wanted) + "\n")
        launcher.stdin.flush()
        answer = launcher.stdout.readline()
        assert answer.strip().isdigit(), f"no MLflow server: {answer or 'the launcher has ended'}"
        return int(answer)

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
        elif self._group is not None:
            self._ask_launcher(stop=self._group)
        self._process = self._group = None

    @property
    def client(self) -> Any:
        """MLflow's own client."""
        import mlflow

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


class RestRun:
    """One run as the REST API tells it."""

    def __init__(self, api: str, run: dict[str, Any]) -> None:
        self._api = api
        self.run_id = run["info"]["run_id"]
        self.name = run["info"].get("run_name")
        self.status = run["info"]["status"]
        self.params = {entry["key"]: entry["value"] for entry in run["data"].get("params", ())}
        self.tags = {entry["key"]: entry["value"] for entry in run["data"].get("tags", ())}
        self.last = {entry["key"]: entry["value"] for entry in run["data"].get("metrics", ())}

    @property
    def reason(self) -> str | None:
        """Why it ended."""
        return self.tags.get("mlops.exit.reason")

    def curve(self, key: str) -> list[tuple[int, float]]:
        """Steps and values of a metric, in the order of steps."""
        query = {"run_id": self.run_id, "metric_key": key, "max_results": 25_000}
        found = requests.get(f"{self._api}/metrics/get-history", params=query, timeout=30).json()
        return sorted((int(entry.get("step", 0)), entry["value"]) for entry in found.get("metrics", ()))


def rest_runs(uri: str, uid: str | None = None) -> list[RestRun]:
    """The server's runs (those that carry our uid), oldest first, without any client."""
    api = f"{uri}/api/2.0/mlflow"
    found = requests.get(f"{api}/experiments/search", params={"max_results": 1_000}, timeout=30).json()
    body: dict[str, Any] = {
        "experiment_ids": [experiment["experiment_id"] for experiment in found["experiments"]],
        "max_results": 1_000,
        "order_by": ["attributes.start_time ASC"],
    }
    if uid is not None:
        body["filter"] = f"tags.`mlops.uid` = '{uid}'"
    reply = requests.post(f"{api}/runs/search", json=body, timeout=30)
    reply.raise_for_status()
    return [RestRun(api, run) for run in reply.json().get("runs", ())]


def comparable(value: float) -> float | str:
    """A value as this store keeps it: infinities as the largest floats; NaN as text."""
    if math.isnan(value):
        return "NaN"
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value
