"""How runs end in processes that ``multiprocessing`` starts, which end in a way of their own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.door import Door
from mlops_integrations.journal.records import End
from mlops_integrations.journal.rundir import end_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")


def train(root: Path) -> None:
    """A training that does not come to its end, though its process exits with 0."""
    Door(None, {"directory": root, "mode": "offline", "uploader": "thread"}).began()


def log(root: Path) -> None:
    """A run that nobody ends."""
    mlops.start_run(directory=root, mode="offline", uploader="thread").log_metric("loss", 0.5)


def fail(root: Path) -> None:
    """A training that an exception leaves, of which the door is not told."""
    train(root)
    raise ValueError("no such digit")


def last_word(root: Path, method: str, target: Callable[[Path], None]) -> End:
    """What the only journal of such a process says last."""
    process = multiprocessing.get_context(method).Process(target=target, args=(root,))
    process.start()
    process.join(60)
    (journal,) = (root / "latest").glob("journal-*.jsonl")
    end = end_of(journal)
    assert end is not None
    return end


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (train, ("FAILED", "the training did not end")),
        (fail, ("FAILED", "the training did not end")),
        (log, ("FINISHED", None)),
    ],
)
def test_the_end_is_written_down(
    tmp_path: Path, method: str, target: Callable[[Path], None], expected: tuple[str, str | None]
) -> None:
    """As at the interpreter's exit, and as provisionally: what the kernel says of the process counts for more."""
    root = tmp_path / "runs"
    end = last_word(root, method, target)
    assert expected == (end.status, end.reason)
    assert end.provisional
