"""What reaches the terminal, whatever it can do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from command_line import module
from fake_mlflow import FakeMlflow

Record = Callable[..., mlops.Run]


def test_no_control_characters_reach_the_terminal(record: Record, server: FakeMlflow, out: Any) -> None:
    """Names, values, tags and server messages are shown without escapes, whatever they hold."""
    evil = "\x1b]0;title\x07\x9b31m\u202e\r\n"
    run = record(
        f"run{evil}", finish=False, params={f"p{evil}": evil}, tags={f"t{evil}": evil}, tracking_uri=server.uri
    )
    run.log_metric(f"m{evil}", 1.0)
    run.log_metric(f"m{evil}", 2.0)
    run.finish()
    server.answer_next("experiments/get-by-name", 400, body={"error_code": "X", "message": evil})
    for arguments in (
        ("sync",),
        ("sync",),
        ("status",),
        ("runs",),
        ("runs", "--json"),
        ("show",),
        ("show", run.uid, run.uid),
    ):
        _, said, complaint = out(*arguments)
        shown = (said + complaint).replace("\n", "")
        assert [] == [c for c in shown if not c.isprintable()], arguments


def test_closed_pipe(record: Record, server: FakeMlflow, tmp_path: Path) -> None:
    """When nobody reads on, the work is done all the same, and nothing is complained about."""
    for number in range(3):
        record(f"run{number}", tracking_uri=server.uri)
    process = module("sync", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    complaint = process.stderr.read()
    assert (0, "") == (process.wait(60), complaint)
    assert 3 == len(server.runs)
    process.stderr.close()


@pytest.mark.parametrize("command", ["runs", "show", "status"])
def test_ascii_terminal(record: Record, tmp_path: Path, command: str) -> None:
    """Where only ASCII can be shown, the rest is spelled, and curves are drawn in letters."""
    run = record("базис", finish=False)
    run.log_metrics({"потери": 1.0})
    run.log_metrics({"потери": 0.5})
    run.finish()
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    process = module(command, cwd=tmp_path, environment=environment)
    said, complaint = process.communicate(timeout=60)
    assert ("", True) == (complaint, "\\u0431" in said)
    assert (1 if command == "status" else 0) == process.returncode
    assert ("#" in said) == (command == "show")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
@pytest.mark.parametrize("command", ["runs", "show", "sync"])
def test_on_a_terminal(record: Record, server: FakeMlflow, tmp_path: Path, command: str) -> None:
    """On a terminal the same is told as safely, with or without the libraries that make it pretty."""
    import pty

    title = "\x1b]0;title\x07"
    run = record(f"baseline{title}", points=20, params={title: title}, tracking_uri=server.uri)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlops_integrations", command],
        cwd=tmp_path,
        env=dict(os.environ)
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            block = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        said += block
    os.close(ours)
    assert 0 == process.wait(60)
    assert f"baseline ]0;title -{run.uid[-4:]}" in said.decode()
    assert b"\x1b]" not in said
