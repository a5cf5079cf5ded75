"""Several processes that train together with one Trainer each, as torchrun starts them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
import tiny_trainer

Read = Callable[[Path], Any]

SCRIPT = textwrap.dedent(
    """
    import atexit, os, sys
    # With several processes, torch's own threads abort some exits, also without this package: they are left out.
    succeeded = []
    atexit.register(lambda: succeeded and os._exit(0))  # the first one is the last to be called
    from pathlib import Path
    sys.path.insert(0, {helpers!r})
    from tiny_trainer import TrainerCallback, trainer
    from mlops_integrations.transformers import MLOpsCallback

    class Own(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            fit.log({{'own': float(args.process_index)}})
            if sys.argv[1] == str(args.process_index) and state.global_step == 2:
                raise ValueError('no such digit')

    os.environ['OMP_NUM_THREADS'] = '1'
    callback = MLOpsCallback(mode='offline', uploader='thread', **{options})
    fit = trainer(Path.cwd(), callback, Own(), save_strategy='steps', save_steps=2, eval_strategy='steps')
    fit.evaluate()
    fit.train()
    fit.predict(fit.eval_dataset)
    succeeded.append(True)
    """
)


def launch(tmp_path: Path, failing: str = "none", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the script as two processes."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(helpers=str(Path(tiny_trainer.__file__).parent), options=options))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        failing,
    ]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)


def only_run(recorded: Read, root: Path) -> Any:
    """The run that there is."""
    (directory,) = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    return recorded(directory)


def test_two_processes_are_one_run(recorded: Read, root: Path, tmp_path: Path) -> None:
    """Only the main process records; nothing is there twice, and the other one makes no file."""
    done = launch(tmp_path)
    assert 0 == done.returncode, done.stderr
    run = only_run(recorded, root)
    assert [1, 2, 3, 4] == [step for step, _ in run.curve("train/loss")]
    assert [0, 2, 4] == [step for step, _ in run.curve("eval/loss")]
    assert [0.0] * 4 == [value for _, value in run.curve("train/own")]
    assert 1 == len(run.curve("test/loss"))
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


def test_each_process_records_on_request(recorded: Read, root: Path, tmp_path: Path) -> None:
    """With per_rank the other process's values are in the same run, by names that tell the rank."""
    done = launch(tmp_path, per_rank=True)
    assert 0 == done.returncode, done.stderr
    run = only_run(recorded, root)
    assert [0.0] * 4 == [value for _, value in run.curve("train/own")]
    assert [1.0] * 4 == [value for _, value in run.curve("rank1/train/own")]
    assert dict(run.curve("train/loss")) == dict(run.curve("rank1/train/loss"))
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


def test_an_exception_in_another_process_is_the_runs(recorded: Read, root: Path, tmp_path: Path) -> None:
    """With per_rank, what made the second process fail is told, though the first one was merely taken down."""
    done = launch(tmp_path, "1", per_rank=True)
    assert done.returncode != 0
    run = only_run(recorded, root)
    assert ("FAILED", "ValueError: no such digit") == (run.ending.status, run.ending.reason)
