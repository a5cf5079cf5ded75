"""Training processes to test with: real ones, in a directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Metrics
from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import comparable


class Trainer:
    """A training process in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "mlops_runs"

    def environment(self, **variables: str) -> dict[str, str]:
        """The test's environment without tracking settings, and with these."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_"))}
        return clean | {"PYTHONUNBUFFERED": "1"} | variables

    def start(self, script: str, *, wrapper: tuple[str, ...] = (), **variables: str) -> subprocess.Popen[str]:
        """Start a script."""
        path = self.directory / "train.py"
        path.write_text(script)
        return subprocess.Popen(
            [*wrapper, sys.executable, str(path)],
            cwd=self.directory,
            env=self.environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        process = self.start(script, **variables)
        out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def sync(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """``mlops-integrations sync`` on this trainer's runs."""
        return subprocess.run(
            [sys.executable, "-m", "mlops_integrations", "sync", *arguments],
            cwd=self.directory,
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    @property
    def latest(self) -> Path:
        """The run directory made last."""
        return (self.root / "latest").resolve()

    @property
    def uid(self) -> str:
        """The uid of the run made last."""
        return RunDirectory(self.latest).spec().uid

    def recorded(self) -> list[tuple[str, int, int, float | str]]:
        """Every point in the journal of the run made last, as the server is to hold it."""
        points = set()
        for path in self.latest.glob("journal-*.jsonl"):
            for record in JournalReader(path):
                if isinstance(record, Metrics):
                    points |= {(key, step, record.time, comparable(float(value))) for key, value, step in record.values}
        return sorted(points, key=str)


def side_processes(directory: Path) -> list[int]:
    """The side processes that work for run directories below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "side_process.py" in command and str(directory) in command:
                found.append(int(entry.name))
    return found
