"""A program that starts MLflow servers by ``fork``: MLflow is imported once, not five times for every server.

``mlflow server`` imports MLflow in its own process and in each of its four workers: half a minute of processor time.
Here the workers are forks of a process that has it already. They run the same application under the same uvicorn, four
to a server, on one shared socket.

It reads lines of JSON from its standard input, ``{"port": ..., "directory": ..., "environment": {...}}`` to start a
server and ``{"stop": GROUP}`` to end one, and answers each with the id of the server's process group, or the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

WORKERS = 4
"""As ``mlflow server`` has by default."""

ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""The variable by which ``mlflow server`` tells its workers where artifacts belong."""


def main() -> None:
    """Import what a server needs, then do what each line says; at the end of the input all servers end."""
    os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"  # the application looks for it when it is imported
    os.environ[ROOT] = "mlflow-artifacts:/"
    import mlflow.server.fastapi_app  # noqa: F401

    running: set[int] = set()
    with tempfile.TemporaryDirectory() as directory:
        made = empty_store(Path(directory))
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: the system takes them away
        for line in sys.stdin:
            try:
                print(json.dumps(carry_out(json.loads(line), made, running)), flush=True)
            except OSError as error:
                print(json.dumps(str(error)), flush=True)
    for group in running:
        stop(group)


def carry_out(wanted: dict[str, Any], store: Path, running: set[int]) -> int:
    """Start or stop a server; the id of its process group. ``running`` holds no id that may be another's by now."""
    if "stop" in wanted:
        group = int(wanted["stop"])
        stop(group)
        running.remove(group)
    else:
        group = start(wanted["port"], Path(wanted["directory"]), wanted["environment"], store)
        running.add(group)
    return group


def stop(group: int) -> None:
    """Kill a server's workers, and wait until they are gone."""
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.01)


def empty_store(directory: Path) -> Path:
    """Make a database as ``mlflow server`` does: seconds, which every fresh server would take."""
    path = directory / "mlflow.db"
    pid = os.fork()  # connections are not for processes to share
    if pid == 0:
        try:
            from mlflow.server.handlers import initialize_backend_stores

            initialize_backend_stores(f"sqlite:///{path}", None, os.environ[ROOT])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit("the database could not be made")
    return path


def start(port: int, directory: Path, environment: dict[str, str], store: Path) -> int:
    """Start a server's workers.

    Returns:
        The id of their process group.
    """
    own = directory / "mlflow.db"
    if not own.exists():
        shutil.copy(store, own)
    group = 0
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        for _ in range(WORKERS):
            pid = os.fork()
            if pid == 0:
                try:
                    os.setpgid(0, group)
                    work(listening, directory, environment)
                except BaseException:
                    traceback.print_exc()
                finally:  # whatever happens, a worker goes no further than here
                    os._exit(1)
            group = group or pid
            with contextlib.suppress(ProcessLookupError):  # it has failed at once, and its log says why
                os.setpgid(pid, group)
    return group


def work(listening: socket.socket, directory: Path, environment: dict[str, str]) -> None:
    """Answer requests until a signal ends it."""
    import uvicorn

    with (directory / "server.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(directory)
    os.environ.update(environment)
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = f"sqlite:///{directory / 'mlflow.db'}"
    os.environ["_MLFLOW_SERVER_ARTIFACT_DESTINATION"] = str(directory / "artifacts")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    uvicorn.Server(uvicorn.Config("mlflow.server.fastapi_app:app")).run(sockets=[listening])


if __name__ == "__main__":
    main()
