"""Six ways that a training ends, through every integration, as real processes against a real MLflow server.

What was logged before the end is there, the status tells how it ended, and the training ends as it would without us.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import MlflowServer, RestRun, eventually, rest_runs
from warm_python import WarmPython

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

# Framework -> the ways to have it recorded, each with the metric that is logged five times before the training ends in
# the middle.
WAYS: Final = {
    "keras": {"callback": "loss", "autolog": "loss"},
    "lightning": {"logger": "loss", "callback": "loss", "autolog": "loss"},
    "transformers": {"callback": "train/loss", "report_to": "train/loss", "autolog": "train/loss"},
    "accelerate": {"tracker": "loss"},
}
IMPORTED: Final = {
    "keras": ("keras",),
    "lightning": ("torch", "lightning"),
    "transformers": ("torch", "transformers.trainer"),
    "accelerate": ("torch", "torch._dynamo", "accelerate"),
}

FRESH: Final = {("autolog", "ok"), ("autolog", "exception")}
"""Trained in a Python that has not imported the framework before ``autolog()``."""

Ended = tuple[int, str, str]
"""Exit code, stdout, and the traceback or other last words."""


def train(warm: WarmPython, framework: str, way: str, ending: str, place: Path, **variables: str) -> Ended:
    """Run a training to its end, in a directory of its own."""
    script, directory = SCRIPTS / f"train_{framework}.py", place / f"{framework}-{way}-{ending}"
    directory.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MLOPS_"))}
    env |= {"WAY": way, "ENDING": ending} | variables
    if (way, ending) in FRESH:
        done = subprocess.run(
            [sys.executable, script], cwd=directory, env=env, capture_output=True, text=True, timeout=600, check=False
        )
    else:
        done = warm.run(script, cwd=directory, env=env)
    theirs = re.sub(r"^mlops: .*\n", "", done.stderr, flags=re.MULTILINE)
    (directory / "stderr").write_text(done.stderr)
    last_words = theirs[theirs.find("Traceback (most") :] if "Traceback (most" in theirs else ""
    return done.returncode, re.sub(r"\{'.*\}\n", "", done.stdout), last_words


@pytest.mark.timeout(900)
@pytest.mark.parametrize("framework", WAYS)
def test_the_status_tells_how_the_training_ended(server: MlflowServer, tmp_path: Path, framework: str) -> None:
    """Row by row: points, status and reason on the server; exit code, output and traceback as without us."""
    pytest.importorskip(framework)
    tried = list(itertools.product(["none", *WAYS[framework]], ENDINGS))
    with WarmPython(*IMPORTED[framework]) as warm, ThreadPoolExecutor(AT_ONCE) as together:

        def try_out(row: tuple[str, str]) -> Ended:
            return train(warm, framework, *row, tmp_path, MLFLOW_TRACKING_URI=server.uri)

        outcomes = dict(zip(tried, together.map(try_out, tried), strict=True))

    found, expected = {}, {}
    for (way, metric), ending in itertools.product(WAYS[framework].items(), ENDINGS):
        status, reason = ENDINGS[ending]
        tracked, bare = outcomes[way, ending], outcomes["none", ending]
        if sys.version_info < (3, 11):  # there a traceback shows one line of ours more
            tracked, bare = tracked[:2], bare[:2]  # type: ignore[assignment]
        run = closed(server, tmp_path / f"{framework}-{way}-{ending}" / "mlops_runs", status, reason)
        steps = [step for step, _ in run.curve(metric)]
        found[way, ending] = (run.status, run.reason, len(steps), len(set(steps)), tracked)
        count = 10 if ending == "ok" else len(steps) if steps[5:] and ending == "SIGTERM" else 5
        expected[way, ending] = (status, reason, count, count, bare)
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
