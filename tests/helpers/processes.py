"""What processes started by ``multiprocessing`` do in the tests: such a process imports its target by name."""

from __future__ import annotations

from pathlib import Path

import mlops_integrations as mlops
from mlops_integrations.framework_support.run_handle import RunHandle


def train(root: Path) -> None:
    """A training that does not come to its end, though its process exits with 0."""
    RunHandle(None, {"directory": root, "mode": "offline", "uploader": "thread"}).began()


def log(root: Path) -> None:
    """A run that nobody ends."""
    mlops.start_run(directory=root, mode="offline", uploader="thread").log_metric("loss", 0.5)


def fail(root: Path) -> None:
    """A training that an exception leaves, of which the integration is not told."""
    train(root)
    raise ValueError("no such digit")
