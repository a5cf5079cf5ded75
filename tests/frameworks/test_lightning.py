"""Real trainings with Lightning, read back from the journal and compared with what the module logged."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

lightning = pytest.importorskip("lightning")
import torch  # noqa: E402
from lightning.fabric import Fabric  # noqa: E402
from lightning.pytorch.utilities.exceptions import SIGTERMException  # noqa: E402

from lightning_classifier import BATCHES, Chatty, Classifier, batches, trainer  # noqa: E402
from mlops_integrations.lightning import MLOpsLogger  # noqa: E402

Read = Callable[[Path], Any]
Options = Mapping[str, str]

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on data loaders is of no use here


def test_what_the_module_logs_is_recorded(recorded: Read, local: Options) -> None:
    """Every value is in the journal at Lightning's step, the epochs and the validation too."""
    logger, model = MLOpsLogger(**local), Classifier()
    fitting = trainer(logger)
    fitting.fit(model, batches(), batches())
    run = recorded(logger.run.directory)
    assert model.logged == run.curve("train/loss")
    assert 2 * BATCHES == len(model.logged)
    assert [BATCHES - 1, 2 * BATCHES - 1] == [step for step, _ in run.curve("val/loss")]
    assert fitting.callback_metrics["val/loss"].item() == run.curve("val/loss")[-1][1]
    assert {"train/loss", "val/loss", "epoch"} == run.keys
    assert {} == run.losses


@dataclasses.dataclass
class Schedule:
    """A user's options."""

    warmup: int
    decay: float = 0.5


def test_hyperparameters_of_any_kind_are_parameters(recorded: Read, local: Options) -> None:
    """What save_hyperparameters keeps is recorded: numbers, nested mappings, functions, tensors."""
    options = {
        "width": 3,
        "activation": torch.nn.ReLU,
        "initialize": torch.nn.init.zeros_,
        "weights": torch.tensor([1.0, 2.0]),
        "schedule": Schedule(warmup=5),
    }
    logger = MLOpsLogger(params={"batch_size": 16}, tags={"team": "vision"}, **local)
    trainer(logger, epochs=1).fit(Classifier(learning_rate=0.25, options=options), batches())
    run = recorded(logger.run.directory)
    expected = {
        "batch_size": "16",
        "learning_rate": "0.25",
        "options/width": "3",
        "options/activation": "torch.nn.modules.activation.ReLU",
        "options/initialize": "torch.nn.init.zeros_",
        "options/schedule/warmup": "5",
        "options/schedule/decay": "0.5",
        "options/weights": "tensor([1., 2.])",
    }
    assert expected == run.params
    assert "vision" == run.tags["team"]


@pytest.mark.parametrize(
    "params", [Namespace(depth=3, _instantiator="x"), {"depth": 3, "_instantiator": "x"}], ids=["namespace", "mapping"]
)
def test_hyperparameters_come_in_any_container(recorded: Read, local: Options, params: Any) -> None:
    """A Namespace is as good as a mapping; what LightningCLI adds for itself is left out."""
    logger = MLOpsLogger(**local)
    logger.log_hyperparams(params)
    logger.log_hyperparams(params, "more", metrics={})
    logger.log_hyperparams(None)
    run = recorded(logger.run.directory)
    assert {"depth": "3"} == run.params
    assert {} == run.losses


def test_arguments_have_lightnings_names(recorded: Read, local: Options) -> None:
    """Lightning calls by keyword; without a step the values are numbered on."""
    logger = MLOpsLogger(**local)
    logger.log_metrics(metrics={"loss": 0.5}, step=3)
    logger.log_metrics(metrics={"loss": 0.25})
    logger.log_hyperparams(params={"depth": 3})
    logger.log_graph(model=None, input_array=None)
    logger.save()
    logger.finalize(status="success")
    run = recorded(logger.run.directory)
    assert [(3, 0.5), (4, 0.25)] == run.curve("loss")
    assert "FINISHED" == run.ending.status


def test_a_normal_end_is_finished(recorded: Read, local: Options) -> None:
    """When fit returns, the run is FINISHED in its journal."""
    logger = MLOpsLogger(**local)
    trainer(logger).fit(Classifier(), batches())
    run = recorded(logger.run.directory)
    assert ("FINISHED", None) == (run.ending.status, run.ending.reason)
    assert 1 == run.journals


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no such digit"), "FAILED", "ValueError: no such digit"),
        (SystemExit(3), "FAILED", "exit code 3"),
        (SystemExit(0), "FINISHED", None),
    ],
    ids=["exception", "exit 3", "exit 0"],
)
def test_what_leaves_fit_is_the_status(
    recorded: Read, local: Options, error: BaseException, status: str, reason: str | None
) -> None:
    """An exception that leaves fit is the run's status and reason; everything before it is recorded."""
    logger, model = MLOpsLogger(**local), Classifier()
    model.error = error
    with pytest.raises(type(error)):
        trainer(logger).fit(model, batches())
    run = recorded(logger.run.directory)
    assert (status, reason) == (run.ending.status, run.ending.reason)
    assert model.logged[:4] == run.curve("train/loss")


