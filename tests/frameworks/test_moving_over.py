"""Each change of ``docs/moving-over.md`` is made here, run, and found on a real server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from real_mlflow import MlflowServer, eventually, rest_runs

PAGE = Path(__file__).parents[2] / "docs" / "moving-over.md"
BLOCKS = re.findall(r"```diff (\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

LIGHTNING = """
import lightning, torch
from lightning import Trainer as BaseTrainer
from mlops_integrations.lightning import MLOpsLogger
class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
def Trainer(**options):
    quiet = dict(enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, accelerator="cpu")
    return BaseTrainer(log_every_n_steps=1, **quiet, **options)
model = Model()
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4, 4)), batch_size=1)
open("notes.txt", "w").write("notes")
"""

TRANSFORMERS = """
import torch
from transformers import Trainer, TrainingArguments
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
    def forward(self, x, labels=None):
        return {"loss": self.layer(x).square().mean()}
model = Model()
data = [{"x": torch.ones(4), "labels": torch.zeros(1)} for _ in range(4)]
quiet = dict(max_steps=3, logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True)
"""

KERAS = """
import keras, numpy
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = numpy.ones((8, 4)), numpy.ones((8, 1))
"""

BEFORE = {"lightning": LIGHTNING, "transformers": TRANSFORMERS, "keras": KERAS, "plain": ""}
METRIC = {"lightning": "loss", "transformers": "train/loss", "keras": "loss", "plain": "loss"}


def afterwards(block: str) -> str:
    """The script that a change leads to."""
    lines = [line for line in block.splitlines() if not line.startswith("-")]
    return "\n".join(line[1:] for line in lines)


@pytest.mark.parametrize(("framework", "block"), BLOCKS, ids=[f"{kind} {i}" for i, (kind, _) in enumerate(BLOCKS)])
def test_the_change_is_all_there_is_to_do(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, framework: str, block: str
) -> None:
    """Afterwards the training is on the same server, with its curve, and FINISHED."""
    if framework != "plain":
        pytest.importorskip(framework)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with mlops.start_run(run_name="earlier") as earlier:
        earlier.log_metric("loss", 0.5)
    assert earlier.finish(timeout=30)
    names: dict[str, Any] = {"uri": server.uri, "run_id": earlier.run_id, "mlops": mlops}
    known = {run.run_id for run in rest_runs(server.uri)}

    exec(BEFORE[framework], names)
    try:
        exec(afterwards(block), names)
        trainer = names.get("trainer")
        if trainer is not None:
            trainer.fit(names["model"], names["data"]) if framework == "lightning" else trainer.train()
        if "log_artifact" in block:  # logged afterwards, it has re-opened the run
            names["logger"].run.finish(timeout=0)
    finally:
        mlops.autolog(disable=True)

    if "history" in names:
        assert [metric.value for metric in names["history"]] == [0.5]
        return

    def ended() -> Any:
        fresh = [run for run in rest_runs(server.uri) if run.run_id not in known]
        return fresh if [run.status for run in fresh] == ["FINISHED"] else None

    (run,) = eventually(ended, 30)
    assert run.curve(METRIC[framework])
    if "baseline" in block:
        assert run.name == "baseline"


def test_there_are_changes() -> None:
    """For each framework, and for scripts without one."""
    assert {"lightning", "transformers", "keras", "plain"} == {framework for framework, _ in BLOCKS}
