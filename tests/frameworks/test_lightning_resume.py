"""MLOpsCallback: a trainer gets its logger, and a checkpoint names the run that goes on with it."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

lightning = pytest.importorskip("lightning")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from lightning.pytorch.strategies import SingleDeviceStrategy  # noqa: E402

from lightning_classifier import BATCHES, Classifier, batches, trainer  # noqa: E402
from mlops_integrations.journal.records import Metrics, Params  # noqa: E402
from mlops_integrations.lightning import MLOpsCallback, MLOpsLogger  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on data loaders is of no use here


class Telling(SingleDeviceStrategy):
    """A strategy that remembers what the processes told each other."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        self.told = [*getattr(self, "told", []), obj]
        return obj


class RestoringLate(SingleDeviceStrategy):
    """A strategy that reads checkpoints when all else is set up, as those do that split a model."""

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True


def run_directories(root: Path) -> list[str]:
    """What lies in a root, without the link to the latest."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink())


def fit(*callbacks: Any, logger: Any = False, epochs: int = 1, ckpt_path: Any = None, **options: Any) -> Any:
    """Train on real images; the trainer and the model."""
    model = Classifier()
    fitting = trainer(logger, epochs, callbacks=list(callbacks), enable_checkpointing=True, **options)
    fitting.fit(model, batches(), batches(), ckpt_path=ckpt_path)
    return fitting, model


def test_a_trainer_without_a_logger_gets_one(recorded: Read, local: Options) -> None:
    """With logger=False the callback records fit and the test after it, in one run, which each of them ends."""
    callback = MLOpsCallback(params={"batch_size": 16}, **local)
    fitting, model = fit(callback)
    run = recorded(callback.run.directory)
    assert model.logged == run.curve("train/loss")
    assert {"batch_size": "16", "learning_rate": "0.1", "options": "None"} == run.params
    assert "FINISHED" == run.ending.status
    (tested,) = fitting.test(model, batches(), verbose=False)
    assert [(BATCHES, tested["test/loss"])] == recorded(callback.run.directory).curve("test/loss")
    assert 1 == len(fitting.loggers)


def test_other_loggers_stay(recorded: Read, local: Options, tmp_path: Path) -> None:
    """The callback's logger comes after the user's own, whose list is as it was."""
    own = [CSVLogger(str(tmp_path / "csv"))]
    callback = MLOpsCallback(**local)
    fitting, model = fit(callback, logger=own)
    assert 1 == len(own)
    assert [own[0], MLOpsLogger] == [fitting.loggers[0], type(fitting.loggers[1])]
    assert model.logged == recorded(callback.run.directory).curve("train/loss")


def test_a_logger_that_is_there_is_used(recorded: Read, local: Options, root: Path) -> None:
    """With both a logger and a callback of ours, there is one run, of which the callback knows."""
    logger, callback = MLOpsLogger(**local), MLOpsCallback()
    fitting, model = fit(callback, logger=logger)
    assert [logger] == fitting.loggers
    assert logger.run is callback.run
    assert model.logged == recorded(logger.run.directory).curve("train/loss")
    assert 1 == len(run_directories(root))


def test_two_callbacks_make_one_run(recorded: Read, local: Options, root: Path) -> None:
    """A second callback uses the logger of the first."""
    first, second = MLOpsCallback(**local), MLOpsCallback()
    _, model = fit(first, second)
    assert first.run is second.run
    assert model.logged == recorded(first.run.directory).curve("train/loss")
    assert 1 == len(run_directories(root))


def test_what_is_not_used_is_said(local: Options, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that was given how to record, beside a logger that was as well, says which of them counts."""
    callback = MLOpsCallback(run_name="unused", **local)
    fitting, model = fit(callback, logger=MLOpsLogger(run_name="used", **local))
    fitting.test(model, batches(), verbose=False)
    assert "used" == callback.run.name
    assert 1 == caplog.text.count("the arguments of this MLOpsCallback are ignored")


