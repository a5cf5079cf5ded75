"""A checkpoint names the run that it belongs to: a Trainer in another process goes on with it, untold."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import tiny_trainer  # noqa: E402
from mlops_integrations.transformers import MLOpsCallback  # noqa: E402
from tiny_trainer import trainer  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., subprocess.CompletedProcess[str]]

SAVING = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 0.25}


def checkpoint(root: Path, step: int = 2) -> str:
    """Where the Trainer has saved."""
    return str(root / "output" / f"checkpoint-{step}")


def first(tmp_path: Path, local: Options) -> Any:
    """A training that has saved; its run."""
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, **SAVING).train()
    return callback.run


@pytest.mark.parametrize("restore", [False, True])
def test_resuming_goes_on_with_the_run(
    recorded: Read, local: Options, root: Path, tmp_path: Path, restore: bool
) -> None:
    """A new callback records into the checkpoint's run, whether or not the Trainer restores callbacks."""
    run = first(tmp_path, local)
    callback = MLOpsCallback(raw_names=True, **local)
    options = {**SAVING, "max_steps": 6, "restore_callback_states_from_checkpoint": restore}
    trainer(tmp_path, callback, **options).train(resume_from_checkpoint=checkpoint(tmp_path, 4))
    again = recorded(run.directory)
    assert run.uid == callback.run.uid
    assert [1, 2, 3, 4] == [step for step, _ in again.curve("train/loss")]
    assert [5, 6] == [step for step, _ in again.curve("loss")]
    assert 1 == len([path for path in root.iterdir() if path.is_dir() and not path.is_symlink()])
    assert "FINISHED" == again.ending.status


def test_parameters_that_have_changed_since(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Of a resumed training, parameters that the run has are not sent again; those that differ are a tag."""
    run = first(tmp_path, local)
    callback = MLOpsCallback(**local)
    options = {**SAVING, "learning_rate": 0.5}
    trainer(tmp_path, callback, **options).train(resume_from_checkpoint=checkpoint(tmp_path))
    again = recorded(run.directory)
    assert "0.25" == again.params["learning_rate"]
    assert "learning_rate: 0.25 -> 0.5" == again.tags["mlops.params_changed"]
    assert {} == again.losses


def test_a_run_given_to_the_callback_wins(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Resuming with run=, that run takes the records, also where the Trainer makes callbacks anew."""
    earlier = first(tmp_path, local)
    for restore in (False, True):
        with mlops.start_run(**local) as run:
            options = {**SAVING, "restore_callback_states_from_checkpoint": restore}
            fit = trainer(tmp_path, MLOpsCallback(run=run), **options)
            fit.train(resume_from_checkpoint=checkpoint(tmp_path))
        assert [3, 4] == [step for step, _ in recorded(run.directory).curve("train/loss")]
    assert 1 == recorded(earlier.directory).journals


def test_a_checkpoint_of_another_experiment(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A callback that names another experiment begins a run there, and the checkpoint's is left as it is."""
    earlier = first(tmp_path, local)
    callback = MLOpsCallback(experiment_name="another", **local)
    trainer(tmp_path, callback, **SAVING).train(resume_from_checkpoint=checkpoint(tmp_path))
    assert earlier.uid != callback.run.uid
    run = recorded(callback.run.directory)
    assert "another" == run.spec.experiment_name
    assert "0.25" == run.params["learning_rate"]
    assert 1 == recorded(earlier.directory).journals


def test_a_checkpoint_whose_run_is_not_here(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """A new run is recorded, with all parameters, where nothing is left of the checkpoint's."""
    earlier = first(tmp_path, local)
    shutil.rmtree(root)
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, **SAVING).train(resume_from_checkpoint=checkpoint(tmp_path))
    assert earlier.uid != callback.run.uid
    assert "0.25" == recorded(callback.run.directory).params["learning_rate"]


def test_a_checkpoint_made_without_us(recorded: Read, local: Options, tmp_path: Path) -> None:
    """It can be resumed with us, and the training can save; the Trainer alone would fail at that."""
    trainer(tmp_path, **SAVING).train()
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, **SAVING).train(resume_from_checkpoint=checkpoint(tmp_path))
    assert [3, 4] == [step for step, _ in recorded(callback.run.directory).curve("train/loss")]
    state = json.loads(Path(checkpoint(tmp_path, 4), "trainer_state.json").read_text())
    assert callback.run.uid == state["stateful_callbacks"]["MLOpsCallback"]["attributes"]["recorded_in"]["uid"]


def test_a_checkpoint_made_with_us_is_resumed_without(local: Options, tmp_path: Path) -> None:
    """Whoever resumes without our callback has no trouble from it."""
    first(tmp_path, local)
    options = {**SAVING, "restore_callback_states_from_checkpoint": True}
    fit = trainer(tmp_path, **options)
    fit.train(resume_from_checkpoint=checkpoint(tmp_path))
    assert 4 == fit.state.global_step


def test_no_secret_is_in_a_checkpoint(local: Options, tmp_path: Path) -> None:
    """Neither a token nor the credentials of a server."""
    callback = MLOpsCallback(tracking_uri="http://somebody:hunter2@127.0.0.1:9", **local)
    trainer(tmp_path, callback, hub_token="hunter2", **SAVING).train()
    assert "hunter2" not in Path(checkpoint(tmp_path), "trainer_state.json").read_text()


SCRIPT = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    sys.path.insert(0, {helpers!r})
    from tiny_trainer import TrainerCallback, trainer
    from mlops_integrations.transformers import MLOpsCallback

    class Dying(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 3 and sys.argv[1] == 'first':
                os._exit(9)

    callback = MLOpsCallback(mode='offline', uploader='thread')
    fit = trainer(Path.cwd(), callback, Dying(), save_strategy='steps', save_steps=2)
    fit.train(resume_from_checkpoint=sys.argv[1] != 'first')
    print(callback.run.directory)
    """
)


def test_a_killed_process_is_resumed_in_another(recorded: Read, train: Train, root: Path) -> None:
    """One run holds what both processes have logged."""
    script = SCRIPT.format(helpers=str(Path(tiny_trainer.__file__).parent))
    assert 9 == train(script, "first").returncode
    done = train(script, "second")
    assert 0 == done.returncode, done.stderr
    run = recorded(Path(done.stdout.splitlines()[-1]))
    assert [1, 2, 3, 3, 4] == [step for step, _ in run.curve("train/loss")]
    assert 2 == run.journals
    assert 1 == len([path for path in root.iterdir() if path.is_dir() and not path.is_symlink()])
    assert {} == run.losses
