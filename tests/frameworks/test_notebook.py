"""Trainings in the cells of a notebook: how a cell ends is how the runs end that it has opened. In a real kernel."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

jupyter_client = pytest.importorskip("jupyter_client", reason="needs a Jupyter kernel")
pytest.importorskip("ipykernel", reason="needs a Jupyter kernel")

SECONDS = 120.0

Read = Callable[[Path], Any]

PREPARE = """
import os, signal, sys, time
os.environ["KERAS_BACKEND"] = "jax"
import mlops_integrations as mlops

def options():
    return {"mode": "offline", "uploader": "thread", "directory": DIRECTORY}

def interrupt():
    print("now in the training", flush=True)
    time.sleep(60)

def fail():
    raise ValueError("no such digit")
"""

KERAS = """
import keras, numpy as np
from mlops_integrations.keras import MLOpsCallback

class Ending(keras.callbacks.Callback):
    def __init__(self, how):
        super().__init__()
        self.how = how
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.how()

def network():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    return model

def train(how=lambda: None, model=None, callbacks=None):
    callbacks = [MLOpsCallback(**options())] if callbacks is None else callbacks
    (model or network()).fit(np.ones((8, 4)), np.ones((8, 1)), epochs=3, verbose=0, callbacks=[*callbacks, Ending(how)])
"""


class Notebook:
    """A kernel, and the cells that are run in it."""

    def __init__(self, cwd: Path) -> None:
        self.manager = jupyter_client.KernelManager()
        environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        self.manager.start_kernel(cwd=str(cwd), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)

    def cell(self, code: str, *, interrupted: bool = False) -> str:
        """Run a cell: the name of what it raises, or "ok". It is interrupted once it says that it is in training."""
        number = self.client.execute(code)
        while interrupted:
            message = self.client.get_iopub_msg(timeout=SECONDS)
            text = message["content"].get("text", "") if message["parent_header"].get("msg_id") == number else ""
            if "now in the training" in text:
                self.manager.interrupt_kernel()
                break
        while True:
            reply = self.client.get_shell_msg(timeout=SECONDS)
            if reply["parent_header"].get("msg_id") == number:
                return str(reply["content"].get("ename", "ok"))

    def restart(self) -> None:
        """What the menu's "Restart kernel" does."""
        self.manager.restart_kernel(now=False)
        self.client.wait_for_ready(timeout=SECONDS)

    def close(self) -> None:
        """Shut the kernel down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """One kernel for all tests of this file that leave it as it is."""
    pytest.importorskip("jax")
    pytest.importorskip("keras")
    notebook = Notebook(tmp_path_factory.mktemp("notebook"))
    assert "ok" == notebook.cell(PREPARE + KERAS)
    yield notebook
    notebook.close()


@pytest.fixture
def notebook(kernel: Notebook, root: Path) -> Iterator[Notebook]:
    """The kernel; its runs lie in this test's directory."""
    assert "ok" == kernel.cell(f"DIRECTORY = {str(root)!r}")
    yield kernel
    assert "ok" == kernel.cell("while mlops.active_run():\n    mlops.active_run().finish(timeout=0)")


@pytest.fixture
def runs(root: Path, recorded: Read) -> Callable[[], list[Any]]:
    """Status and reason of all runs of this test, the first one first; None of one that is open."""

    def read() -> list[Any]:
        directories = [path for path in root.glob("*") if path.is_dir() and not path.is_symlink()]
        found = sorted((recorded(path) for path in directories), key=lambda run: run.spec.start_time)
        return [None if run.ending is None else (run.ending.status, run.ending.reason) for run in found]

    return read


Runs = Callable[[], list[Any]]

FINISHED, INTERRUPTED, FAILED = ("FINISHED", None), ("KILLED", "SIGINT"), ("FAILED", "ValueError: no such digit")


def test_a_cell_that_ends_well(notebook: Notebook, runs: Runs) -> None:
    """The training's end is the run's."""
    assert "ok" == notebook.cell("train()")
    assert [FINISHED] == runs()


def test_a_cell_that_raises_and_is_run_again(notebook: Notebook, runs: Runs) -> None:
    """It ends the run that its training had opened; the next time it is another run."""
    cell = "train(how)"
    notebook.cell("how = fail")
    assert "ValueError" == notebook.cell(cell)
    assert [FAILED] == runs()
    notebook.cell("how = lambda: None")
    assert "ok" == notebook.cell(cell)
    assert [FAILED, FINISHED] == runs()


def test_a_cell_that_is_interrupted_and_run_again(notebook: Notebook, runs: Runs) -> None:
    """The stop button kills the run; the next time it is another one."""
    assert "KeyboardInterrupt" == notebook.cell("train(interrupt)", interrupted=True)
    assert [INTERRUPTED] == runs()
    assert "ok" == notebook.cell("train()")
    assert [INTERRUPTED, FINISHED] == runs()


def test_an_interrupt_that_is_caught(notebook: Notebook, runs: Runs) -> None:
    """Stopped early by intent and gone on: the run ends with what comes after."""
    cell = """
callback = MLOpsCallback(**options())
try:
    train(interrupt, callbacks=[callback])
except KeyboardInterrupt:
    network().evaluate(np.ones((8, 4)), np.ones((8, 1)), verbose=0, callbacks=[callback])
"""
    assert "ok" == notebook.cell(cell, interrupted=True)
    assert [FINISHED] == runs()