def test_an_exception_before_the_first_step_is_recorded(recorded: Read, local: Options) -> None:
    """A training that fails in its preparation is a failed run, too."""

    class Unprepared(Classifier):
        def prepare_data(self) -> None:
            raise OSError("no such file")

    logger = MLOpsLogger(**local)
    with pytest.raises(OSError, match="no such file"):
        trainer(logger).fit(Unprepared(), batches())
    run = recorded(logger.run.directory)
    assert ("FAILED", "OSError: no such file") == (run.ending.status, run.ending.reason)


def test_fit_then_test_is_one_run(recorded: Read, local: Options) -> None:
    """A test after fit is recorded in the same run, which is FINISHED after each."""
    logger, model = MLOpsLogger(**local), Classifier()
    fitting = trainer(logger)
    fitting.fit(model, batches())
    directory = logger.run.directory
    (tested,) = fitting.test(model, batches(), verbose=False)
    run = recorded(directory)
    assert directory == logger.run.directory
    assert [(2 * BATCHES, tested["test/loss"])] == run.curve("test/loss")
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


def test_a_test_that_fails_makes_the_run_failed(recorded: Read, local: Options) -> None:
    """A run that fit has ended is not left FINISHED when the test that follows raises before it logs."""
    logger, model = MLOpsLogger(**local), Classifier()
    fitting = trainer(logger, epochs=1)
    fitting.fit(model, batches())
    model.error, model.fails_in = ValueError("no such digit"), "test"
    with pytest.raises(ValueError, match="no such digit"):
        fitting.test(model, batches(), verbose=False)
    run = recorded(logger.run.directory)
    assert ("FAILED", "ValueError: no such digit") == (run.ending.status, run.ending.reason)


def test_fit_again_goes_on(recorded: Read, local: Options) -> None:
    """A trainer that fits on continues the curves in the same run."""
    logger, model = MLOpsLogger(**local), Classifier()
    fitting = trainer(logger, epochs=1)
    fitting.fit(model, batches())
    fitting.fit_loop.max_epochs = 2
    fitting.fit(model, batches())
    run = recorded(logger.run.directory)
    assert model.logged == run.curve("train/loss")
    assert 2 * BATCHES == len(model.logged)
    assert "FINISHED" == run.ending.status


def test_a_requeued_job_stays_running(recorded: Read, local: Options) -> None:
    """When SLURM takes the job back, the run gets a tag and stays RUNNING, whatever is logged after that."""
    logger = MLOpsLogger(**local)
    logger.log_metrics({"loss": 0.5}, 0)
    logger.finalize("finished")
    logger.log_metrics({"loss": 0.25}, 1)
    try:
        raise SIGTERMException  # noqa: TRY301 - as Lightning does
    except SIGTERMException:
        logger.finalize("failed")
    run = recorded(logger.run.directory)
    assert "true" == run.tags["mlops.requeued"]
    assert "RUNNING" == run.ending.status
    assert [(0, 0.5), (1, 0.25)] == run.curve("loss")


def test_a_given_run_stays_open(recorded: Read, local: Options) -> None:
    """A run given as run= takes the records, and is ended by its owner."""
    model = Classifier()
    with mlops.start_run(**local) as run:
        logger = MLOpsLogger(run=run)
        trainer(logger).fit(model, batches())
        assert run is logger.experiment
        assert run.is_open
    read = recorded(run.directory)
    assert model.logged == read.curve("train/loss")
    assert "FINISHED" == read.ending.status


def test_checkpoints_go_into_the_run_directory(local: Options) -> None:
    """Without a path of its own, ModelCheckpoint saves below the run directory."""
    logger = MLOpsLogger(**local)
    fitting = trainer(logger, enable_checkpointing=True)
    fitting.fit(Classifier(), batches())
    saved = Path(fitting.checkpoint_callback.best_model_path)
    assert saved.is_file()
    assert logger.run.directory in saved.parents
    assert str(logger.run.directory) == fitting.log_dir
    assert (logger.run.name, logger.run.uid) == (logger.name, logger.version)


def test_making_a_logger_and_a_trainer_makes_no_run(root: Path, local: Options) -> None:
    """Nothing is on disk before the training begins."""
    trainer(MLOpsLogger(**local), enable_checkpointing=True)
    assert not root.exists()


