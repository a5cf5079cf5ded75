"""Real trainings with Transformers, read back from the journal and compared with what the Trainer itself keeps."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
import tiny_trainer  # noqa: E402
from mlops_integrations.transformers import MLOpsCallback  # noqa: E402
from tiny_trainer import STEPS, Failing, Tiny, TinyConfig, trainer  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]

SPEED = {f"{kind}_per_second" for kind in ("samples", "steps")} | {"runtime"}


def kept(history: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Steps and values of what the Trainer itself has kept."""
    return [(entry["step"], entry[key]) for entry in history if key in entry]


class Witness(transformers.TrainerCallback):
    """A callback after ours: what logs look like to it, and how our run stands at each step."""

    def __init__(self, look: Callable[[], Any] = lambda: None) -> None:
        self.look = look
        self.keys: set[str] = set()
        self.seen: list[Any] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.keys |= set(logs)
        self.seen.append(self.look())


def test_what_the_trainer_logs_is_recorded(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Each value of the Trainer's own history is in the journal once, at its global step; summaries lie apart."""
    callback, witness = MLOpsCallback(**local), Witness()
    fit = trainer(tmp_path, callback, witness, eval_strategy="steps")
    fit.train()
    run, history = recorded(callback.run.directory), fit.state.log_history
    for key in ("loss", "grad_norm", "learning_rate"):
        assert STEPS == len(kept(history, key))
        assert kept(history, key) == run.curve(f"train/{key}")
    assert kept(history, "eval_loss") == run.curve("eval/loss")
    assert [2, 4] == [step for step, _ in run.curve("eval/loss")]
    assert list(range(1, STEPS + 1)) == sorted({step for step, _ in run.curve("train/epoch")})
    assert kept(history, "train_loss") == run.curve("summary/train_loss")
    apart = {f"summary/{stage}_{name}" for stage in ("train", "eval") for name in SPEED}
    assert apart < {key for key in run.keys if key.startswith("summary/")}
    assert set() == {key for key in run.keys if not key.startswith(("train/", "eval/", "summary/"))}
    assert {"loss", "eval_loss", "train_runtime"} < witness.keys
    assert not any("/" in key for key in witness.keys)
    assert ("FINISHED", 1) == (run.ending.status, run.journals)
    assert {} == run.losses


def test_an_epoch_is_recorded_once_a_step(recorded: Read, local: Options, tmp_path: Path) -> None:
    """An evaluation at the step of a training's log does not repeat the epoch."""
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, eval_strategy="steps").train()
    assert [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)] == recorded(callback.run.directory).curve("train/epoch")


def test_raw_names(recorded: Read, local: Options, tmp_path: Path) -> None:
    """On request the names are the Trainer's own."""
    callback = MLOpsCallback(raw_names=True, **local)
    fit = trainer(tmp_path, callback, eval_strategy="steps")
    fit.train()
    run = recorded(callback.run.directory)
    assert {key for entry in fit.state.log_history for key in entry} - {"step"} == run.keys
    assert kept(fit.state.log_history, "loss") == run.curve("loss")


def test_parameters_tell_how_it_was_trained(recorded: Read, local: Options, tmp_path: Path) -> None:
    """All arguments, the configuration and size of the model, and what the user gives; no token; no label list."""
    callback = MLOpsCallback(params={"data": "random"}, tags={"team": "vision"}, **local)
    model = Tiny(TinyConfig(size=7, id2label={0: "even", 1: "odd"}))
    fit = trainer(tmp_path, callback, model=model, hub_token="secret", learning_rate=0.25)
    fit.train()
    run = recorded(callback.run.directory)
    assert set() == {
        key for key in fit.args.to_dict() if not any(f"{name}/".startswith(f"{key}/") for name in run.params)
    }
    expected = {
        "data": "random",
        "learning_rate": "0.25",
        "hub_token": "<HUB_TOKEN>",
        "accelerator_config/even_batches": "True",
        "model/size": "7",
        "model/id2label": "{0: 'even', 1: 'odd'}",
        "model/num_parameters": "10",
        "model/num_trainable_parameters": "10",
    }
    assert expected == {key: run.params.get(key) for key in expected}
    assert not any("secret" in value for value in run.params.values())
    assert "vision" == run.tags["team"]
    assert {} == run.losses


