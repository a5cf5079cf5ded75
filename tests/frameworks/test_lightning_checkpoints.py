"""Checkpoints as artifacts: which are recorded when, under which name, and that the user's own stay as they are."""

from __future__ import annotations

import gc
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

lightning = pytest.importorskip("lightning")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from lightning_classifier import Classifier, batches, trainer  # noqa: E402
from mlops_integrations.lightning import MLOpsLogger  # noqa: E402
from mlops_integrations.recording import background  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on data loaders is of no use here


def fit(logger: Any, *callbacks: Any, epochs: int = 3, error: BaseException | None = None) -> Any:
    """Train with these ModelCheckpoints; the trainer."""
    model = Classifier()
    model.error = error
    fitting = trainer(logger, epochs, callbacks=list(callbacks), enable_checkpointing=True)
    fitting.fit(model, batches(), batches())
    return fitting


def artifacts(logger: Any) -> dict[str, bytes]:
    """What is kept of the run's artifacts, once all is copied: paths and contents."""
    assert background.wait(30)
    store = logger.run.directory / "artifacts"
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def files(directory: Path, folder: str = "checkpoints") -> dict[str, bytes]:
    """The user's own checkpoints, by the names that they would have as artifacts."""
    return {
        f"{folder}/{path.relative_to(directory)}": path.read_bytes()
        for path in directory.rglob("*.ckpt")
        if not path.is_symlink()
    }


class Rising(lightning.Callback):
    """A user's callback that logs a score which rises from 1 with each epoch."""

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("score", trainer.current_epoch + 1.0)


def test_no_checkpoint_is_recorded_unasked(recorded: Read, local: Options) -> None:
    """By default checkpoints are files of the user, and nothing else."""
    logger = MLOpsLogger(**local)
    fit(logger)
    assert {} == artifacts(logger)
    assert not [name for name in recorded(logger.run.directory).tags if name.startswith("mlops.checkpoints")]


def test_those_that_are_left_at_the_end(recorded: Read, local: Options, tmp_path: Path) -> None:
    """log_model=True records the best ones and the last one when fit ends, with their scores and what they are."""
    logger = MLOpsLogger(log_model=True, **local)
    saver = ModelCheckpoint(tmp_path / "mine", monitor="score", mode="max", save_top_k=2, save_last=True)
    fitting = fit(logger, Rising(), saver)
    own = files(tmp_path / "mine")
    assert 3 == len(own)
    assert own == artifacts(logger)
    tags = recorded(logger.run.directory).tags
    best = Path(saver.best_model_path).name
    assert "epoch=2-step=24.ckpt" == best
    expected = {
        "mlops.checkpoints.best": f"checkpoints/{best}",
        "mlops.checkpoints.latest": "checkpoints/last.ckpt",
        "mlops.checkpoints.monitor": "score (max)",
    }
    assert expected == {name: tags[name] for name in expected}
    scores = json.loads(tags["mlops.checkpoints.scores"])
    assert [(best, 3.0), ("epoch=1-step=16.ckpt", 2.0)] == list(scores.items())
    fitting.test(Classifier(), batches(), verbose=False)
    assert own == artifacts(logger) == files(tmp_path / "mine")


def test_every_one(recorded: Read, local: Options, tmp_path: Path) -> None:
    """log_model="all" records each checkpoint when it is saved, also those that Lightning deletes later."""
    seen: dict[str, bytes] = {}

    class Watching(ModelCheckpoint):
        def _save_checkpoint(self, trainer: Any, filepath: str) -> None:
            super()._save_checkpoint(trainer, filepath)
            seen[f"checkpoints/{Path(filepath).name}"] = Path(filepath).read_bytes()

    logger = MLOpsLogger(log_model="all", **local)
    fit(logger, Rising(), Watching(tmp_path / "mine", monitor="score", mode="max", save_top_k=1))
    assert 3 == len(seen)
    assert seen == artifacts(logger)
    assert 1 == len(files(tmp_path / "mine"))
    run = recorded(logger.run.directory)
    assert "checkpoints/epoch=2-step=24.ckpt" == run.tags["mlops.checkpoints.best"]
    assert {} == run.losses


