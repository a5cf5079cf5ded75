"""Signals that Lightning handles itself, and a job that SLURM takes back into its queue, as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
if sys.platform == "win32":
    pytest.skip("these are POSIX signals", allow_module_level=True)

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = """
import contextlib, os, signal, sys, warnings
import lightning, torch
import mlops_integrations as mlops
from mlops_integrations.lightning import MLOpsLogger
warnings.simplefilter('ignore')

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        self.log('loss', float(batch_idx))
        if batch_idx == 5:
            {how}
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

how, options = sys.argv[1], dict(mode='offline', uploader='thread')
run = mlops.start_run(**options) if how in ('given', 'with') else None
logger = {{'plain': False, 'own': MLOpsLogger(**options)}}.get(how) if run is None else MLOpsLogger(run=run)
trainer = lightning.Trainer(max_epochs=1, logger=logger, log_every_n_steps=1, accelerator='cpu',
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
with run if how == 'with' else contextlib.nullcontext():
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(10, 2)))
"""

INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
TERMINATE = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.fixture(scope="module")
def without_us(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[int, list[str]]]:
    """Exit code and what stands on stderr without any logger, for each way to end."""
    known: dict[str, tuple[int, list[str]]] = {}

    def ask(how: str) -> tuple[int, list[str]]:
        if how not in known:
            script = tmp_path_factory.mktemp("plain") / "train.py"
            script.write_text(SCRIPT.format(how=how))
            done = subprocess.run(
                [sys.executable, str(script), "plain"], capture_output=True, text=True, timeout=600, check=False
            )
            known[how] = done.returncode, lines(done.stderr, script)
        return known[how]

    return ask


def lines(stderr: str, script: Path) -> list[str]:
    """What stands on stderr, without our lines and the script's place."""
    return [line.replace(str(script), "train.py") for line in stderr.splitlines() if not line.startswith("mlops:")]


@pytest.mark.parametrize("whose", ["own", "given", "with"])
@pytest.mark.parametrize(
    ("how", "reason", "points"), [(INTERRUPT, "SIGINT", 5), (TERMINATE, "SIGTERM", 6)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_that_lightning_handles_is_recorded(
    recorded: Read,
    train: Train,
    root: Path,
    tmp_path: Path,
    without_us: Callable[[str], tuple[int, list[str]]],
    how: str,
    reason: str,
    points: int,
    whose: str,
) -> None:
    """Ctrl-C and SIGTERM are KILLED, though Lightning exits with 1 and 0; exit code and output are as without us."""
    if whose == "with" and how == INTERRUPT and without_us(how)[0] == 0:
        pytest.skip("this version of Lightning comes back from fit after Ctrl-C: the block ends well")
    ours = train(SCRIPT.format(how=how), whose)
    read = recorded((root / "latest").resolve())
    assert ("KILLED", reason) == (read.ending.status, read.ending.reason)
    assert points == len(read.curve("loss"))
    assert without_us(how) == (ours.returncode, lines(ours.stderr, tmp_path / "train.py"))


JOB = """
import os, signal, sys, warnings
import lightning, torch
from mlops_integrations.lightning import MLOpsCallback, MLOpsLogger
warnings.simplefilter("ignore")
stops = sys.argv[1:]

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        self.log("loss", float(batch_idx))
        if batch_idx == 5 and stops:
            os.kill(os.getpid(), signal.SIGUSR1)
        if batch_idx == 7 and stops:
            os.kill(os.getpid(), getattr(signal, stops[0]))
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

trainer = lightning.Trainer(
    max_epochs=1, logger=MLOpsLogger(), callbacks=[MLOpsCallback()], accelerator="cpu", log_every_n_steps=1,
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(10, 2)))
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM, which writes down what is asked of it."""
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    for name, script in (("scontrol", f'echo "$@" >> {asked}'), ("srun", "exit 0")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    variables = {"JOB_ID": "4711", "JOB_NAME": "digits", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in (variables | {"NODELIST": "localhost"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return asked


@pytest.mark.parametrize("then", ["SIGTERM", "SIGKILL"])
def test_a_job_that_slurm_takes_back(train: Train, recorded: Read, root: Path, slurm: Path, then: str) -> None:
    """It stays RUNNING, though it goes on for a while until SLURM ends it; started again, it goes on with the run."""
    first = train(JOB, then)
    assert "requeue 4711" == slurm.read_text().strip(), first.stderr
    directory = (root / "latest").resolve()
    run = ended(recorded, directory)
    assert "RUNNING" == run.ending.status
    assert ("true", "4711") == (run.tags["mlops.requeued"], run.tags["SLURM_JOB_ID"])
    assert list(range(8 if then == "SIGTERM" else 7)) == [step for step, _ in run.curve("loss")]

    again = train(JOB)
    assert 0 == again.returncode, again.stderr
    assert [directory.name] == [path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    run = ended(recorded, directory)
    assert "FINISHED" == run.ending.status
    assert 9 <= max(step for step, _ in run.curve("loss"))


def ended(recorded: Read, directory: Path) -> Any:
    """A run once its side process has found out how its process ended."""
    deadline = time.monotonic() + 60.0
    while recorded(directory).ending is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return recorded(directory)
