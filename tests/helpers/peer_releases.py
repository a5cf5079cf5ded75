"""Releases of MLflow's server, of all ages: what each is installed from, how it is started, and what it can do.

``nox -s peers`` reads this to make their environments, so it imports nothing but the standard library.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
        Peer("1.0.0", "3.7", _OF_2018, _NEW_FILES, **{**_MODERN, "dialect": "mlflow-1.0", "keeps_names": False}),
        Peer("1.30.1", "3.9", ("setuptools<70",), _SQL, **_MODERN),
        Peer("2.22.1", "3.11", ("sqlalchemy<2.1",), _SQL, **_MODERN),
        Peer("3.17.2", "3.11", (), _SQL, **_MODERN),
    )
}  # fmt: skip


IN_CI: Final = ("0.4.2", "1.30.1", "3.17.2")
"""The release that the 2018 document describes, the last that spoke the preview dialect beside today's, today's."""
