"""Lightning in several processes: one run, recorded once, and true about how it ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_mlflow import FakeMlflow, FakeRun

pytest.importorskip("lightning")
if sys.platform == "win32":
    pytest.skip("processes are forked and asked about as only POSIX can", allow_module_level=True)

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]

STEPS = 10

SCRIPT = """
import atexit, os, sys, warnings
# With several processes, torch's own threads abort some exits, also without this package: they are left out.
succeeded = []
atexit.register(lambda: succeeded and os._exit(0))  # the first one is the last to be called
import lightning, torch
from mlops_integrations.lightning import MLOpsCallback, MLOpsLogger
warnings.simplefilter("ignore")
strategy, fails, *options = sys.argv[1:]

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"depth": 3})
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        self.log("loss", batch_idx + 100.0 * self.global_rank)
        if batch_idx == 5 and str(self.global_rank) == fails:
            raise ValueError("no such digit")
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    logger = MLOpsLogger(run_name="digits", per_rank="per_rank" in options, log_model="log_model" in options)
    trainer = lightning.Trainer(
        max_epochs=1, logger=logger, callbacks=[MLOpsCallback()], strategy=strategy, devices=2, accelerator="cpu",
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing="log_model" in options)
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(20, 2)))
    directory = logger.run.directory
    # One write, since two processes share this stream.
    sys.stdout.write(f"rank {trainer.global_rank} has {directory} {directory.exists()}\\n")
    sys.stdout.flush()
    succeeded.append(True)
"""
TORCHRUN = """
import runpy, sys
sys.argv = ["torchrun", "--standalone", "--nproc-per-node=2", "train_ddp.py", *sys.argv[1:]]
runpy.run_module("torch.distributed.run", run_name="__main__")
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMlflow]:
    """A server that the environment names."""
    with FakeMlflow() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


def side_processes(root: Path) -> list[str]:
    """The side processes that are at work below a root."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if "side_process.py" in line and str(root) in line:
            found.append(line)
    return found


def eventually(done: Callable[[], bool]) -> bool:
    """Whether something comes about, for which we wait as long as it may take on a busy machine."""
    deadline = time.monotonic() + 60.0
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


def only_run(root: Path) -> Path:
    """The only run directory: other ranks have made none, not even an empty one."""
    (directory,) = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    return directory


def closed(server: FakeMlflow, root: Path) -> FakeRun:
    """The only run on the server, once nobody works on it any more."""
    assert eventually(lambda: not side_processes(root)), side_processes(root)
    (run,) = server.runs.values()
    return run


def curve(run: FakeRun, key: str) -> list[tuple[int, Any]]:
    """Steps and values of a metric on the server; a point that is there twice is in it twice."""
    return sorted((step, value) for name, value, _, step in run.metrics if name == key)


OWN = [(step, float(step)) for step in range(STEPS)]
THEIRS = [(step, 100.0 + step) for step in range(STEPS)]


@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_fork"])
def test_two_processes_make_one_run(
    train: Train, server: FakeMlflow, root: Path, recorded: Read, strategy: str
) -> None:
    """Rank 0 alone records; the process that has started the others knows the run directory, and re-opens nothing."""
    done = train(SCRIPT, strategy, "none")
    assert 0 == done.returncode, done.stderr
    directory = only_run(root)
    assert f"rank 0 has {directory} True" in done.stdout
    run = recorded(directory)
    assert 1 == run.journals
    assert OWN == run.curve("loss")
    assert {"loss", "epoch"} == run.keys
    assert {} == run.losses
    sent = closed(server, root)
    assert OWN == curve(sent, "loss")
    assert ({"depth": "3"}, "FINISHED") == (sent.params, sent.status)


def test_checkpoints_of_a_process_that_ends_at_once(train: Train, root: Path, recorded: Read) -> None:
    """What a forked process has recorded of its checkpoints is there when it is gone, beside the user's own."""
    done = train(SCRIPT, "ddp_fork", "none", "log_model")
    assert 0 == done.returncode, done.stderr
    directory = only_run(root)
    kept, own = sorted(directory.rglob("epoch=0-step=10.ckpt"), key=lambda path: "artifacts" not in path.parts)
    assert directory / "artifacts" / "checkpoints" == kept.parent
    assert own.read_bytes() == kept.read_bytes()
    run = recorded(directory)
    assert f"checkpoints/{kept.name}" == run.tags["mlops.checkpoints.latest"]
    assert {} == run.losses


def test_each_rank_records(train: Train, server: FakeMlflow, root: Path, recorded: Read) -> None:
    """With per_rank both record into the run of rank 0, each through its own journal, rank 1 under its own names."""
    done = train(SCRIPT, "ddp", "none", "per_rank")
    assert 0 == done.returncode, done.stderr
    directory = only_run(root)
    assert {f"rank {rank} has {directory} True" for rank in range(2)} == set(done.stdout.splitlines())
    run = recorded(directory)
    assert 2 == run.journals
    assert {"loss", "epoch", "rank1/loss", "rank1/epoch"} == run.keys
    assert (OWN, THEIRS) == (run.curve("loss"), run.curve("rank1/loss"))
    assert {} == run.losses
    sent = closed(server, root)
    assert (OWN, THEIRS) == (curve(sent, "loss"), curve(sent, "rank1/loss"))
    assert ({"depth": "3"}, "FINISHED") == (sent.params, sent.status)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("ddp", ["per_rank"]), ("ddp", []), ("ddp_spawn", []), ("ddp_fork", ["per_rank"])],
)
def test_a_failure_on_rank_1_is_the_runs(
    train: Train, server: FakeMlflow, root: Path, recorded: Read, strategy: str, options: list[str]
) -> None:
    """The run has FAILED, with the reason of rank 1 where it is known: rank 0 of ddp sees only that rank 1 is gone."""
    done = train(SCRIPT, strategy, "1", *options)
    assert 0 != done.returncode
    assert "ValueError: no such digit" in done.stderr
    sent = closed(server, root)
    run = recorded(only_run(root))
    assert ("FAILED", "FAILED") == (run.ending.status, sent.status)
    if strategy != "ddp" or options:
        assert "ValueError: no such digit" == run.ending.reason
    assert OWN[:5] == run.curve("loss")[:5]
    assert run.curve("loss") == curve(sent, "loss")


@pytest.mark.parametrize("fails", ["none", "1"])
def test_torchrun(train: Train, server: FakeMlflow, root: Path, recorded: Read, tmp_path: Path, fails: str) -> None:
    """Processes that torchrun starts make one run with the job's tags; a failure on rank 1 is its failure."""
    (tmp_path / "train_ddp.py").write_text(SCRIPT)
    done = train(TORCHRUN, "ddp", fails)
    assert (fails == "none") == (done.returncode == 0), done.stderr
    sent = closed(server, root)
    run = recorded(only_run(root))
    expected = "FINISHED" if fails == "none" else "FAILED"
    assert (expected, expected) == (run.ending.status, sent.status)
    assert (OWN if fails == "none" else OWN[:5]) == curve(sent, "loss")[: STEPS if fails == "none" else 5]
    assert run.tags["TORCHELASTIC_RUN_ID"]
    assert 1 == run.journals