def test_a_given_run_and_a_given_logger(recorded: Read, local: Options) -> None:
    """A callback takes an open run, which stays open, or a logger."""
    with mlops.start_run(**local) as run:
        fit(MLOpsCallback(run))
        assert run.is_open
    assert BATCHES == len(recorded(run.directory).curve("train/loss"))
    logger = MLOpsLogger(**local)
    fitting, _ = fit(MLOpsCallback(logger=logger))
    assert [logger] == fitting.loggers


def test_contradictions_are_errors(local: Options) -> None:
    """Said when the callback is made: a logger that is none of ours, and a logger beside what makes one."""
    with pytest.raises(TypeError, match="takes an MLOpsLogger, not CSVLogger"):
        MLOpsCallback(logger=CSVLogger("csv"))
    with pytest.raises(ValueError, match="not both: log_model, mode"):
        MLOpsCallback(logger=MLOpsLogger(**local), log_model=True, mode="offline")
    with pytest.raises(ValueError, match='use False, True or "all"'):
        MLOpsCallback(log_model="some")  # type: ignore[arg-type]


def test_a_trial_run_is_not_recorded(root: Path, local: Options) -> None:
    """fast_dev_run switches loggers off, and this one too."""
    _, model = fit(MLOpsCallback(**local), fast_dev_run=2)
    assert 2 == len(model.logged)
    assert not root.exists()


def test_a_failure_before_the_logger_is_there(recorded: Read, local: Options) -> None:
    """A training that fails in its preparation, before the callback can add the logger, is a failed run, too."""

    class Unprepared(Classifier):
        def prepare_data(self) -> None:
            raise OSError("no such file")

    callback = MLOpsCallback(**local)
    with pytest.raises(OSError, match="no such file"):
        trainer(False, callbacks=[callback]).fit(Unprepared(), batches())
    run = recorded(callback.run.directory)
    assert ("FAILED", "OSError: no such file") == (run.ending.status, run.ending.reason)


def test_a_failure_later(recorded: Read, local: Options) -> None:
    """What leaves fit is told once, by the logger."""
    callback, model = MLOpsCallback(**local), Classifier()
    model.error = ValueError("no such digit")
    with pytest.raises(ValueError, match="no such digit"):
        trainer(False, callbacks=[callback]).fit(model, batches())
    run = recorded(callback.run.directory)
    assert ("FAILED", "ValueError: no such digit") == (run.ending.status, run.ending.reason)
    assert 1 == run.journals


@pytest.mark.parametrize("how", ["callback", "both", "late"])
def test_a_checkpoint_continues_its_run(recorded: Read, local: Options, root: Path, how: str) -> None:
    """Fitting on from a checkpoint, with objects that know of nothing, is the same run and one run directory.

    Also with a strategy that reads the checkpoint after it has told the hyperparameters.
    """

    def once(epochs: int, ckpt_path: Any) -> Any:
        logger = MLOpsLogger(**local) if how == "both" else False
        callback = MLOpsCallback() if how == "both" else MLOpsCallback(**local)
        options = {"strategy": RestoringLate(device="cpu")} if how == "late" else {}
        saver = ModelCheckpoint(monitor="val/loss", save_top_k=2)
        _, model = fit(saver, callback, logger=logger, epochs=epochs, ckpt_path=ckpt_path, **options)
        return callback.run, saver, model

    first, saved, before = once(1, None)
    second, saver, after = once(3, saved.best_model_path)
    assert first.uid == second.uid
    assert [first.directory.name] == run_directories(root)
    assert first.directory == (root / "latest").resolve()
    run = recorded(first.directory)
    assert before.logged + after.logged == run.curve("train/loss")
    assert list(range(3 * BATCHES)) == [step for step, _ in run.curve("train/loss")]
    assert 2 == run.journals
    assert "FINISHED" == run.ending.status
    assert {} == run.losses
    # What Lightning keeps of the best checkpoints goes on as well, in the same place.
    assert saved.dirpath == saver.dirpath
    assert 2 == len(saver.best_k_models)
    assert all(first.directory in Path(path).parents for path in saver.best_k_models)


def test_hyperparameters_are_there_when_the_training_begins(local: Options, read: Callable[[Path], Any]) -> None:
    """Also with a strategy that reads checkpoints late: until then it is not known which run they belong to."""
    callback = MLOpsCallback(**local)
    fit(callback, strategy=RestoringLate(device="cpu"))
    kinds = [type(record) for record in read(callback.run.directory)]
    assert 1 == kinds.count(Params)
    assert kinds.index(Params) < kinds.index(Metrics)


