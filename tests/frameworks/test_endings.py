"""Six ways that a training ends, through every integration, as real processes against a real MLflow server.

What was logged before the end is there, the status tells how it ended, and the training ends as it would without us.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer, RestRun, eventually, rest_runs

SCRIPTS: Final = Path(__file__).with_name("endings")
AT_ONCE: Final = 2

# How it ends -> status and reason.
ENDINGS: Final = {
    "ok": ("FINISHED", None),
    "exception": ("FAILED", "ValueError: no more data"),
    "SIGINT": ("KILLED", "SIGINT"),
    "SIGTERM": ("KILLED", "SIGTERM"),
    "exit": ("FAILED", "exit code 3"),
    "SIGKILL": ("KILLED", "SIGKILL"),
}

# Framework, way to be recorded -> the metric, which is logged five times before the training ends in the middle.
WAYS: Final = {
    ("keras", "callback"): "loss",
    ("keras", "autolog"): "loss",
    ("lightning", "logger"): "loss",
    ("lightning", "callback"): "loss",
    ("lightning", "autolog"): "loss",
    ("transformers", "callback"): "train/loss",
    ("transformers", "report_to"): "train/loss",
    ("transformers", "autolog"): "train/loss",
    ("accelerate", "tracker"): "loss",
}

Ended = tuple[int, str, str]
"""Exit code, stdout, and the traceback or other last words."""


def train(framework: str, way: str, ending: str, place: Path, **variables: str) -> Ended:
    """Run a training to its end, in a directory of its own."""
    directory = place / f"{framework}-{way}-{ending}"
    directory.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_"))}
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"train_{framework}.py")],
        cwd=directory,
        env=clean | {"WAY": way, "ENDING": ending} | variables,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    theirs = re.sub(r"^mlops: .*\n", "", done.stderr, flags=re.MULTILINE)
    (directory / "stderr").write_text(done.stderr)
    last_words = theirs[theirs.find("Traceback (most") :] if "Traceback (most" in theirs else ""
    return done.returncode, re.sub(r"\{'.*\}\n", "", done.stdout), last_words


@pytest.fixture(scope="session")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Ended]:
    """How each training ends without us; tried once."""
    place, known = tmp_path_factory.mktemp("untracked"), dict[tuple[str, str], Ended]()

    def find_out(framework: str, ending: str) -> Ended:
        if (framework, ending) not in known:
            known[framework, ending] = train(framework, "none", ending, place)
        return known[framework, ending]

    return find_out


@pytest.mark.parametrize(("framework", "way"), WAYS, ids=[f"{framework}, {way}" for framework, way in WAYS])
def test_the_status_tells_how_the_training_ended(
    server: MlflowServer, tmp_path: Path, untracked: Callable[[str, str], Ended], framework: str, way: str
) -> None:
    """Row by row: points, status and reason on the server; exit code, output and traceback as without us."""
    pytest.importorskip(framework)

    def try_out(ending: str) -> tuple[Ended, Ended]:
        return train(framework, way, ending, tmp_path, MLFLOW_TRACKING_URI=server.uri), untracked(framework, ending)

    with ThreadPoolExecutor(AT_ONCE) as together:
        outcomes = dict(zip(ENDINGS, together.map(try_out, ENDINGS), strict=True))

    found, expected = {}, {}
    for ending, (status, reason) in ENDINGS.items():
        tracked, bare = outcomes[ending]
        if sys.version_info < (3, 11):  # there a traceback shows one line of ours more
            tracked, bare = tracked[:2], bare[:2]  # type: ignore[assignment]
        root = tmp_path / f"{framework}-{way}-{ending}" / "mlops_runs"
        run = closed(server, root, status, reason)
        steps = [step for step, _ in run.curve(WAYS[framework, way])]
        found[ending] = (run.status, run.reason, len(steps), len(set(steps)), tracked)
        count = 10 if ending == "ok" else len(steps) if steps[5:] and ending == "SIGTERM" else 5
        expected[ending] = (status, reason, count, count, bare)
    assert found == expected


def closed(server: MlflowServer, root: Path, status: str, reason: str | None) -> RestRun:
    """The only run in a root, as the server has it once that can't change any more."""
    (directory,) = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    uid = RunDirectory(directory).spec().uid

    def look() -> Any:
        runs = rest_runs(server.uri, uid)
        done = len(runs) == 1 and (runs[0].status, runs[0].reason or None) == (status, reason)
        return runs[0] if done or (runs and not (directory / "lease").exists()) else None

    return eventually(look, 30)
