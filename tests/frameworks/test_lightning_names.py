"""Lightning by its two names: what a logger belongs to, and LightningCLI, which asks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")
pytest.importorskip("pytorch_lightning")

Read = Callable[[Path], Any]
Train = Callable[..., subprocess.CompletedProcess[str]]

WHOSE = """
print(
    issubclass(integration.MLOpsLogger, {package}.loggers.Logger),
    issubclass(integration.MLOpsCallback, {package}.Callback),
)
"""


def test_without_lightning_the_extra_is_named(train: Train) -> None:
    """Where Lightning is missing in both forms, importing the integration says in one line what to install."""
    missing = "sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None"
    done = train(f"import sys; {missing}; import mlops_integrations.lightning")
    assert "ImportError: Lightning is not installed: pip install lightning" in done.stderr
    assert 1 == done.stderr.count("Traceback")


def test_with_pytorch_lightning_alone(train: Train) -> None:
    """Where only pytorch_lightning is there, our classes are its own, imported before it or after."""
    done = train(
        "import sys; sys.modules['lightning'] = None\n"
        "import mlops_integrations.lightning as integration\n"
        "import pytorch_lightning" + WHOSE.format(package="pytorch_lightning")
    )
    assert "True True\n" == done.stdout, done.stderr


TRAINING = """
import sys
{imports}
import torch
from mlops_integrations import lightning as integration

class Model({package}.LightningModule):
    def __init__(self, width: int = 2, activation: str = "relu"):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).sum()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(10, 2))
"""


def test_both_names_at_once(train: Train, recorded: Read, root: Path) -> None:
    """With both packages imported our classes belong to both, and a Trainer of either records."""
    script = TRAINING.format(imports="import lightning, pytorch_lightning", package="pytorch_lightning")
    script += WHOSE.format(package="lightning.pytorch") + WHOSE.format(package="pytorch_lightning")
    script += """
callback = integration.MLOpsCallback(mode="offline", uploader="thread")
trainer = pytorch_lightning.Trainer(max_epochs=1, logger=False, callbacks=[callback], accelerator="cpu",
    log_every_n_steps=1, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False)
trainer.fit(Model())
"""
    done = train(script)
    assert "True True\nTrue True\n" == done.stdout, done.stderr
    run = recorded(root / "latest")
    assert 10 == len(run.curve("loss"))
    assert ("FINISHED", {}) == (run.ending.status, run.losses)


CONFIG = """
trainer:
  max_epochs: 1
  log_every_n_steps: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_checkpointing: false
  logger:
    class_path: mlops_integrations.lightning.MLOpsLogger
    init_args:
      experiment_name: digits
      mode: offline
      uploader: thread
      tags: {team: vision}
      params: {batch_size: 1}
      log_model: all
  callbacks:
    - class_path: mlops_integrations.lightning.MLOpsCallback
"""


CALLS = """
from {package}.cli import LightningCLI
for arguments in (
    ["fit", "--config", "config.yaml"],
    ["fit", "--config", "config.yaml", "--trainer.logger.init_args.run_name=second", "--model.width=3"],
    ["fit", "--trainer.logger.help=mlops_integrations.lightning.MLOpsLogger"],
    ["fit", "--config", "config.yaml", "--print_config"],
):
    try:
        LightningCLI(Model, args=arguments)
    except SystemExit as exit:
        assert not exit.code
"""


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_configuration_is_enough(train: Train, recorded: Read, root: Path, tmp_path: Path, package: str) -> None:
    """A class_path in YAML records; the second time, with another option, it is another run with its own config.

    --help explains each argument, --print_config shows them all, and neither makes a run.
    """
    (tmp_path / "config.yaml").write_text(CONFIG)
    script = TRAINING.format(imports=f"import {package}", package=package) + CALLS.format(package=package)
    # The integration comes last: LightningCLI imports it while it reads the configuration.
    done = train(script.replace("from mlops_integrations import lightning as integration\n", ""))
    assert 0 == done.returncode, done.stderr
    first, second = sorted(
        (path for path in root.iterdir() if path.is_dir() and not path.is_symlink()),
        key=lambda path: path == (root / "latest").resolve(),
    )
    for directory, name, width in ((first, "train", "2"), (second, "second", "3")):
        run = recorded(directory)
        assert (name, "digits") == (run.spec.name, run.spec.experiment_name)
        assert {"batch_size": "1", "width": width, "activation": "relu"} == run.params
        assert ("vision", "FINISHED", {}) == (run.tags["team"], run.ending.status, run.losses)
        assert 10 == len(run.curve("loss"))
        assert f"width: {width}" in (directory / "config.yaml").read_text()
    assert "Default: the script's name" in done.stdout
    assert "class_path: mlops_integrations.lightning.MLOpsLogger" in done.stdout
    assert "log_model: all" in done.stdout