def test_without_the_callback_it_is_a_new_run(local: Options, root: Path) -> None:
    """A logger alone does not know the checkpoint's run, and records a new one."""
    fitting, _ = fit(MLOpsCallback(**local))
    fit(logger=MLOpsLogger(**local), epochs=2, ckpt_path=fitting.checkpoint_callback.best_model_path)
    assert 2 == len(run_directories(root))


def test_what_the_user_says_wins_over_the_checkpoint(recorded: Read, local: Options) -> None:
    """With another experiment named, or another run to resume, or a run that was logged to, that is recorded."""
    fitting, _ = fit(MLOpsCallback(**local))
    path = fitting.checkpoint_callback.best_model_path
    uid = torch_load(path)["mlops_integrations"]["uid"]
    with mlops.start_run(**local) as other:
        pass
    elsewhere, resumed, begun = (
        MLOpsCallback(experiment_name="elsewhere", **local),
        MLOpsCallback(resume=other, **local),
        MLOpsCallback(**local),
    )
    begun.run.log_metric("data/size", 128)
    for callback in (elsewhere, resumed, begun):
        fit(callback, epochs=2, ckpt_path=path)
        assert uid != callback.run.uid
        assert BATCHES == len(recorded(callback.run.directory).curve("train/loss"))
    assert other.uid == resumed.run.uid


def test_a_checkpoint_whose_run_is_gone(recorded: Read, local: Options, root: Path, tmp_path: Path) -> None:
    """Where the run directory is not at hand, nor its id on a server known, it is a new run, and training goes on."""
    fitting, _ = fit(MLOpsCallback(**local))
    path = shutil.copy(fitting.checkpoint_callback.best_model_path, tmp_path / "kept.ckpt")
    shutil.rmtree(root)
    callback = MLOpsCallback(**local)
    _, model = fit(callback, epochs=2, ckpt_path=path)
    assert model.logged == recorded(callback.run.directory).curve("train/loss")
    assert [callback.run.directory.name] == run_directories(root)


@pytest.mark.swallows
def test_a_checkpoint_with_something_else_under_our_name(recorded: Read, local: Options, tmp_path: Path) -> None:
    """What we can't read there is counted, the training goes on in a new run, and other processes wait for nothing."""

    class Foreign(lightning.Callback):
        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
            checkpoint["mlops_integrations"] = {"run": 5}

    fitting, _ = fit(Foreign())
    callback, strategy = MLOpsCallback(**local), Telling(device="cpu")
    path = fitting.checkpoint_callback.best_model_path
    _, model = fit(callback, epochs=2, ckpt_path=path, strategy=strategy)
    run = recorded(callback.run.directory)
    assert model.logged == run.curve("train/loss")
    assert {"internal error": 1} == run.losses
    assert [] in strategy.told


def test_checkpoints_hold_plain_values(local: Options) -> None:
    """What we put into a checkpoint is text, which the strictest loading takes; without the callback there is none."""
    fitting, _ = fit(MLOpsCallback(**local))
    named = torch_load(fitting.checkpoint_callback.best_model_path)["mlops_integrations"]
    assert {"uid", "run_id"} == set(named)
    assert all(value is None or type(value) is str for value in named.values())
    without, _ = fit(logger=MLOpsLogger(**local))
    assert "mlops_integrations" not in torch_load(without.checkpoint_callback.best_model_path)


def test_it_can_be_pickled(recorded: Read, local: Options) -> None:
    """A callback that went through pickle records, and so does one that has trained."""
    callback = pickle.loads(pickle.dumps(MLOpsCallback(log_model="all", **local)))
    fit(callback)
    again = pickle.loads(pickle.dumps(callback))
    fit(again, epochs=2)
    assert callback.run.uid == again.run.uid
    assert 3 * BATCHES == len(recorded(callback.run.directory).curve("train/loss"))


def torch_load(path: str) -> Any:
    """A checkpoint, read as strictly as torch can."""
    import torch

    return torch.load(path, weights_only=True)
