"""MLflow servers of all ages: what each is installed from, how it is started, and what it can do.

``nox -s peers`` makes their environments and names the folder that holds them in ``TEST_PEERS``.
"""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests

from real_mlflow import eventually, free_port

_OF_2018: Final = (
    "Flask<1.1",
    "Werkzeug<1",
    "Jinja2<3",
    "MarkupSafe<2.1",
    "itsdangerous<2.1",
    "click<8",
    "protobuf<3.21",
    "SQLAlchemy<1.4",
    "alembic<1.5",
    "setuptools<58",
)
"""What servers up to 1.0 were made with."""


@dataclass(frozen=True)
class Peer:
    """One release."""

    version: str
    python: str
    requirements: tuple[str, ...]
    options: tuple[str, ...]
    """Of ``mlflow server``; DIR is its directory."""
    dialect: str = "mlflow-preview"
    keeps_tags: bool = True
    keeps_steps: bool = False
    keeps_names: bool = False
    takes_slashes: bool = True
    is_typed: bool = False
    """Errors have codes."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What is installed."""
        return (f"mlflow=={self.version}", *self.requirements)

    @property
    def home(self) -> Path:
        """Its environment."""
        return Path(os.environ.get("TEST_PEERS", "/nowhere")) / self.version


_FILES: Final = ("--file-store", "DIR/store", "--default-artifact-root", "DIR/artifacts")
_NEW_FILES: Final = ("--backend-store-uri", "DIR/store", "--default-artifact-root", "DIR/artifacts")
_SQL: Final = ("--backend-store-uri", "sqlite:///DIR/store.db", "--default-artifact-root", "DIR/artifacts")
_MODERN = {"dialect": "mlflow", "keeps_steps": True, "keeps_names": True, "is_typed": True}

PEERS: Final = {
    peer.version: peer
    for peer in (
        Peer("0.2.1", "3.6", _OF_2018, ("--file-store", "DIR/store", "--artifact-root", "DIR/artifacts"),
             keeps_tags=False, takes_slashes=False),
        Peer("0.4.2", "3.6", _OF_2018, _FILES, keeps_tags=False),
        Peer("0.8.2", "3.6", _OF_2018, _FILES, is_typed=True),
        Peer("0.9.1", "3.7", _OF_2018, _NEW_FILES, is_typed=True),
        Peer("1.0.0", "3.7", _OF_2018, _NEW_FILES, **{**_MODERN, "keeps_names": False}),
        Peer("1.30.1", "3.9", ("setuptools<70",), _SQL, **_MODERN),
        Peer("2.22.1", "3.11", ("sqlalchemy<2.1",), _SQL, **_MODERN),
        Peer("3.17.2", "3.11", (), _SQL, **_MODERN),
    )
}  # fmt: skip


IN_CI: Final = ("0.4.2", "1.30.1", "3.17.2")
"""The release that the 2018 document describes, the last that spoke the preview dialect beside today's, today's."""


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
        for name in ("store", "artifacts"):
            (self.directory / name).mkdir(exist_ok=True)
        options = [option.replace("DIR", str(self.directory)) for option in self.peer.options]
        command = [str(self.peer.home / "bin" / "python"), "-c", "from mlflow.cli import cli; cli()", "server"]
        command += ["-h", "127.0.0.1", "-p", str(port), "-w", "1", *options]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_", "PYTHON"))}
        clean |= {"LC_ALL": "C.UTF-8", "PATH": f"{self.peer.home / 'bin'}{os.pathsep}{clean.get('PATH', '')}"}
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=clean, stdout=log, stderr=log, start_new_session=True
            )
        eventually(self._answers, 120.0)

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
