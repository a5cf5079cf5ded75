"""How a training with Transformers ends, although the Trainer tells its callbacks of no exception."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import tiny_trainer  # noqa: E402
from mlops_integrations.transformers import MLOpsCallback  # noqa: E402
from tiny_trainer import Failing, Tiny, trainer  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., subprocess.CompletedProcess[str]]

ERROR = ValueError("no such digit")


def told(run: Any) -> tuple[str, str | None]:
    """Status and reason of a run that was read back."""
    return run.ending.status, run.ending.reason


def test_an_exception_that_leaves_train(recorded: Read, local: Options, tmp_path: Path) -> None:
    """It makes the run FAILED at once, with its text, and reaches the caller as it was raised."""
    callback = MLOpsCallback(**local)
    with pytest.raises(ValueError, match="no such digit") as raised:
        trainer(tmp_path, callback, Failing(ERROR)).train()
    run = recorded(callback.run.directory)
    assert raised.value is ERROR
    assert ("FAILED", "ValueError: no such digit") == told(run)
    assert [1, 2] == [step for step, _ in run.curve("train/loss")]
    assert {} == run.losses


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older interpreters add the frame after the wrapper is left")
def test_the_traceback_does_not_show_us(local: Options, tmp_path: Path) -> None:
    """Between the call of train and the Trainer's own code nothing of ours appears."""
    with pytest.raises(ValueError, match="no such digit") as raised:
        trainer(tmp_path, MLOpsCallback(**local), Failing(ERROR)).train()
    assert not any("mlops_integrations" in frame.filename for frame in traceback.extract_tb(raised.tb))


def test_a_failed_training_that_is_tried_again(recorded: Read, local: Options, tmp_path: Path) -> None:
    """When the exception is caught and the training repeated with success, the run is FINISHED."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, Failing(ERROR))
    with pytest.raises(ValueError, match="no such digit"):
        fit.train()
    fit.train()
    run = recorded(callback.run.directory)
    assert ("FINISHED", None) == told(run)
    assert [1, 2, 1, 2, 3, 4] == [step for step, _ in run.curve("train/loss")]


def test_evaluating_does_not_mend_a_failed_training(recorded: Read, local: Options, tmp_path: Path) -> None:
    """What is evaluated after a failure, as in a finally block, is recorded, and the run is FAILED as before."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, Failing(ERROR))

    def train_and_evaluate() -> None:
        try:
            fit.train()
        finally:
            fit.evaluate()

    with pytest.raises(ValueError, match="no such digit"):
        train_and_evaluate()
    run = recorded(callback.run.directory)
    assert 1 == len(run.curve("eval/loss"))
    assert ("FAILED", "ValueError: no such digit") == told(run)


