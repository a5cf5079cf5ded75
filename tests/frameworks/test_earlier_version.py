"""Files of an earlier version load: pickles, checkpoints, configurations, run directories; the same run goes on.

Those in ``tests/data/old_names`` were written by the version before the package was divided into rooms. Of a Trainer's
checkpoint and of a configuration of LightningCLI they are the part that is ours: the rest differs between versions.
"""

from __future__ import annotations

import pickle
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]

FILES = Path(__file__).parents[1] / "data" / "old_names"


def loaded(name: str) -> Any:
    """What a file holds."""
    return pickle.loads((FILES / f"{name}.pickle").read_bytes())


def test_a_run() -> None:
    """With its spec and its settings."""
    run = loaded("run")
    assert isinstance(run, mlops.Run)
    assert run.name == "made before"
    assert run._recorder.settings.mode == "offline"
    assert loaded("keras_with_run").run.uid == run.uid


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("keras", "mlops_integrations.keras.MLOpsCallback"),
        ("transformers", "mlops_integrations.transformers.MLOpsCallback"),
        ("lightning_logger", "mlops_integrations.lightning.MLOpsLogger"),
        ("lightning_callback", "mlops_integrations.lightning.MLOpsCallback"),
        ("accelerate", "mlops_integrations.accelerate.MLOpsTracker"),
    ],
)
def test_an_integration(name: str, kind: str, tmp_path: Path) -> None:
    """Its run begins with the keywords that it was made with."""
    integration = loaded(name)
    assert f"{type(integration).__module__}.{type(integration).__qualname__}" == kind
    integration._handle._options["directory"] = str(tmp_path)
    integration.run.log_metric("loss", 0.5, step=0)
    integration.run.finish()
    assert integration.run.name == name.rpartition("_")[2][0]
    assert len(list(tmp_path.glob("2*/journal-0001.jsonl"))) == 1
    again = pickle.loads(pickle.dumps(integration))
    assert again.run.uid == integration.run.uid


def test_what_recorded_logs_goes_on() -> None:
    """Of a Trainer's callback: names, epochs, what was said, and the parameters of each run."""
    pytest.importorskip("transformers")
    from mlops_integrations.transformers import _log_recorder

    earlier = {"_raw_names": True, "_prefixes": ["eval", "mine"], "_epoch": (3, 0.5), "_nan_said": True}
    earlier |= {"_params": {"mlops-1": {"lr": "0.1"}}}
    today = _log_recorder.with_recorder({"_options": {"params": {"seed": 1}}, "_rank": 0, **earlier})
    assert set(today) == {"_options", "_rank", "_logs"}
    assert vars(today["_logs"]) == {**earlier, "_given": frozenset({"seed"})}


def test_what_recorded_checkpoints_goes_on() -> None:
    """Of a Lightning logger: those that are artifacts already."""
    pytest.importorskip("lightning")
    from mlops_integrations.lightning import _checkpoints

    recorded = {Path("last.ckpt"): 17}
    today = _checkpoints.with_recorder({"_fits": True, "_savers": [], "_recorded": recorded})
    assert set(today) == {"_fits", "_checkpoints"}
    assert vars(today["_checkpoints"]) == {"_savers": [], "_recorded": recorded}


@pytest.fixture
def earlier_runs(root: Path) -> Path:
    """The root, with the run directories that the checkpoints belong to."""
    return Path(shutil.copytree(FILES / "runs", root))


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on data loaders is of no use here
def test_a_checkpoint_of_lightning(earlier_runs: Path, recorded: Read, local: Mapping[str, str]) -> None:
    """``fit(ckpt_path=...)`` goes on with the run that it names."""
    pytest.importorskip("lightning")
    from lightning_classifier import BATCHES, Classifier, batches, trainer
    from mlops_integrations.lightning import MLOpsCallback

    callback = MLOpsCallback(**local)
    trainer(False, 2, callbacks=[callback]).fit(Classifier(), batches(), ckpt_path=FILES / "lightning.ckpt")
    assert callback.run.directory.parent == earlier_runs
    run = recorded(callback.run.directory)
    assert ("made before", 2, "FINISHED") == (run.spec.name, run.journals, run.ending.status)
    assert [step for step, _ in run.curve("train/loss")] == list(range(2 * BATCHES))


def test_a_checkpoint_of_the_trainer(
    earlier_runs: Path, recorded: Read, local: Mapping[str, str], tmp_path: Path
) -> None:
    """``train(resume_from_checkpoint=...)`` goes on with the run that it names, whose parameters are known."""
    pytest.importorskip("transformers")
    from mlops_integrations.transformers import MLOpsCallback
    from tiny_trainer import STEPS, trainer

    options = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 0.25}
    trainer(tmp_path, max_steps=2, **options).train()
    checkpoint = tmp_path / "output" / "checkpoint-2"
    shutil.copy(FILES / "trainer_state.json", checkpoint)
    callback = MLOpsCallback(**local)
    trainer(tmp_path, callback, **options).train(resume_from_checkpoint=str(checkpoint))
    assert callback.run.directory.parent == earlier_runs
    run = recorded(callback.run.directory)
    assert ("made before", 2, "FINISHED") == (run.spec.name, run.journals, run.ending.status)
    assert [step for step, _ in run.curve("train/loss")] == list(range(1, STEPS + 1))
    assert "max_steps: 2 -> 4" in run.tags["mlops.params_changed"]
    assert {} == run.losses


CLI = """
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sum()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(10, 2))

LightningCLI(Model, args=["fit", "--config", "config.yaml"])
"""


def test_a_configuration_of_lightnings_command_line(train: Train, recorded: Read, root: Path, tmp_path: Path) -> None:
    """Each class and argument that the earlier version wrote down is there."""
    pytest.importorskip("lightning")
    shutil.copy(FILES / "lightning_config.yaml", tmp_path / "config.yaml")
    done = train(CLI)
    assert 0 == done.returncode, done.stderr
    run = recorded(root / "latest")
    assert ("digits", "vision", "FINISHED") == (run.spec.experiment_name, run.tags["team"], run.ending.status)
    assert 10 == len(run.curve("loss"))
