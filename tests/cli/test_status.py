"""``status``: what is undelivered, who is at work, and the last error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.cli.drain import Patience
from mlops_integrations.cli.sync import Sync
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.journal.rundir import RunDirectory

AT_ONCE = Patience(0.0, 0.0)

Record = Callable[..., mlops.Run]


def test_status_before_and_after(record: Record, server: FakeMlflow, out: Any) -> None:
    """What is left is counted with the command that delivers it; exit code 1, and 0 when nothing is left."""
    run = record(tracking_uri=server.uri)
    code, said, _ = out("status")
    assert (1, True) == (code, "undelivered: 3 of 3 points" in said)
    assert f"-m mlops_integrations sync {run.directory}" in said
    assert "none at work" in said
    out("sync")
    code, said, _ = out("status")
    assert (0, True) == (code, "1 run, all delivered" in said)


def test_status_says_the_last_error(record: Record, server: FakeMlflow, capsys: Any, out: Any) -> None:
    """Why nothing moves is told, with the time since when."""
    run = record(tracking_uri=server.uri)
    server.answer_next("runs/log-batch", 503)
    Sync(Terminal(sys.stdout, sys.stderr), patience=AT_ONCE).run([RunDirectory(run.directory)])
    code, said, _ = out("status")
    assert (1, True) == (code, "last error:  HTTP 503" in said)


def test_status_tells_a_dead_uploader(record: Record, out: Any, python: Any) -> None:
    """A lease whose holder is gone is told as such."""
    run = record()
    script = """
import os, pathlib, sys
from mlops_integrations.journal.lease import Lease
assert Lease(pathlib.Path(sys.argv[1]), "side process").acquire()
os._exit(0)
"""
    assert 0 == python(script, str(run.directory)).returncode
    _, said, _ = out("status")
    assert "which is gone" in said
