"""How runs end in processes that ``multiprocessing`` starts, which end in a way of their own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlops_integrations.journal.records import End
from mlops_integrations.journal.rundir import end_of
from processes import fail, log, train

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")


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
