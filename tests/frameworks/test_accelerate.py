"""Loops with Accelerate, read back from the journal."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")
from accelerate import tracking  # noqa: E402

from mlops_integrations.accelerate import MLOpsTracker  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., subprocess.CompletedProcess[str]]

by_name = pytest.mark.skipif(
    not hasattr(tracking, "register_tracker_class"), reason="this accelerate takes trackers as instances only"
)


def loop(log_with: Any, *, config: Any = None, end: bool = True, **init: Any) -> list[float]:
    """Four steps of a real training through an Accelerator; the losses."""
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, log_with=log_with)
    accelerator.init_trackers("digits", config=config, **init)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=4)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    losses = []
    for step, batch in enumerate(data):
        loss = model(batch).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"train/loss": loss.detach(), "double": 2 * loss.item()}, step=step)
        losses.append(loss.item())
    if end:
        accelerator.end_training()
    return losses


def test_an_instance_records(recorded: Read, local: Options) -> None:
    """Numbers, tensors of one element and the configuration are recorded; end_training ends the run."""
    tracker = MLOpsTracker(experiment_name="mine", tags={"team": "vision"}, **local)
    losses = loop(tracker, config={"lr": 0.1, "optimizer": {"name": "sgd"}})
    run = recorded(tracker.run.directory)
    assert list(enumerate(losses)) == run.curve("train/loss")
    assert [2 * loss for loss in losses] == [value for _, value in run.curve("double")]
    assert {"lr": "0.1", "optimizer/name": "sgd"} == run.params
    assert "vision" == run.tags["team"]
    assert "mine" == run.spec.experiment_name
    assert ("FINISHED", 1) == (run.ending.status, run.journals)
    assert {} == run.losses


@by_name
def test_a_name_records(recorded: Read, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """log_with="mlops" makes a run in the project's experiment, with the keywords of init_kwargs."""
    monkeypatch.setenv("MLOPS_UPLOADER", "thread")
    losses = loop("mlops", init_kwargs={"mlops": {"run_name": "baseline"}})
    run = recorded((root / "latest").resolve())
    assert list(enumerate(losses)) == run.curve("train/loss")
    assert ("digits", "baseline") == (run.spec.experiment_name, run.spec.name)
    assert "FINISHED" == run.ending.status


@by_name
@pytest.mark.parametrize("given", ["environment", "keyword"])
def test_an_experiment_that_is_given_wins(
    recorded: Read, root: Path, local: Options, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """The project's name is taken only where neither a keyword nor the environment names an experiment."""
    if given == "environment":
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "given")
    keywords = {"experiment_name": "given"} if given == "keyword" else {}
    loop("mlops", init_kwargs={"mlops": {**local, **keywords}})
    assert "given" == recorded((root / "latest").resolve()).spec.experiment_name


def test_the_run_is_at_hand(recorded: Read, local: Options) -> None:
    """get_tracker gives the tracker, and the run itself if unwrapped."""
    tracker = MLOpsTracker(**local)
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("digits")
    assert tracker is accelerator.get_tracker("mlops")
    accelerator.get_tracker("mlops", unwrap=True).log_metric("more", 1.0)
    accelerator.end_training()
    assert [(0, 1.0)] == recorded(tracker.run.directory).curve("more")


def test_a_given_run_stays_open(recorded: Read, local: Options) -> None:
    """A run given as run= takes the records, and is ended by its owner."""
    with mlops.start_run(**local) as run:
        losses = loop(MLOpsTracker(run=run))
        assert run.is_open
    assert list(enumerate(losses)) == recorded(run.directory).curve("train/loss")


def test_without_end_training(recorded: Read, local: Options) -> None:
    """A loop that leaves end_training out leaves the run open, for the end of the process to tell."""
    tracker = MLOpsTracker(**local)
    losses = loop(tracker, end=False)
    run = recorded(tracker.run.directory)
    assert list(enumerate(losses)) == run.curve("train/loss")
    assert run.ending is None


def test_making_a_tracker_makes_no_run(root: Path, local: Options) -> None:
    """Nothing is on disk before init_trackers."""
    accelerate.Accelerator(cpu=True, log_with=MLOpsTracker(**local))
    assert not root.exists()


@pytest.mark.swallows
def test_a_failure_of_ours_does_not_stop_the_training(recorded: Read, local: Options) -> None:
    """A configuration that can't be read is counted, and the rest is recorded."""

    class Broken(dict[str, object]):
        def items(self) -> Any:
            raise NotImplementedError("no items")

    tracker = MLOpsTracker(**local)
    losses = loop(tracker, config=Broken())
    run = recorded(tracker.run.directory)
    assert list(enumerate(losses)) == run.curve("train/loss")
    assert {"internal error": 1} == run.losses


def test_run_and_keywords_together_are_an_error(local: Options) -> None:
    """An open run and keywords for another one contradict each other."""
    with mlops.start_run(**local) as run, pytest.raises(ValueError, match="not both"):
        MLOpsTracker(run=run, experiment_name="digits")


SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    import accelerate
    from mlops_integrations.accelerate import MLOpsTracker

    tracker = MLOpsTracker(mode='offline', uploader='thread')
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers('digits', config={{'processes': accelerator.num_processes}})
    for step in range(4):
        if step == 2:
            {how}
        accelerator.log({{'loss': 1.0 / (step + 1), 'rank': accelerator.process_index}}, step=step)
    tracker.run.log_metric('own', 1.0)
    {end}
    """
)


@pytest.mark.parametrize(
    ("how", "status", "reason", "code"),
    [
        ("raise ValueError('no such digit')", "FAILED", "ValueError: no such digit", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", "KILLED", "SIGINT", -2),
        ("pass", "FINISHED", None, 0),
    ],
)
def test_the_exit_tells(
    recorded: Read, train: Train, root: Path, how: str, status: str, reason: str | None, code: int
) -> None:
    """Without end_training, the run ends as its process does."""
    done = train(SCRIPT.format(how=how, end=""))
    run = recorded((root / "latest").resolve())
    assert (status, reason) == (run.ending.status, run.ending.reason)
    assert (4 if how == "pass" else 2) == len(run.curve("loss"))
    assert code == done.returncode


def test_several_processes_are_one_run(recorded: Read, tmp_path: Path, root: Path) -> None:
    """Of two processes that train together only the main one records, and the other touches nothing."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(how="pass", end="accelerator.end_training()"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert 0 == done.returncode, done.stderr
    (directory,) = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    run = recorded(directory)
    assert {"processes": "2"} == run.params
    assert [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25)] == run.curve("loss")
    assert [0.0] * 4 == [value for _, value in run.curve("rank")]
    assert [(0, 1.0)] == run.curve("own")
    assert ("FINISHED", 1) == (run.ending.status, run.journals)