@pytest.mark.parametrize("log_model", [True, "all"])
def test_without_a_score_there_is_no_best(recorded: Read, local: Options, tmp_path: Path, log_model: Any) -> None:
    """A ModelCheckpoint that monitors nothing has a latest one only, which is the one that it overwrites."""
    logger = MLOpsLogger(log_model=log_model, **local)
    fit(logger, ModelCheckpoint(tmp_path / "mine", filename="only", enable_version_counter=False))
    assert files(tmp_path / "mine") == artifacts(logger)
    tags = recorded(logger.run.directory).tags
    named = {name: value for name, value in tags.items() if name.startswith("mlops.checkpoints")}
    assert {"mlops.checkpoints.latest": "checkpoints/only.ckpt"} == named


def test_a_link_is_the_file_that_it_leads_to(recorded: Read, local: Options, tmp_path: Path) -> None:
    """With save_last="link" the last checkpoint is recorded once, under its own name."""
    logger = MLOpsLogger(log_model=True, **local)
    fit(logger, ModelCheckpoint(tmp_path / "mine", monitor="val/loss", save_top_k=-1, save_last="link"))
    own = files(tmp_path / "mine")
    assert 3 == len(own)
    assert own == artifacts(logger)
    assert "checkpoints/epoch=2-step=24.ckpt" == recorded(logger.run.directory).tags["mlops.checkpoints.latest"]


def test_two_savers_do_not_mix(recorded: Read, local: Options, tmp_path: Path) -> None:
    """Checkpoints of a second ModelCheckpoint have a folder and tags of their own; directories within are kept."""
    logger = MLOpsLogger(log_model=True, **local)
    name = "{epoch}/{val/loss:.1f}"
    first = ModelCheckpoint(tmp_path / "a", filename=name, monitor="val/loss", save_top_k=1, mode="min")
    second = ModelCheckpoint(tmp_path / "b", filename="{epoch}", every_n_epochs=3)
    fit(logger, first, second)
    assert {**files(tmp_path / "a"), **files(tmp_path / "b", "checkpoints-2")} == artifacts(logger)
    tags = recorded(logger.run.directory).tags
    inner = Path(first.best_model_path).relative_to(tmp_path / "a")
    assert 1 < len(inner.parts)
    assert f"checkpoints/{inner}" == tags["mlops.checkpoints.best"]
    assert "checkpoints-2/epoch=2.ckpt" == tags["mlops.checkpoints-2.latest"]


def test_a_training_that_fails_has_checkpoints(recorded: Read, local: Options, tmp_path: Path) -> None:
    """What was saved before the failure is recorded; the run is FAILED."""

    class Failing(lightning.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                raise ValueError("no such digit")

    logger = MLOpsLogger(log_model=True, **local)
    saver = ModelCheckpoint(tmp_path / "mine", monitor="val/loss", save_top_k=-1)
    with pytest.raises(ValueError, match="no such digit"):
        fit(logger, saver, Failing())
    assert 2 == len(artifacts(logger))
    assert files(tmp_path / "mine") == artifacts(logger)
    assert "FAILED" == recorded(logger.run.directory).ending.status


def test_a_trainer_that_is_gone(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A logger that outlives its trainer, and the trainer's ModelCheckpoint, can be pickled, and records the next's."""
    logger = MLOpsLogger(log_model=True, **local)
    fit(logger, ModelCheckpoint(tmp_path / "a"), epochs=1)
    gc.collect()
    assert logger.run.uid == pickle.loads(pickle.dumps(logger)).run.uid
    fit(logger, ModelCheckpoint(tmp_path / "b"), epochs=1)
    assert {**files(tmp_path / "a"), **files(tmp_path / "b", "checkpoints-2")} == artifacts(logger)
    run = recorded(logger.run.directory)
    assert ("FINISHED", {}) == (run.ending.status, run.losses)


def test_checkpoints_elsewhere_are_left_alone(recorded: Read, local: Options, tmp_path: Path) -> None:
    """A ModelCheckpoint that saves over the network, or has deleted what it names, loses nothing and says nothing."""
    saver = ModelCheckpoint(tmp_path / "mine", monitor="val/loss")
    saver.best_model_path = saver.last_model_path = "s3://bucket/epoch=1.ckpt"
    saver.best_k_models = {"s3://bucket/epoch=1.ckpt": 0.5, str(tmp_path / "mine" / "gone.ckpt"): 0.25}
    logger = MLOpsLogger(log_model=True, **local)
    logger.after_save_checkpoint(saver)
    logger.finalize("success")
    assert {} == artifacts(logger)
    assert {} == recorded(logger.run.directory).losses
