"""``autolog()`` and the other frameworks: what they offer for it, a callback of ours that is there, and undoing it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., "subprocess.CompletedProcess[str]"]
Runs = Callable[[], list[Any]]

METADATA = """\
[lightning.pytorch.callbacks_factory]
mlops_integrations = mlops_integrations.autologging.entry_points:trainer_callbacks
[pytorch_lightning.callbacks_factory]
mlops_integrations = mlops_integrations.autologging.entry_points:trainer_callbacks
[lightning.fabric.callbacks_factory]
mlops_integrations = mlops_integrations.autologging.entry_points:fabric_callbacks
[lightning_fabric.callbacks_factory]
mlops_integrations = mlops_integrations.autologging.entry_points:fabric_callbacks
"""
"""What an installation of the package has in its metadata; that it has is tested elsewhere."""


@pytest.fixture(autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's entry points are found, also where it runs from its sources."""
    try:
        importlib.metadata.distribution("mlops-integrations")
    except importlib.metadata.PackageNotFoundError:
        site = tmp_path_factory.mktemp("site")
        metadata = site / "mlops_integrations-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mlops-integrations\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(METADATA)
        monkeypatch.syspath_prepend(site)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(autouse=True)
def _off_afterwards() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' advice is of no use here
        yield
    mlops.autolog(disable=True)


@pytest.fixture
def runs(root: Path, recorded: Read) -> Runs:
    """Reads all runs of this test, the first one first."""

    def read() -> list[Any]:
        directories = [path for path in root.glob("*") if path.is_dir() and not path.is_symlink()]
        return sorted((recorded(path) for path in directories), key=lambda run: run.spec.start_time)

    return read


# -- Lightning --------------------------------------------------------------------------------------------------------


@pytest.fixture
def digits() -> Any:
    """Lightning's training, if it is installed."""
    pytest.importorskip("lightning")
    import lightning_classifier

    return lightning_classifier


def test_lightning(runs: Runs, local: Options, digits: Any) -> None:
    """A Trainer without any logger is recorded: fit, then test, as one run."""
    mlops.autolog(experiment_name="digits", **local)
    model = digits.Classifier()
    fitting = digits.trainer(False)
    fitting.fit(model, digits.batches())
    fitting.test(model, digits.batches(), verbose=False)
    (run,) = runs()
    assert model.logged == run.curve("train/loss")
    assert 1 == len(run.curve("test/loss"))
    assert ("digits", "FINISHED") == (run.spec.experiment_name, run.ending.status)
    assert "0.1" == run.params["learning_rate"]
    assert {} == run.losses


def test_a_trainer_of_lightning_that_fails(runs: Runs, local: Options, digits: Any) -> None:
    """The user's exception, unchanged, is the run's status."""
    mlops.autolog(**local)
    model = digits.Classifier()
    model.error = ValueError("no such digit")
    with pytest.raises(ValueError, match="no such digit") as caught:
        digits.trainer(False).fit(model, digits.batches())
    assert model.error is caught.value
    (run,) = runs()
    assert ("FAILED", "ValueError: no such digit") == (run.ending.status, run.ending.reason)


