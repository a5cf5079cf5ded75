"""A search for hyperparameters: the callback's run is the parent, each trial a child of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
optuna = pytest.importorskip("optuna", reason="a search needs optuna")
from transformers.integrations import integration_utils  # noqa: E402

import tiny_trainer  # noqa: E402
from mlops_integrations.transformers import MLOpsCallback  # noqa: E402
from tiny_trainer import STEPS, Tiny, trainer  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]


def runs(recorded: Read, root: Path) -> dict[str, Any]:
    """All runs by their names."""
    found = [recorded(path) for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    return {run.spec.name: run for run in found}


def searching(tmp_path: Path, *callbacks: Any, nan_from: int | None = None, **options: Any) -> Any:
    """A Trainer that can search."""
    return trainer(tmp_path, *callbacks, model_init=lambda: Tiny(nan_from=nan_from), **options)


def search(fit: Any, trials: int = 2, **options: Any) -> Any:
    """Search for a learning rate."""
    chosen = {"hp_space": lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.1, 0.9)}}
    return fit.hyperparameter_search(n_trials=trials, backend="optuna", **{**chosen, **options})


def test_each_trial_is_a_child(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """Two trials: a parent, and two children of it with the parameters that they tried, all FINISHED."""
    callback = MLOpsCallback(run_name="search", experiment_name="digits", tags={"team": "vision"}, **local)
    best = search(searching(tmp_path, callback, eval_strategy="steps"))
    found = runs(recorded, root)
    assert {"search", "search-0", "search-1"} == set(found)
    assert callback.run.uid == found["search"].spec.uid
    for name in ("search-0", "search-1"):
        trial = found[name]
        assert callback.run.uid == trial.spec.parent
        assert "digits" == trial.spec.experiment_name
        assert "vision" == trial.tags["team"]
        assert trial.params["trial/learning_rate"] == trial.params["learning_rate"]
        assert STEPS == len(trial.curve("train/loss"))
        assert 2 == len(trial.curve("eval/loss"))
    assert str(best.hyperparameters["learning_rate"]) == found[f"search-{best.run_id}"].params["trial/learning_rate"]
    assert found["search-0"].params["learning_rate"] != found["search-1"].params["learning_rate"]
    assert ["FINISHED"] * 3 == [run.ending.status for run in found.values()]
    assert set() == found["search"].keys
    assert (best.run_id, str(best.objective)) == tuple(
        found["search"].tags[name] for name in ("mlops.best_trial", "mlops.best_objective")
    )
    assert 1 == found["search"].journals
    assert [{}] * 3 == [run.losses for run in found.values()]


def test_an_evaluation_after_the_steps_belongs_to_the_trial(
    recorded: Read, local: Options, root: Path, tmp_path: Path
) -> None:
    """Where nothing is evaluated while training, the Trainer's evaluation at the end is in the trial's run."""
    callback = MLOpsCallback(run_name="search", **local)
    search(searching(tmp_path, callback))
    found = runs(recorded, root)
    assert [1, 1] == [len(found[name].curve("eval/loss")) for name in ("search-0", "search-1")]
    assert ["FINISHED"] * 3 == [run.ending.status for run in found.values()]


def test_what_follows_a_search_is_in_the_parent(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """A training and an evaluation after the search belong to the callback's own run."""
    callback = MLOpsCallback(run_name="search", **local)
    fit = searching(tmp_path, callback)
    search(fit)
    fit.train()  # the Trainer gives away the model of the last trial: it can't be evaluated before this
    fit.evaluate()
    assert "search" == callback.run.name
    found = runs(recorded, root)
    assert STEPS == len(found["search"].curve("train/loss"))
    assert 1 == len(found["search"].curve("eval/loss"))
    assert 3 == len(found)
    assert "FINISHED" == found["search"].ending.status


