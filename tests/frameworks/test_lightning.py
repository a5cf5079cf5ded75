"""Real trainings with Lightning, read back from the journal and compared with what the module logged."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

lightning = pytest.importorskip("lightning")
import torch  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from mlops_integrations.lightning import MLOpsLogger  # noqa: E402

IMAGES, LABELS = load_digits(return_X_y=True)
DATA = TensorDataset(torch.from_numpy(IMAGES[:128].astype("float32") / 16), torch.from_numpy(LABELS[:128]))
BATCHES = 8

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., subprocess.CompletedProcess[str]]


class Classifier(lightning.LightningModule):
    """A small network that remembers what it logged, and fails where it is told to."""

    def __init__(self, learning_rate: float = 0.1, options: object = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(64, 10)
        self.logged: list[tuple[int, float]] = []
        self.error: BaseException | None = None
        self.fails_in = "training"

    def loss(self, batch: Any) -> Any:
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.layer(images), labels)

    def fail(self, where: str) -> None:
        if self.error is not None and where == self.fails_in:
            raise self.error

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.logged.append((len(self.logged), loss.item()))
        self.log("train/loss", loss)
        if batch_idx == 4:
            self.fail("training")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.fail("test")
        self.log("test/loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate)


def trainer(logger: Any, epochs: int = 2, **options: Any) -> Any:
    """A Trainer that logs every step and prints nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return lightning.Trainer(
        max_epochs=epochs, logger=logger, log_every_n_steps=1, accelerator="cpu", **{**quiet, **options}
    )


def batches() -> Any:
    """The images in their order."""
    return DataLoader(DATA, batch_size=16)


@pytest.fixture(autouse=True)
def _no_advice() -> Any:
    """Lightning's advice on data loaders is of no use here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_what_the_module_logs_is_recorded(recorded: Read, local: Options) -> None:
    """Every value is in the journal at Lightning's step, the epochs and the validation too."""
    logger, model, fitting = MLOpsLogger(**local), Classifier(), None
    fitting = trainer(logger)
    fitting.fit(model, batches(), batches())
    run = recorded(logger.run.directory)
    assert model.logged == run.curve("train/loss")
    assert 2 * BATCHES == len(model.logged)
    assert [BATCHES - 1, 2 * BATCHES - 1] == [step for step, _ in run.curve("val/loss")]
    assert fitting.callback_metrics["val/loss"].item() == run.curve("val/loss")[-1][1]
    assert {"train/loss", "val/loss", "epoch"} == run.keys
    assert {} == run.losses