@pytest.mark.parametrize("way", ["logger", "callback"])
def test_lightning_beside_an_integration_of_ours(
    runs: Runs, local: Options, digits: Any, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the user has given an MLOpsLogger or MLOpsCallback, nothing is added, and nothing said."""
    from mlops_integrations.lightning import MLOpsCallback, MLOpsLogger

    mlops.autolog(experiment_name="theirs", **local)
    callbacks = [MLOpsCallback(experiment_name="mine", **local)] if way == "callback" else []
    logger = MLOpsLogger(experiment_name="mine", **local) if way == "logger" else False
    model = digits.Classifier()
    digits.trainer(logger, callbacks=callbacks).fit(model, digits.batches())
    (run,) = runs()
    assert "mine" == run.spec.experiment_name
    assert model.logged == run.curve("train/loss")
    assert "are ignored" not in caplog.text


def test_lightning_in_the_users_run(runs: Runs, local: Options, digits: Any) -> None:
    """A run that start_run has opened is used, and left open; the Trainer may be older."""
    mlops.autolog(**local)
    model, fitting = digits.Classifier(), digits.trainer(False)
    with mlops.start_run(**local) as mine:
        fitting.fit(model, digits.batches())
        assert mine.is_open
    (run,) = runs()
    assert model.logged == run.curve("train/loss")


def test_each_trainer_of_lightning_is_a_run(runs: Runs, local: Options, digits: Any) -> None:
    """Two of them, two runs; a Trainer that is made after it was switched off, none."""
    mlops.autolog(**local)
    for _ in range(2):
        digits.trainer(False, epochs=1).fit(digits.Classifier(), digits.batches())
    mlops.autolog(disable=True)
    digits.trainer(False, epochs=1).fit(digits.Classifier(), digits.batches())
    assert [digits.BATCHES] * 2 == [len(run.curve("train/loss")) for run in runs()]


PLAIN_SCRIPT = """
import sys, torch, warnings
import {package} as package
warnings.simplefilter("ignore")

class Model(package.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        self.log("loss", float(batch_idx))
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

trainer = package.Trainer(max_epochs=1, logger=False, log_every_n_steps=1, accelerator="cpu",
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
trainer.fit(Model(), torch.utils.data.DataLoader(torch.ones(4, 2)))
print(sorted(name for name in sys.modules if name.startswith("mlops_integrations")))
"""


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_one_variable_is_enough(
    recorded: Read, train: Train, root: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """MLOPS_AUTOLOG=1 records a script that knows nothing of us, of either package."""
    pytest.importorskip(package)
    monkeypatch.setenv("MLOPS_AUTOLOG", "1")
    monkeypatch.setenv("MLOPS_UPLOADER", "thread")
    done = train(PLAIN_SCRIPT.format(package=package))
    assert 0 == done.returncode, done.stderr
    run = recorded((root / "latest").resolve())
    assert [(step, float(step)) for step in range(4)] == run.curve("loss")
    assert "FINISHED" == run.ending.status


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_merely_installed(train: Train, root: Path, package: str) -> None:
    """Without the variable nothing is recorded, said, or imported but what had to be asked."""
    pytest.importorskip(package)
    done = train(PLAIN_SCRIPT.format(package=package))
    config = ["credential_owner", "databricks", "oracle_uri", "settings", "tracking_uri"]
    modules = ["autologging", "autologging.entry_points", "config", *(f"config.{name}" for name in config)]
    modules = ["mlops_integrations", *(f"mlops_integrations.{name}" for name in modules)]
    assert [str(modules)] == done.stdout.splitlines()
    assert "mlops" not in done.stderr
    assert not root.exists()


@pytest.mark.parametrize("package", ["lightning.fabric", "lightning_fabric"])
def test_fabric(runs: Runs, train: Train, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """What is logged after ``setup`` is recorded; a logger of the user's stays, and so does the list it came in."""
    pytest.importorskip(package)
    for name, value in (("AUTOLOG", "1"), ("MODE", "offline"), ("UPLOADER", "thread")):
        monkeypatch.setenv(f"MLOPS_{name}", value)
    done = train(f"""
import torch
from {package} import Fabric
from {package}.loggers import CSVLogger
loggers = [CSVLogger("csv")]
fabric = Fabric(accelerator="cpu", devices=1, loggers=loggers)
for _ in range(2):
    model = torch.nn.Linear(2, 1)
    fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
for step in range(3):
    fabric.log("loss", 1.0 / (step + 1), step)
print(len(loggers))

from mlops_integrations.lightning import MLOpsLogger
mine = MLOpsLogger(experiment_name="mine")
other = Fabric(accelerator="cpu", devices=1, loggers=mine)
other.setup(torch.nn.Linear(2, 1))
other.log("loss", 0.5, 0)
print(other.loggers == [mine])
""")
    assert (0, "1\nTrue\n") == (done.returncode, done.stdout), done.stderr
    theirs, mine = runs()
    assert [(0, 1.0), (1, 0.5), (2, 1.0 / 3)] == theirs.curve("loss")
    assert [("Default", "FINISHED"), ("mine", "FINISHED")] == [
        (run.spec.experiment_name, run.ending.status) for run in (theirs, mine)
    ]


# -- Transformers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny() -> Any:
    """Transformers' training, if it is installed."""
    pytest.importorskip("transformers")
    import tiny_trainer

    return tiny_trainer


def test_transformers(runs: Runs, tmp_path: Path, local: Options, tiny: Any) -> None:
    """A Trainer with callbacks of the user's is recorded, and they are left alone."""
    mlops.autolog(experiment_name="digits", **local)
    callbacks = [tiny.TrainerCallback()]
    training = tiny.Trainer(
        tiny.Tiny(), tiny.arguments(tmp_path), train_dataset=tiny.DATA, eval_dataset=tiny.DATA, callbacks=callbacks
    )
    training.train()
    training.evaluate()
    (run,) = runs()
    assert list(range(1, tiny.STEPS + 1)) == [step for step, _ in run.curve("train/loss")]
    assert 1 == len(run.curve("eval/loss"))
    assert ("digits", "FINISHED") == (run.spec.experiment_name, run.ending.status)
    assert 1 == len(callbacks)
    assert {} == run.losses


def test_a_trainer_of_transformers_that_fails(runs: Runs, tmp_path: Path, local: Options, tiny: Any) -> None:
    """The user's exception, unchanged, is the run's status."""
    mlops.autolog(**local)
    error = ValueError("no such digit")
    with pytest.raises(ValueError, match="no such digit") as caught:
        tiny.trainer(tmp_path, tiny.Failing(error)).train()
    assert error is caught.value
    (run,) = runs()
    assert ("FAILED", "ValueError: no such digit") == (run.ending.status, run.ending.reason)


@pytest.mark.parametrize("way", ["callback", "class", "later", "report_to"])
def test_transformers_beside_an_integration_of_ours(
    runs: Runs, tmp_path: Path, local: Options, tiny: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the user has given one, in whatever way, there is one run, and it is that one's."""
    from mlops_integrations.transformers import MLOpsCallback

    for name, value in (("MODE", "offline"), ("UPLOADER", "thread")):
        monkeypatch.setenv(f"MLOPS_{name}", value)
    mlops.autolog(experiment_name="theirs", **local)
    mine = MLOpsCallback(experiment_name="mine", **local)
    given = {"callback": [mine], "class": [MLOpsCallback]}.get(way, [])
    training = tiny.trainer(tmp_path, *given, report_to="mlops" if way == "report_to" else "none")
    if way == "later":
        training.add_callback(mine)
    training.train()
    (run,) = runs()
    assert ("mine" if way in {"callback", "later"} else "Default") == run.spec.experiment_name
    assert tiny.STEPS == len(run.curve("train/loss"))


def test_transformers_in_the_users_run(runs: Runs, tmp_path: Path, local: Options, tiny: Any) -> None:
    """A run that start_run has opened is used, and left open; the Trainer may be older."""
    mlops.autolog(**local)
    training = tiny.trainer(tmp_path)
    with mlops.start_run(**local) as mine:
        training.train()
        assert mine.is_open
    (run,) = runs()
    assert tiny.STEPS == len(run.curve("train/loss"))


def test_each_trainer_of_transformers_is_a_run(runs: Runs, tmp_path: Path, local: Options, tiny: Any) -> None:
    """Switched on twice, two Trainers are two runs; switched off, the third is none, and its class as before."""
    plain = tiny.Trainer.__init__
    for _ in range(2):
        mlops.autolog(**local)
        tiny.trainer(tmp_path).train()
    mlops.autolog(disable=True)
    assert plain is tiny.Trainer.__init__
    tiny.trainer(tmp_path).train()
    assert [tiny.STEPS] * 2 == [len(run.curve("train/loss")) for run in runs()]


def test_before_transformers_is_imported(train: Train, local: Options) -> None:
    """The Trainer's class is wrapped when it is imported, which autolog() does not do itself."""
    pytest.importorskip("transformers")
    done = train("""
import sys
import mlops_integrations as mlops
mlops.autolog()
print("transformers" in sys.modules, "accelerate" in sys.modules, "keras" in sys.modules, "lightning" in sys.modules)
from transformers import Trainer
print(hasattr(Trainer.__init__, "_mlops_hooks"))
from transformers.integrations import integration_utils
print("mlops" in integration_utils.INTEGRATION_TO_CALLBACK)
""")
    assert ["False False False False", "True", "True"] == done.stdout.splitlines(), done.stderr


# -- Accelerate -------------------------------------------------------------------------------------------------------


def accelerated(log_with: Any = None) -> None:
    """A loop that logs through accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with=log_with)
    accelerator.init_trackers("digits", {"lr": 0.1})
    for step in range(3):
        accelerator.log({"loss": 1.0 / (step + 1)}, step=step)
    accelerator.end_training()


def test_accelerate(runs: Runs, local: Options) -> None:
    """What init_trackers and log are given is recorded, though the script names no tracker."""
    pytest.importorskip("accelerate")
    mlops.autolog(**local)
    accelerated()
    (run,) = runs()
    assert [(0, 1.0), (1, 0.5), (2, 1.0 / 3)] == run.curve("loss")
    assert ("digits", "FINISHED") == (run.spec.experiment_name, run.ending.status)
    assert {"lr": "0.1"} == run.params


def test_accelerate_beside_an_integration_of_ours(runs: Runs, local: Options) -> None:
    """Where the user has given a tracker of ours, nothing is added; switched off, nothing is recorded."""
    pytest.importorskip("accelerate")
    from mlops_integrations.accelerate import MLOpsTracker

    mlops.autolog(**local)
    accelerated(MLOpsTracker(experiment_name="mine", **local))
    mlops.autolog(disable=True)
    accelerated()
    (run,) = runs()
    assert "mine" == run.spec.experiment_name
    assert 3 == len(run.curve("loss"))


def test_accelerate_in_the_users_run(runs: Runs, local: Options) -> None:
    """A run that start_run has opened is used, and left open."""
    pytest.importorskip("accelerate")
    mlops.autolog(**local)
    with mlops.start_run(**local) as mine:
        accelerated()
        assert mine.is_open
    (run,) = runs()
    assert 3 == len(run.curve("loss"))
