"""What ``clean`` removes, a real server has shown just before; what it does not show, stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from fault_proxy import FaultProxy, Handler
from mlops_integrations.cli.arguments import main
from other_writers import move_writer
from real_mlflow import MlflowServer

POINTS = 5_000
"""More than a few batches."""


def recorded(uri: str, tmp_path: Path) -> mlops.Run:
    """A run with something of every kind, delivered, whose process has ended since."""
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "модель 100%.bin").write_bytes(b"weights" * 100_000)
    (tmp_path / "out" / "deep" / "empty").touch()
    run = mlops.start_run(
        experiment_name="clean",
        tracking_uri=uri,
        directory=tmp_path / "runs",
        mode="offline",
        params={"lr": 0.1, "text": "a\nb"},
        tags={"team": "точность"},
    )
    for step in range(POINTS):
        run.log_metric("loss", 1 / (step + 1), step=step)
    for step, value in enumerate((float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 1.7e308)):
        run.log_metrics({"odd/значение": value, "same": 1.0}, step=step)
    run.log_metric("same", 1.0, step=0)
    run.log_artifact(tmp_path / "out", "results")
    run.finish()
    move_writer(run, start_time="long ago")
    assert main(["sync", str(run.directory)]) == 0
    return run


def cleaned(run: mlops.Run, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``clean`` says of it."""
    capsys.readouterr()
    main(["clean", str(run.directory)])
    return capsys.readouterr().out


def test_a_run_of_every_kind_goes(server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Long histories, values that are not finite, texts of any alphabet, and files."""
    run = recorded(server.uri, tmp_path)
    assert "1 removed" in cleaned(run, capsys)
    assert not run.directory.exists()


def swallow_a_batch(handler: Handler, _: Any) -> bool:
    """One of the middle is answered as MLflow does, and never reaches it."""
    owner = handler.owner
    if handler.call != "runs/log-batch" or owner.requests.count("runs/log-batch") != 5:
        return False
    handler.answer(200, json.dumps({}).encode())
    return True


def other_content(handler: Handler, forward: Callable[[], tuple[int, bytes]]) -> bool:
    """A file of the right length, and of another content."""
    status, body = forward()
    if not handler.path.startswith("/get-artifact") or not body:
        return False
    handler.answer(status, body[:-1] + b"!")
    return True


@pytest.mark.parametrize(
    ("fault", "why"),
    [(swallow_a_batch, "points missing there"), (other_content, "1 file missing there, or other than here")],
    ids=["a swallowed batch", "a file's content"],
)
def test_what_never_arrived_stays(
    server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Any, why: str
) -> None:
    """Though everything was acknowledged."""
    proxy = FaultProxy(server.uri)
    proxy.fault = fault
    run = recorded(proxy.uri, tmp_path)
    said = cleaned(run, capsys)
    proxy.close()
    assert why in said, said
    assert list(run.directory.glob("journal-*.jsonl"))