def test_a_plain_module_needs_no_configuration(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A model that is none of transformers' own is trained and counted."""

    class Plain(tiny_trainer.torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Tiny()

        def forward(self, x: Any, labels: Any = None) -> Any:
            return self.inner(x, labels)

    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, model=Plain()).train()
    run = recorded(callback.run.directory)
    assert "10" == run.params["model/num_parameters"]
    assert {} == run.losses


@pytest.mark.parametrize("how", ["report_to", "class"])
def test_it_can_be_made_by_the_trainer(
    recorded: Read, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Named in report_to, or given as a class, it records into a run of its own."""
    monkeypatch.setenv("MLOPS_UPLOADER", "thread")
    given = {"report_to": "mlops"} if how == "report_to" else {}
    trainer(tmp_path, *([] if given else [MLOpsCallback]), **given).train()
    assert STEPS == len(recorded((root / "latest").resolve()).curve("train/loss"))


def test_named_in_report_to_and_given(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """A callback with arguments counts, the one of report_to beside it records nothing."""
    callback = MLOpsCallback(experiment_name="digits", **local)
    trainer(tmp_path, callback, report_to="mlops").train()
    assert [callback.run.directory] == [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    assert STEPS == len(recorded(callback.run.directory).curve("train/loss"))


@pytest.mark.parametrize(
    ("ours", "arguments", "expected"),
    [
        ({}, {"run_name": "baseline"}, "baseline"),
        ({"run_name": "ours"}, {"run_name": "baseline"}, "ours"),
    ],
)
def test_the_run_has_the_name_of_the_arguments(
    recorded: Read, local: Options, tmp_path: Path, ours: Options, arguments: Options, expected: str
) -> None:
    """TrainingArguments' run_name is taken where the callback has none."""
    callback = MLOpsCallback(**ours, **local)
    trainer(tmp_path, callback, **arguments).train()
    assert expected == recorded(callback.run.directory).spec.name


def test_an_output_directory_is_no_name(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Where run_name merely repeats output_dir, as older versions have it, the script's name is taken."""
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, run_name=str(tmp_path / "output")).train()
    assert "output" not in recorded(callback.run.directory).spec.name


def test_evaluations_belong_to_the_run(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Before, between and after trainings, evaluate and predict are in the same run, which has ended after each."""
    callback = MLOpsCallback(**local)
    witness = Witness(lambda: recorded(callback.run.directory).ending)
    fit = trainer(tmp_path, callback, witness, eval_strategy="steps")
    endings = []
    for stage in (fit.evaluate, fit.train, fit.evaluate, lambda: fit.predict(tiny_trainer.DATA), fit.train):
        stage()
        endings.append(recorded(callback.run.directory).ending.status)
    run = recorded(callback.run.directory)
    assert ["FINISHED"] * 5 == endings
    assert {None} == set(witness.seen)
    assert [0, 2, 4, 4, 2, 4] == [step for step, _ in run.curve("eval/loss")]
    assert [4] == [step for step, _ in run.curve("test/loss")]
    assert 2 == len(run.curve("summary/train_runtime"))
    assert {} == run.losses


def test_the_metrics_of_predict(recorded: Read, local: Options, tmp_path: Path) -> None:
    """What predict gives back is recorded, though the Trainer does not log it."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, compute_metrics=lambda given: {"size": len(given.predictions)})
    metrics = fit.predict(tiny_trainer.DATA).metrics
    run = recorded(callback.run.directory)
    assert [(0, metrics["test_loss"])] == run.curve("test/loss")
    assert [(0, 16.0)] == run.curve("test/size")
    assert "FINISHED" == run.ending.status


def test_evaluations_by_other_names(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A prefix of the user's own, and several data sets, are told apart by the metrics' names."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback)
    fit.evaluate(metric_key_prefix="held_out")
    fit.evaluate({"a": tiny_trainer.DATA[:8], "b": tiny_trainer.DATA[8:]})
    keys = recorded(callback.run.directory).keys
    assert {"held_out/loss", "eval/a_loss", "eval/b_loss"} == {key for key in keys if key.endswith("loss")}


def test_a_given_run_stays_open(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A run given as run= takes the records, and is ended by its owner."""
    with mlops.start_run(**local) as run:
        callback = MLOpsCallback(run=run)
        trainer(tmp_path, callback).train()
        assert callback.run is run
        assert run.is_open
    read = recorded(run.directory)
    assert STEPS == len(read.curve("train/loss"))
    assert "FINISHED" == read.ending.status


def test_a_second_training_with_other_arguments(
    recorded: Read, local: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run keeps its first parameters; what differs is a tag and is said, and nothing counts as lost."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, learning_rate=0.25)
    fit.train()
    fit.args.learning_rate = 0.5
    fit.train()
    run = recorded(callback.run.directory)
    assert "0.25" == run.params["learning_rate"]
    assert "learning_rate: 0.25 -> 0.5" == run.tags["mlops.params_changed"]
    assert 1 == caplog.text.count("keep their first values")
    assert {} == run.losses


def test_what_saving_fills_in_is_no_change(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A model's configuration that the Trainer has completed by saving it is not told as changed."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, save_strategy="steps", save_steps=2)
    fit.train()
    assert ["Tiny"] == fit.model.config.architectures
    fit.train()
    run = recorded(callback.run.directory)
    assert "None" == run.params["model/architectures"]
    assert "mlops.params_changed" not in run.tags


def test_training_starts_anew_with_smaller_batches(recorded: Read, local: Options, tmp_path: Path) -> None:
    """When auto_find_batch_size begins again after running out of memory, that is one training and one run."""
    out_of_memory = RuntimeError("CUDA out of memory.")
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, Failing(out_of_memory), auto_find_batch_size=True, num_train_epochs=1)
    fit.train()
    run = recorded(callback.run.directory)
    assert [1, 2, 1, 2, 3, 4] == [step for step, _ in run.curve("train/loss")]
    assert 1 == run.journals
    assert "FINISHED" == run.ending.status
    assert str(fit.state.train_batch_size) == run.tags["train_batch_size"]
    assert fit.state.train_batch_size < 4
    assert {} == run.losses


@pytest.mark.parametrize("shown", [True, False])
def test_a_hidden_nan_is_said(
    recorded: Read, local: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture, shown: bool
) -> None:
    """A NaN is said once and tagged with its step, though the Trainer leaves it out of the loss."""
    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, model=Tiny(nan_from=3), logging_nan_inf_filter=not shown)
    fit.train()
    run = recorded(callback.run.directory)
    assert "NaN" == dict(run.curve("train/grad_norm"))[3]
    assert ("NaN" if shown else 0.0) == dict(run.curve("train/loss"))[3]
    assert "3" == run.tags["mlops.nan_at_step"]
    assert 1 == caplog.text.count("is NaN at step 3")
    assert shown != ("the loss is logged as 0.0" in caplog.text)


def test_no_nan_is_said_of_a_healthy_model(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Without NaN there is no such tag."""
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, eval_strategy="steps").train()
    assert "mlops.nan_at_step" not in recorded(callback.run.directory).tags


def test_mlflow_in_report_to_is_said(local: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With MLflow's own callback beside ours, two runs will show, which is said once."""

    class Mute(transformers.integrations.MLflowCallback):
        def __init__(self) -> None:
            self._initialized = True

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            pass

        on_train_end = on_log

        def __del__(self) -> None:
            pass

    fit = trainer(tmp_path, MLOpsCallback(**local), Mute())
    fit.train()
    fit.train()
    assert 1 == caplog.text.count("report_to names mlflow, too")


def test_tables_and_texts_in_logs(
    recorded: Read, local: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no number is counted each time and said once, and a tensor of one element is a number."""

    class Table(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            fit.log({"text": "good", "table": {"a": [1]}, "tensor": tiny_trainer.torch.tensor(2.0)})

    callback = MLOpsCallback(**local)
    fit = trainer(tmp_path, callback, Table())
    fit.train()
    run = recorded(callback.run.directory)
    assert {"metric that is no number": 2 * STEPS} == run.losses
    assert 1 == caplog.text.count("train/text")
    assert 1 == caplog.text.count("train/table")
    assert [2.0] * STEPS == [value for _, value in run.curve("train/tensor")]


def test_checkpoints_are_kept_on_request(local: Options, tmp_path: Path) -> None:
    """Copies of the checkpoints lie among the artifacts, also of those that the Trainer deletes."""
    callback, silent = MLOpsCallback(log_checkpoints=True, **local), MLOpsCallback(**local)
    options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    trainer(tmp_path, callback, **options).train()
    trainer(tmp_path, silent, **options).train()
    callback.run.finish()
    artifacts = callback.run.directory / "artifacts"
    names = {path.relative_to(artifacts).as_posix() for path in artifacts.rglob("*") if path.is_file()}
    assert {f"checkpoints/checkpoint-{step}/trainer_state.json" for step in (2, 4)} <= names
    assert not list(silent.run.directory.rglob("trainer_state.json"))


@pytest.mark.swallows
def test_a_failure_of_ours_does_not_stop_the_training(recorded: Read, local: Options, tmp_path: Path) -> None:
    """What we can't describe is counted, and everything else of the training is recorded."""

    class Indescribable(TinyConfig):
        def to_dict(self) -> dict[str, Any]:
            raise NotImplementedError("no dictionary")

    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, model=Tiny(Indescribable())).train()
    run = recorded(callback.run.directory)
    assert STEPS == len(run.curve("train/loss"))
    assert {"internal error": 1} == run.losses
    assert "FINISHED" == run.ending.status


def test_a_directory_that_is_deleted_does_not_stop_the_training(local: Options, root: Path, tmp_path: Path) -> None:
    """With the run directory gone in the middle, the training goes on to its end."""

    class Deleting(transformers.TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            shutil.rmtree(root)

    fit = trainer(tmp_path, MLOpsCallback(**local), Deleting())
    fit.train()
    fit.evaluate()
    assert STEPS == fit.state.global_step


def test_run_and_keywords_together_are_an_error(local: Options) -> None:
    """An open run and keywords for another one contradict each other."""
    with mlops.start_run(**local) as run, pytest.raises(ValueError, match="not both"):
        MLOpsCallback(run=run, experiment_name="digits")


def test_making_a_trainer_makes_no_run(root: Path, local: Options, tmp_path: Path) -> None:
    """Nothing is on disk before the training begins."""
    trainer(tmp_path, MLOpsCallback(**local))
    assert not root.exists()


def test_it_can_be_pickled(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A callback that went through pickle records into the same run."""
    fresh = pickle.loads(pickle.dumps(MLOpsCallback(**local)))
    trainer(tmp_path, fresh).train()
    again = pickle.loads(pickle.dumps(fresh))
    trainer(tmp_path, again).evaluate()
    assert fresh.run.directory == again.run.directory
    assert {"train/loss", "eval/loss"} < recorded(fresh.run.directory).keys


def test_a_parameter_of_the_users(recorded: Read, local: Options, tmp_path: Path) -> None:
    """One that is named as the Trainer's own wins, and nothing is lost."""
    callback = MLOpsCallback(params={"seed": "mine"}, **local)
    trainer(tmp_path, callback).train()
    run = recorded(callback.run.directory)
    assert "mine" == run.params["seed"]
    assert {} == run.losses
