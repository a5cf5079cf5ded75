"""MLflow servers of all ages, started and stopped.

``nox -s peers`` makes their environments and names the folder that holds them in ``TEST_PEERS``.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import requests

from peer_releases import Peer
from real_mlflow import SPARING, eventually, free_port


class PeerServer:
    """A running one."""

    def __init__(self, peer: Peer, directory: Path) -> None:
        self.peer = peer
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = ""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        (self.directory / "artifacts").mkdir(exist_ok=True)  # the store makes its own, and the default experiment in it
        options = [option.replace("DIR", str(self.directory)) for option in self.peer.options]
        command = [str(self.peer.home / "bin" / "python"), "-c", "from mlflow.cli import cli; cli()", "server"]
        command += ["-h", "127.0.0.1", "-p", str(port), *options]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_", "PYTHON"))}
        clean |= SPARING | {
            "LC_ALL": "C.UTF-8",
            "PATH": f"{self.peer.home / 'bin'}{os.pathsep}{clean.get('PATH', '')}",
        }
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=clean, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._answers, 240.0)

    def _answers(self) -> bool:
        try:
            return requests.get(self.uri, timeout=2).status_code < 500
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """Stop it and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
