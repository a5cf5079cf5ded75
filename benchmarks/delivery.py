"""From the log call to the server: ours beside full ``log-batch`` posts to the same server, and our own ceiling.

``nox -s bench -- delivery`` runs all of it.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import requests
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from benchmarks import stub_server
from benchmarks.measure import alone, in_turns, save
from benchmarks.trackers import some_metrics

POINTS: Final = 100_000
KEYS: Final = 20
BATCH: Final = 1_000
REPEATS: Final = 3
CEILING_POINTS: Final = 2_000_000
SMALL_TURNS: Final = 21
SMALL_REQUESTS: Final = 20


def ours(uri: str, uploader: str, points: int) -> dict[str, float]:
    """Log, then wait until the server has acknowledged everything: points per second."""
    import mlops_integrations as mlops

    metrics = some_metrics(KEYS)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        run = mlops.start_run(tracking_uri=uri, directory=directory, uploader=uploader, experiment_name="bench")
        run.wait(60)
        began = time.perf_counter()
        for step in range(points // KEYS):
            run.log_metrics(metrics, step=step)
        logged = time.perf_counter()
        delivered = run.finish(timeout=600)
        ended = time.perf_counter()
    if not delivered:
        raise RuntimeError("not everything was delivered")
    return {"points/s": points / (ended - began), "logging": logged - began}


def raw(uri: str, points: int) -> dict[str, float]:
    """Full ``log-batch`` requests, one after the other, prepared beforehand."""
    api = f"{uri}/api/2.0/mlflow"
    session = requests.Session()
    session.headers["Content-Type"] = "application/json"

    def post(call: str, body: object) -> Any:
        answer = session.post(f"{api}/{call}", data=body if isinstance(body, bytes) else json.dumps(body).encode())
        answer.raise_for_status()
        return answer.json()

    run = post("runs/create", {"experiment_id": "0", "run_name": "raw"})["run"]["info"]["run_id"]
    now = time.time_ns() // 1_000_000
    rows = [
        {"key": key, "value": value, "timestamp": now, "step": step}
        for step in range(points // KEYS)
        for key, value in some_metrics(KEYS).items()
    ]
    bodies = [
        json.dumps({"run_id": run, "metrics": rows[start : start + BATCH]}).encode()
        for start in range(0, len(rows), BATCH)
    ]
    began = time.perf_counter()
    for body in bodies:
        post("runs/log-batch", body)
    return {"points/s": points / (time.perf_counter() - began)}


def mlflow_asynchronous(uri: str, points: int) -> dict[str, float]:
    """MLflow's own asynchronous mode, flushed."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("bench")
    metrics = some_metrics(KEYS)
    with mlflow.start_run():
        began = time.perf_counter()
        for step in range(points // KEYS):
            mlflow.log_metrics(metrics, step=step, synchronous=False)
        mlflow.flush_async_logging()
        return {"points/s": points / (time.perf_counter() - began)}


def visible(uri: str) -> dict[str, float]:
    """Seconds from ``start_run`` to the first point's being on the server, and from a later log call to the same."""
    import mlops_integrations as mlops

    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        began = time.perf_counter()
        run = mlops.start_run(tracking_uri=uri, directory=directory, experiment_name="bench")
        run.log_metrics({"loss": 0.5}, step=0)
        run_id = run.wait(60)
        first = until_visible(uri, run_id, 1) - began
        later = []
        for step in range(1, 11):
            time.sleep(0.3)
            called = time.perf_counter()
            run.log_metrics({"loss": 0.5}, step=step)
            later.append(until_visible(uri, run_id, step + 1) - called)
        finishing = time.perf_counter()
        run.finish(timeout=60)
        finished = time.perf_counter() - finishing
    return {"first": first, "later, median": statistics.median(later), "later, worst": max(later), "finish": finished}


class QuickAckConnection(HTTPConnection):
    """What anybody could do who knows of the option."""

    def getresponse(self) -> Any:
        """The answer, whose parts are acknowledged as they come."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


class QuickAckPool(HTTPConnectionPool):
    """Connections of that kind."""

    ConnectionCls = QuickAckConnection


def small(uri: str) -> dict[str, float]:
    """Seconds of one small request on a kept connection: ours, and by ``requests`` with and without the option."""
    from mlops_integrations.backends.transport import Transport
    from mlops_integrations.config.settings import Access

    query = {"experiment_name": "Default"}
    url = f"{uri}/api/2.0/mlflow/experiments/get-by-name"

    def plain(session: requests.Session) -> Callable[[], object]:
        return lambda: session.get(url, params=query, timeout=60).json()["experiment"]

    def quick() -> requests.Session:
        session = requests.Session()
        session.get_adapter(url).poolmanager.pool_classes_by_scheme = {"http": QuickAckPool}
        return session

    def ours() -> Callable[[], object]:
        transport = Transport(Access())
        return lambda: transport.get(url, query).body["experiment"]

    return in_turns(
        {
            "here": lambda: kept(ours()),
            "requests with TCP_QUICKACK": lambda: kept(plain(quick())),
            "requests": lambda: kept(plain(requests.Session())),
        },
        SMALL_TURNS,
    )


def kept(ask: Callable[[], object]) -> float:
    """The median of a connection's requests after its first, which opens it; each comes to a worker of its own."""
    ask()
    times = []
    for _ in range(SMALL_REQUESTS):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def until_visible(uri: str, run_id: str | None, count: int) -> float:
    """When the server shows this many points."""
    query = {"run_id": run_id, "metric_key": "loss"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = requests.get(f"{uri}/api/2.0/mlflow/metrics/get-history", params=query, timeout=10).json()
        if len(answer.get("metrics", ())) >= count:
            return time.perf_counter()
        time.sleep(0.01)
    raise RuntimeError("a point did not become visible")


def ceiling(uri: str, points: int) -> dict[str, float]:
    """A recorded run delivered by ``sync`` to a server that answers at once: points per second, and per CPU second."""
    import subprocess

    import mlops_integrations as mlops

    metrics = some_metrics(KEYS)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        with mlops.start_run(directory=directory, mode="offline") as run:
            for step in range(points // KEYS):
                run.log_metrics(metrics, step=step)
        command = [sys.executable, "-m", "mlops_integrations", "sync", str(run.directory), "--to", uri]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        took = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"points/s": points / took, "points per CPU second": points / busy, "peak MB": after.ru_maxrss / 1024}


def main() -> None:
    """Everything."""
    from real_mlflow import MlflowServer

    found: dict[str, Any] = {"real": {}}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        server = MlflowServer(Path(temporary), "--workers", "4")
        server.start()
        try:
            contenders = {
                "raw log-batch posts": ("raw", POINTS),
                "here, side process": ("process", POINTS),
                "here, thread": ("thread", POINTS),
                "MLflow, asynchronous": ("mlflow", 1_000),
            }
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(REPEATS):
                for name, (kind, points) in contenders.items():
                    rates[name].append(alone("benchmarks.delivery", kind, server.uri, str(points))["points/s"])
            found["real"] = {name: statistics.median(values) for name, values in rates.items()}
            found["small"] = alone("benchmarks.delivery", "small", server.uri, "0")
            found["visible"] = alone("benchmarks.delivery", "visible", server.uri, "0")
        finally:
            server.stop()
    with stub_server.running() as uri:
        found["ceiling"] = alone("benchmarks.delivery", "ceiling", uri, str(CEILING_POINTS))
        found["ceiling, raw"] = alone("benchmarks.delivery", "raw", uri, "500000")
    save("delivery", found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        kind, uri, points = sys.argv[1], sys.argv[2], int(sys.argv[3])
        parts = {"raw": raw, "mlflow": mlflow_asynchronous, "ceiling": ceiling}
        if kind in {"visible", "small"}:
            print(json.dumps(visible(uri) if kind == "visible" else small(uri)))
        else:
            print(json.dumps(parts[kind](uri, points) if kind in parts else ours(uri, kind, points)))
    else:
        main()