def test_hyperparameters_of_any_kind_are_parameters(recorded: Read, local: Options) -> None:
    """What save_hyperparameters keeps is recorded: numbers, nested mappings, functions, tensors."""
    options = {"width": 3, "activation": torch.nn.ReLU, "weights": torch.tensor([1.0, 2.0])}
    logger = MLOpsLogger(params={"batch_size": 16}, tags={"team": "vision"}, **local)
    trainer(logger, epochs=1).fit(Classifier(learning_rate=0.25, options=options), batches())
    run = recorded(logger.run.directory)
    expected = {
        "batch_size": "16",
        "learning_rate": "0.25",
        "options/width": "3",
        "options/activation": str(torch.nn.ReLU),
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
    """When SLURM takes the job back, the run gets a tag and no end."""
    logger = MLOpsLogger(**local)
    logger.log_metrics({"loss": 0.5}, 0)
    logger.finalize("finished")
    run = recorded(logger.run.directory)
    assert "true" == run.tags["mlops.requeued"]
    assert run.ending is None


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


SCRIPT = """
import contextlib, os, signal, sys, warnings
import lightning, torch
import mlops_integrations as mlops
from mlops_integrations.lightning import MLOpsLogger
warnings.simplefilter('ignore')

class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        self.log('loss', float(batch_idx))
        if batch_idx == 5:
            {how}
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

how, options = sys.argv[1], dict(mode='offline', uploader='thread')
run = mlops.start_run(**options) if how in ('given', 'with') else None
logger = {{'plain': False, 'own': MLOpsLogger(**options)}}.get(how) if run is None else MLOpsLogger(run=run)
trainer = lightning.Trainer(max_epochs=1, logger=logger, log_every_n_steps=1, accelerator='cpu',
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
with run if how == 'with' else contextlib.nullcontext():
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(10, 2)))
"""

INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"
TERMINATE = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.fixture(scope="module")
def without_us(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[int, list[str]]]:
    """Exit code and what stands on stderr without any logger, for each way to end."""
    import sys

    known: dict[str, tuple[int, list[str]]] = {}

    def ask(how: str) -> tuple[int, list[str]]:
        if how not in known:
            script = tmp_path_factory.mktemp("plain") / "train.py"
            script.write_text(SCRIPT.format(how=how))
            done = subprocess.run(
                [sys.executable, str(script), "plain"], capture_output=True, text=True, timeout=200, check=False
            )
            known[how] = done.returncode, lines(done.stderr, script)
        return known[how]

    return ask


def lines(stderr: str, script: Path) -> list[str]:
    """What stands on stderr, without our lines and the script's place."""
    return [line.replace(str(script), "train.py") for line in stderr.splitlines() if not line.startswith("mlops:")]


@pytest.mark.parametrize("whose", ["own", "given", "with"])
@pytest.mark.parametrize(
    ("how", "reason", "points"), [(INTERRUPT, "SIGINT", 5), (TERMINATE, "SIGTERM", 6)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_that_lightning_handles_is_recorded(
    recorded: Read,
    train: Train,
    root: Path,
    tmp_path: Path,
    without_us: Callable[[str], tuple[int, list[str]]],
    how: str,
    reason: str,
    points: int,
    whose: str,
) -> None:
    """Ctrl-C and SIGTERM are KILLED, though Lightning exits with 1 and 0; exit code and output are as without us."""
    ours = train(SCRIPT.format(how=how), whose)
    read = recorded((root / "latest").resolve())
    assert ("KILLED", reason) == (read.ending.status, read.ending.reason)
    assert points == len(read.curve("loss"))
    assert without_us(how) == (ours.returncode, lines(ours.stderr, tmp_path / "train.py"))


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


def test_without_lightning_the_extra_is_named(train: Train) -> None:
    """Where Lightning is missing in both forms, importing the door says in one line what to install."""
    missing = "sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None"
    done = train(f"import sys; {missing}; import mlops_integrations.lightning")
    assert 'ImportError: Lightning is not installed: pip install "mlops-integrations[lightning]"' in done.stderr
    assert 1 == done.stderr.count("Traceback")


def test_with_pytorch_lightning_alone_the_door_opens(train: Train) -> None:
    """Where only pytorch_lightning is there, the logger is one of its loggers."""
    pytest.importorskip("pytorch_lightning")
    done = train(
        "import sys; sys.modules['lightning'] = None\n"
        "import pytorch_lightning.loggers, mlops_integrations.lightning as door\n"
        "print(issubclass(door.MLOpsLogger, pytorch_lightning.loggers.Logger))"
    )
    assert "True\n" == done.stdout


def test_disabled_records_nothing(root: Path) -> None:
    """With mode="disabled" the training goes on and nothing is written."""
    model = Classifier()
    trainer(MLOpsLogger(mode="disabled")).fit(model, batches())
    assert 2 * BATCHES == len(model.logged)
    assert not root.exists()


def test_the_other_package_takes_the_logger(recorded: Read, local: Options) -> None:
    """A Trainer of pytorch_lightning records through the same logger."""
    package = pytest.importorskip("pytorch_lightning")

    class Model(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)

        def training_step(self, batch: Any) -> Any:
            loss = self.layer(batch[0]).sum()
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    logger = MLOpsLogger(**local)
    fitting = package.Trainer(
        max_epochs=1, logger=logger, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False
    )
    fitting.fit(Model(), batches())
    run = recorded(logger.run.directory)
    assert BATCHES == len(run.curve("train/loss"))
    assert "FINISHED" == run.ending.status