def test_an_interrupted_training_goes_on(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Ctrl-C that is caught is not the end: the run stays open, and the evaluation that follows ends it."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, Failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        fit.train()
    assert recorded(callback.run.directory).ending is None
    fit.evaluate()
    assert ("FINISHED", None) == told(recorded(callback.run.directory))


def test_a_second_training_that_fails_before_it_begins(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A run that has ended well is not left FINISHED when train is called again and can't begin."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback)
    fit.train()
    with pytest.raises(ValueError, match="No valid checkpoint"):
        fit.train(resume_from_checkpoint=True)
    status, reason = told(recorded(callback.run.directory))
    assert "FAILED" == status
    assert "No valid checkpoint" in reason


def test_a_training_that_never_began_is_no_run(local: Options, root: Path, tmp_path: Path) -> None:
    """What fails before the Trainer tells anybody leaves nothing on disk."""
    with pytest.raises(ValueError, match="No valid checkpoint"):
        trainer(tmp_path, MLOpsCallback(**local)).train(resume_from_checkpoint=True)
    assert not root.exists()


def test_what_fails_after_the_last_step(recorded: Read, local: Options, tmp_path: Path) -> None:
    """An exception that leaves train after our callback was told of its end makes the run FAILED."""

    class Late(transformers.TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ERROR

    callback = MLOpsCallback(**local)
    with pytest.raises(ValueError, match="no such digit"):
        trainer(tmp_path, callback, Late()).train()
    assert ("FAILED", "ValueError: no such digit") == told(recorded(callback.run.directory))


class Broken(Tiny):
    """Fails when it is evaluated, or when it has seen some batches."""

    def forward(self, x: Any, labels: Any = None) -> Any:
        if not self.training:
            raise ERROR
        return super().forward(x, labels)


@pytest.mark.parametrize("stage", ["evaluate", "predict"])
def test_a_failing_evaluation(recorded: Read, local: Options, tmp_path: Path, stage: str) -> None:
    """An exception that leaves evaluate or predict outside of a training makes the run FAILED."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, model=Broken())
    fit.train()
    assert "FINISHED" == recorded(callback.run.directory).ending.status
    with pytest.raises(ValueError, match="no such digit"):
        getattr(fit, stage)(tiny_trainer.DATA)
    assert ("FAILED", "ValueError: no such digit") == told(recorded(callback.run.directory))


def test_an_evaluation_that_fails_within_a_training(recorded: Read, local: Options, tmp_path: Path) -> None:
    """It is the training that fails, once."""
    callback = MLOpsCallback(**local)
    with pytest.raises(ValueError, match="no such digit"):
        trainer(tmp_path, callback, model=Broken(), eval_strategy="steps").train()
    run = recorded(callback.run.directory)
    assert ("FAILED", "ValueError: no such digit") == told(run)
    assert 1 == run.journals


def test_a_trainer_of_the_users_own(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A subclass that overrides train and calls the original is seen as well, and called once."""
    calls = []

    class Own(transformers.Trainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return super().train(*args, **kwargs)

    callback = MLOpsCallback(**local)
    with pytest.raises(ValueError, match="no such digit"):
        trainer(tmp_path, callback, Failing(ERROR), kind=Own).train()
    assert [()] == calls
    assert ("FAILED", "ValueError: no such digit") == told(recorded(callback.run.directory))


def test_other_trainers_are_left_alone(local: Options, root: Path, tmp_path: Path) -> None:
    """A Trainer without a callback of ours fails as ever, and nothing is recorded."""
    MLOpsCallback(**local)
    with pytest.raises(ValueError, match="no such digit"):
        trainer(tmp_path, Failing(ERROR)).train()
    assert not root.exists()


def test_a_given_run_is_not_ended(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A run given as run= stays open when the training fails; its block tells how it ends."""
    with mlops.start_run(**local) as run:
        with pytest.raises(ValueError, match="no such digit"):
            trainer(tmp_path, MLOpsCallback(run=run), Failing(ERROR)).train()
        assert run.is_open
    assert "FINISHED" == recorded(run.directory).ending.status


SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {helpers!r})
    from tiny_trainer import TrainerCallback, trainer

    class Ending(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                {how}

    callbacks = [Ending()]
    if sys.argv[1] == 'recorded':
        from mlops_integrations.transformers import MLOpsCallback
        callbacks.append(MLOpsCallback(mode='offline', uploader='thread'))
    trainer(Path.cwd(), *callbacks).train()
    """
)

EXCEPTION = "raise ValueError('no such digit')"
INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    ("how", "status", "reason", "code"),
    [
        (EXCEPTION, "FAILED", "ValueError: no such digit", 1),
        (INTERRUPT, "KILLED", "SIGINT", -2),
        ("sys.exit(3)", "FAILED", None, 3),
    ],
)
def test_the_end_of_the_process_tells(
    recorded: Read, train: Train, root: Path, how: str, status: str, reason: str | None, code: int
) -> None:
    """What ends the process is in the journal at exit, and the exit code is the interpreter's own."""
    done = train(script(how), "recorded")
    run = recorded((root / "latest").resolve())
    assert status == run.ending.status
    assert reason is None or reason == run.ending.reason
    assert 2 == len(run.curve("train/loss"))
    assert code == done.returncode


def test_the_traceback_of_a_script_is_as_without_us(train: Train) -> None:
    """An exception that nobody catches is shown as in the same script without our callback."""
    ours, plain = train(script(EXCEPTION), "recorded"), train(script(EXCEPTION), "plain")
    assert "no such digit" in shown(plain)[-1]
    assert shown(plain) == shown(ours)


def script(how: str) -> str:
    """A training that ends so in its third step."""
    return SCRIPT.format(how=how, helpers=str(Path(tiny_trainer.__file__).parent))


def shown(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The traceback on a process's stderr."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("mlops:")]
    return lines[lines.index("Traceback (most recent call last):") :] if "Traceback" in done.stderr else []
