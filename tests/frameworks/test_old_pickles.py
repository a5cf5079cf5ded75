"""Pickles of earlier versions load: what they name is found where it is today, and goes on with the same run.

The files in ``tests/data/old_names`` were written by the version before the package was divided into rooms.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops

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
