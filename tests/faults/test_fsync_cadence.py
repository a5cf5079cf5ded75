"""What the window of a power failure is: the time from a log call to the fsync that covers it, by the kernel's word."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_mlflow import FakeMlflow
from real_mlflow import eventually
from trainer import Trainer

SCRIPT = """
import sys, time
import mlops_integrations as mlops

run = mlops.start_run(experiment_name="fake", run_name="baseline")
for step in range(400):
    run.log_metric("loss", float(step), step=step)
    time.sleep(0.01)
print("logged", flush=True)
sys.stdin.readline()
run.finish(timeout=30)
"""

CALL = re.compile(r"^\d+ +(\d+\.\d+) (write|fsync)\(\d+<([^>]*/journal-[^>]*)>")


class SilentMlflow(FakeMlflow):
    """Takes what is sent, but does not answer for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.speaks = threading.Event()

    def answer(self, call: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Metrics are answered only when told to."""
        if body.get("metrics"):
            self.speaks.wait(60)
        return super().answer(call, body, authorization)


@pytest.fixture
def server() -> Iterator[SilentMlflow]:
    """A server that hangs."""
    with SilentMlflow() as running:
        yield running
        running.speaks.set()


def ages(trace: Path) -> list[float]:
    """For each write to a journal, how long it took to the end of the next fsync; those with none are left out."""
    found, waiting = [], []
    for line in trace.read_text(errors="replace").splitlines():
        call = CALL.match(line)
        if call is not None and call[2] == "write":
            waiting.append(float(call[1]))
        elif call is not None:
            found += [float(call[1]) - time for time in waiting]
            waiting = []
    return found


@pytest.mark.program("strace")
@pytest.mark.parametrize("server_hangs", [True, False], ids=["silent server", "no server"])
def test_every_record_is_synced_while_nothing_is_answered(
    server_hangs: bool, server: SilentMlflow, tmp_path: Path
) -> None:
    """A server that does not answer, or none at all, keeps no record from the storage device."""
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-ttt", "-y", "-e", "trace=write,fsync", "-o", str(trace))
    uri = {"MLFLOW_TRACKING_URI": server.uri} if server_hangs else {}
    process = Trainer(tmp_path).start(SCRIPT, wrapper=strace, **uri)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        found = eventually(lambda: len(known := ages(trace)) >= 400 and known, 20.0)
        assert not server.speaks.is_set()
        print(f"\nlog call to fsync: {max(found):.2f} s at most, of {len(found)} records")
    finally:
        server.speaks.set()
        process.communicate("\n", timeout=60)
    assert process.returncode == 0
