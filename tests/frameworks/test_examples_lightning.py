"""The Lightning examples of a configuration and of two processes run, and record what they say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = ("fit", "--config", str(EXAMPLES / "lightning_cli.yaml"))
EPOCHS = 4

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]


def test_lightning_cli(train: Train, recorded: Read, root: Path) -> None:
    """A configuration trains; with more epochs and a checkpoint of the latest run, that run goes on."""
    done = train(EXAMPLES / "lightning_cli.py", *CONFIG, "--model.hidden=32")
    assert 0 == done.returncode, done.stderr
    directory = (root / "latest").resolve()
    run = recorded(directory)
    assert ("digits", "lightning-cli", "vision") == (run.spec.experiment_name, run.spec.name, run.tags["team"])
    assert {"batch_size": "32", "hidden": "32", "dropout": "0.2", "learning_rate": "0.002"} == run.params
    assert EPOCHS == len(run.curve("val/loss"))
    assert ("FINISHED", {}) == (run.ending.status, run.losses)
    scores = json.loads(run.tags["mlops.checkpoints.scores"])
    assert sorted(value for _, value in run.curve("val/loss"))[:2] == list(scores.values())
    kept = {path.name for path in (directory / "artifacts" / "checkpoints").iterdir()}
    assert set(scores) == kept

    best = Path(run.tags["mlops.checkpoints.best"]).name
    (path,) = [path for path in directory.rglob(best) if "artifacts" not in path.parts]
    latest = root / "latest" / path.relative_to(directory)
    more = ("--model.hidden=32", "--trainer.max_epochs=6", f"--ckpt_path={latest}")
    done = train(EXAMPLES / "lightning_cli.py", *CONFIG, *more)
    assert 0 == done.returncode, done.stderr
    assert directory == (root / "latest").resolve()
    run = recorded(directory)
    assert EPOCHS + 2 == len(run.curve("val/loss"))
    assert ("FINISHED", {}, 2) == (run.ending.status, run.losses, run.journals)


LAUNCHED = """
import atexit, os, runpy, sys
# With several processes, torch's own threads abort some exits, also without this package: they are left out.
succeeded = []
atexit.register(lambda: succeeded and os._exit(0))  # the first one is the last to be called
sys.path.insert(0, {examples!r})
runpy.run_path({examples!r} + "/torchrun_lightning.py", run_name="__main__")
sys.stdout.flush()
succeeded.append(True)
"""


def test_torchrun_lightning(train: Train, recorded: Read, tmp_path: Path) -> None:
    """Two processes record into one run, each what it logs."""
    launched = tmp_path / "launched.py"
    launched.write_text(LAUNCHED.format(examples=str(EXAMPLES)))
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['torchrun', '--standalone', '--nproc-per-node=2', {str(launched)!r}]\n"
        "runpy.run_module('torch.distributed.run', run_name='__main__')\n"
    )
    done = train(script)
    assert 0 == done.returncode, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("run directory:")]
    run = recorded(Path(said.partition(": ")[2]))
    assert 2 == run.journals
    for key in ("val/loss", "rank1/val/loss"):
        assert EPOCHS == len(run.curve(key))
    assert run.curve("train/loss") != run.curve("rank1/train/loss")
    assert ("FINISHED", {}) == (run.ending.status, run.losses)