def test_a_loop_in_a_cell(notebook: Notebook, runs: Runs) -> None:
    """A run of start_run, without a with block, is ended by the cell that opened it, if that fails; else it is open."""
    loop = "run = mlops.start_run(**options())\nfor step in range(3):\n    run.log_metrics({'loss': 0.5}, step)\n"
    assert "ok" == notebook.cell(loop)
    assert "ValueError" == notebook.cell(loop + "    fail()")
    assert "KeyboardInterrupt" == notebook.cell(loop + "    interrupt()", interrupted=True)
    assert "SystemExit" == notebook.cell(loop + "    sys.exit(3)")
    assert [None, FAILED, INTERRUPTED, ("FAILED", "exit code 3")] == runs()


def test_a_cell_that_opened_nothing(notebook: Notebook, runs: Runs) -> None:
    """Its error tells nothing of a run that an earlier cell has left open, nor of one that has ended."""
    assert "ok" == notebook.cell("train(); run = mlops.start_run(**options())")
    assert "ValueError" == notebook.cell("fail()")
    assert "SyntaxError" == notebook.cell("this is no Python")
    assert [FINISHED, None] == runs()
    assert "ok" == notebook.cell("run.finish()")
    assert [FINISHED, FINISHED] == runs()


def test_autolog_in_a_notebook(notebook: Notebook, runs: Runs) -> None:
    """A fit that names nothing of ours fails and is interrupted likewise; a model is one run."""
    assert "ok" == notebook.cell("mlops.autolog(frameworks=['keras'], **options())")
    try:
        assert "ValueError" == notebook.cell("train(fail, callbacks=[])")
        assert "KeyboardInterrupt" == notebook.cell("model = network(); train(interrupt, model, [])", interrupted=True)
        assert [FAILED, INTERRUPTED] == runs()
        assert "ok" == notebook.cell("train(model=model, callbacks=[])")
        assert [FAILED, FINISHED] == runs()
    finally:
        notebook.cell("mlops.autolog(disable=True)")


def test_a_restart_fails_no_good_run(tmp_path: Path, root: Path, runs: Runs) -> None:
    """Neither one that has ended, nor one that is open, is FAILED for the kernel's end or for a cell that failed."""
    notebook = Notebook(tmp_path)
    try:
        assert "ok" == notebook.cell(PREPARE + f"DIRECTORY = {str(root)!r}")
        assert "ok" == notebook.cell("mlops.start_run(**options()).finish()")
        assert "ok" == notebook.cell("run = mlops.start_run(**options()); run.log_metric('loss', 0.5)")
        assert "ValueError" == notebook.cell("fail()")
        notebook.restart()
        assert [FINISHED, FINISHED] == runs()
        assert "NameError" == notebook.cell("print(run)")
    finally:
        notebook.close()


LIGHTNING = """
import lightning, torch
from mlops_integrations.lightning import MLOpsLogger

class Model(lightning.LightningModule):
    def __init__(self, how):
        super().__init__()
        self.layer, self.how = torch.nn.Linear(2, 1), how
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            self.how()
        return self.layer(batch).sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def train(how=lambda: None):
    trainer = lightning.Trainer(max_epochs=1, logger=MLOpsLogger(**options()), accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    trainer.fit(Model(how), torch.utils.data.DataLoader(torch.ones(4, 2)))
"""

TRANSFORMERS = """
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from mlops_integrations.transformers import MLOpsCallback

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x, labels=None):
        return {"loss": self.layer(x).sum()}

class Ending(TrainerCallback):
    def __init__(self, how):
        self.how = how
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.how()

def train(how=lambda: None):
    arguments = TrainingArguments("output", max_steps=4, logging_steps=1, save_strategy="no", use_cpu=True,
        report_to="none", disable_tqdm=True)
    data = [{"x": torch.ones(2), "labels": torch.tensor(0)}] * 8
    callbacks = [MLOpsCallback(**options()), Ending(how)]
    Trainer(Model(), arguments, train_dataset=data, callbacks=callbacks).train()
"""


@pytest.mark.parametrize(("package", "code"), [("lightning", LIGHTNING), ("transformers", TRANSFORMERS)])
def test_the_other_frameworks(tmp_path: Path, root: Path, runs: Runs, package: str, code: str) -> None:
    """Well, failed, interrupted, run again: as with Keras. Lightning makes an exit of Ctrl-C."""
    pytest.importorskip(package)
    notebook = Notebook(tmp_path)
    try:
        assert "ok" == notebook.cell(PREPARE + f"DIRECTORY = {str(root)!r}\n" + code)
        assert "ok" == notebook.cell("train()")
        assert "ValueError" == notebook.cell("train(fail)")
        assert "ok" != notebook.cell("train(interrupt)", interrupted=True)
        assert "ok" == notebook.cell("train()")
    finally:
        notebook.close()
    assert [FINISHED, FAILED, INTERRUPTED, FINISHED] == runs()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