def test_other_ranks_record_nothing(root: Path, local: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a rank other than zero nothing is made, whatever Lightning calls and asks."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = MLOpsLogger(**local)
    logger.experiment.log_metrics({"loss": 0.5})
    logger.log_hyperparams({"depth": 3})
    logger.log_graph(None)
    logger.log_metrics({"loss": 0.5}, 0)
    assert logger.name is None
    assert logger.version is None
    assert isinstance(logger.save_dir, str)
    logger.run.log_metrics({"loss": 0.5})
    logger.finalize("success")
    assert not root.exists()


def test_it_can_be_pickled(recorded: Read, local: Options) -> None:
    """A logger that went through pickle records; one with an open run goes on in that run."""
    fresh = pickle.loads(pickle.dumps(MLOpsLogger(**local)))
    fresh.log_metrics({"loss": 0.5}, 0)
    again = pickle.loads(pickle.dumps(fresh))
    again.log_metrics({"loss": 0.25}, 1)
    assert fresh.run.uid == again.run.uid
    assert [(0, 0.5), (1, 0.25)] == recorded(fresh.run.directory).curve("loss")


def test_a_directory_that_is_deleted_does_not_stop_the_training(local: Options, root: Path) -> None:
    """With the run directory gone in the middle, fit goes on to its end, and so does the test after it."""

    class Deleting(lightning.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            shutil.rmtree(root, ignore_errors=True)

    logger, model = MLOpsLogger(**local), Classifier()
    fitting = trainer(logger, callbacks=[Deleting()])
    fitting.fit(model, batches())
    assert 2 * BATCHES == len(model.logged)
    assert fitting.test(model, batches(), verbose=False)[0]["test/loss"] > 0.0


def test_run_and_keywords_together_are_an_error(local: Options) -> None:
    """An open run and keywords for another one contradict each other."""
    with mlops.start_run(**local) as run, pytest.raises(ValueError, match="not both"):
        MLOpsLogger(run=run, experiment_name="digits")


@pytest.mark.swallows
def test_a_failure_of_ours_does_not_stop_the_training(recorded: Read, local: Options) -> None:
    """Hyperparameters that we can't take are counted, and what comes after them is recorded."""
    logger = MLOpsLogger(**local)
    logger.log_hyperparams(5)
    logger.log_metrics({"loss": 0.5}, 0)
    logger.finalize("success")
    run = recorded(logger.run.directory)
    assert [(0, 0.5)] == run.curve("loss")
    assert {"internal error": 1} == run.losses


def test_disabled_records_nothing(root: Path) -> None:
    """With mode="disabled" the training goes on and nothing is written."""
    model = Classifier()
    trainer(MLOpsLogger(mode="disabled")).fit(model, batches())
    assert 2 * BATCHES == len(model.logged)
    assert not root.exists()


def test_what_is_logged_before_the_training_begins_the_run(recorded: Read, local: Options) -> None:
    """Users log through ``experiment`` before fit: the run is there then, with its parameters and tags, and goes on."""
    logger, model = MLOpsLogger(params={"batch_size": 16}, tags={"team": "vision"}, **local), Classifier()
    assert not list(logger.run.directory.iterdir())
    logger.experiment.log_metric("data/size", 128)
    run = recorded(logger.run.directory)
    assert ({"batch_size": "16"}, "vision") == (run.params, run.tags["team"])
    trainer(logger).fit(model, batches())
    run = recorded(logger.run.directory)
    assert [(0, 128.0)] == run.curve("data/size")
    assert model.logged == run.curve("train/loss")
    assert 1 == run.journals


def test_fabric(recorded: Read, local: Options) -> None:
    """A loop of the user's own with Fabric logs through the same logger; who finalizes it says how it ended."""
    logger = MLOpsLogger(**local)
    fabric = Fabric(accelerator="cpu", loggers=logger)
    fabric.launch()
    fabric.logger.log_hyperparams({"lr": 0.1})
    for step in range(3):
        fabric.log_dict({"loss": torch.tensor(1.0) / (step + 1), "lr": 0.1}, step=step)
    fabric.log("accuracy", 0.9)
    fabric.logger.finalize("success")
    run = recorded(logger.run.directory)
    assert [(0, 1.0), (1, 0.5), (2, torch.tensor(1 / 3).item())] == run.curve("loss")
    assert [(0, 0.9)] == run.curve("accuracy")
    assert {"lr": "0.1"} == run.params
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_that_load_data_record_nothing(recorded: Read, local: Options, method: str) -> None:
    """With two workers, forked or spawned, what they log is nowhere, and the training's own records are whole."""
    logger, model = MLOpsLogger(**local), Classifier()
    loader = torch.utils.data.DataLoader(Chatty(logger), batch_size=2, num_workers=2, multiprocessing_context=method)
    trainer(logger, epochs=1).fit(model, loader)
    run = recorded(logger.run.directory)
    assert {"train/loss", "epoch"} == run.keys
    assert model.logged == run.curve("train/loss")
    assert 4 == len(model.logged)
    assert 1 == run.journals
    assert "FINISHED" == run.ending.status


def test_a_test_does_not_mend_a_failure(recorded: Read, local: Options) -> None:
    """A fit that failed, was caught, and was followed by ``test``: the run is FAILED; another fit mends it."""
    logger, model = MLOpsLogger(**local), Classifier()
    model.error = ValueError("no more data")
    with pytest.raises(ValueError, match="no more data"):
        trainer(logger, epochs=1).fit(model, batches())
    model.error = None
    trainer(logger).test(model, batches(), verbose=False)
    assert ("FAILED", "ValueError: no more data") == (
        recorded(logger.run.directory).ending.status,
        recorded(logger.run.directory).ending.reason,
    )
    trainer(logger, epochs=1).fit(model, batches())
    assert "FINISHED" == recorded(logger.run.directory).ending.status