def test_a_pruned_trial_is_marked(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """It is FINISHED with a tag that says so, and others have no such tag."""

    class Second(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(trial.number == 1)

    callback = MLOpsCallback(run_name="search", **local)
    search(searching(tmp_path, callback, eval_strategy="steps"), trials=3, pruner=Second())
    found = runs(recorded, root)
    assert {"search-1"} == {name for name, run in found.items() if "mlops.pruned" in run.tags}
    assert "true" == found["search-1"].tags["mlops.pruned"]
    assert [1, 2] == [step for step, _ in found["search-1"].curve("train/loss")]
    assert ["FINISHED"] * 4 == [run.ending.status for run in found.values()]


def test_a_nan_in_each_trial(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """Each trial's run tells of its own."""
    callback = MLOpsCallback(run_name="search", **local)
    search(searching(tmp_path, callback, nan_from=3), compute_objective=lambda metrics: 0.0)
    found = runs(recorded, root)
    tagged = {name: run.tags["mlops.nan_at_step"] for name, run in found.items() if "mlops.nan_at_step" in run.tags}
    assert {"search-0": "3", "search-1": "3"} == tagged


class FailingOnce(transformers.TrainerCallback):
    """Fails in the second trial."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.trainings = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainings += 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainings == 2 and state.global_step == 2:
            raise self.error


def test_a_failed_trial_ends_the_search(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """The exception makes the trial and the search FAILED; the trial before stays as it was."""
    callback = MLOpsCallback(run_name="search", **local)
    with pytest.raises(ValueError, match="no such digit"):
        search(searching(tmp_path, callback, FailingOnce(ValueError("no such digit"))))
    statuses = {name: run.ending.status for name, run in runs(recorded, root).items()}
    assert {"search": "FAILED", "search-0": "FINISHED", "search-1": "FAILED"} == statuses


@pytest.mark.skipif(
    "catch" not in inspect.getsource(integration_utils.run_hp_search_optuna),
    reason="this version of transformers can't go on after a failed trial",
)
@pytest.mark.parametrize("trials", [2, 3])
def test_a_failed_trial_that_the_search_survives(
    recorded: Read, local: Options, root: Path, tmp_path: Path, trials: int
) -> None:
    """With optuna's catch, the trial is FAILED and the search FINISHED, also where it was the last one."""
    callback = MLOpsCallback(run_name="search", **local)
    fit = searching(tmp_path, callback, FailingOnce(ValueError("no such digit")))
    search(fit, trials=trials, catch=(ValueError,))
    statuses = {name: run.ending.status for name, run in runs(recorded, root).items()}
    assert {"search-1"} == {name for name, status in statuses.items() if status == "FAILED"}
    assert trials == list(statuses.values()).count("FINISHED")


def test_an_interrupted_search(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """Ctrl-C leaves the trial and the search open, for the end of the process to tell."""
    callback = MLOpsCallback(run_name="search", **local)
    with pytest.raises(KeyboardInterrupt):
        search(searching(tmp_path, callback, FailingOnce(KeyboardInterrupt())))
    found = runs(recorded, root)
    assert {"search", "search-1"} == {name for name, run in found.items() if run.ending is None}


def test_a_search_within_a_given_run(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """The trials are children of the user's run, in its experiment, and it is left open."""
    with mlops.start_run(run_name="mine", experiment_name="digits", **local) as run:
        search(searching(tmp_path, MLOpsCallback(run=run)))
        assert run.is_open
    found = runs(recorded, root)
    assert {"mine", "mine-0", "mine-1"} == set(found)
    assert {"digits"} == {each.spec.experiment_name for each in found.values()}
    assert [run.uid] * 2 == [found[name].spec.parent for name in ("mine-0", "mine-1")]


def test_names_of_trials(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """A name that the user gives a trial is its run's, and its checkpoints are found there."""
    callback = MLOpsCallback(run_name="search", log_checkpoints=True, **local)
    fit = searching(tmp_path, callback, save_strategy="steps", save_steps=2)
    search(fit, trials=1, hp_name=lambda trial: f"try-{trial.number}")
    callback.run.finish()
    found = runs(recorded, root)
    assert {"search", "try-0"} == set(found)
    (trial,) = root.glob("*-try-0-*")
    assert (trial / "artifacts" / "checkpoints" / "checkpoint-4" / "trainer_state.json").is_file()


def test_a_pruned_training_of_the_users_own_search(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Without the Trainer's search, a training that optuna prunes is marked too."""
    callback = MLOpsCallback(**local)
    with pytest.raises(optuna.TrialPruned):
        trainer(tmp_path, callback, tiny_trainer.Failing(optuna.TrialPruned())).train()
    run = recorded(callback.run.directory)
    assert "true" == run.tags["mlops.pruned"]
    assert "FINISHED" == run.ending.status
