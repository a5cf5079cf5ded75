"""The entry points that run in every Trainer of everyone who has merely installed us: silent, cheap, never an error."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest has brought this
    import tomli as tomllib  # type: ignore[import-not-found,no-redef]

Python = Callable[..., "subprocess.CompletedProcess[str]"]

GROUPS = {
    "lightning.pytorch.callbacks_factory",
    "pytorch_lightning.callbacks_factory",
    "lightning.fabric.callbacks_factory",
    "lightning_fabric.callbacks_factory",
}

ASK = """
import sys
before = set(sys.modules)
from mlops_integrations.autologging import entry_points
print(entry_points.trainer_callbacks(), entry_points.fabric_callbacks())
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names)))
"""


def declared() -> dict[str, dict[str, str]]:
    """Our entry points, as the package's metadata has them."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    found: dict[str, dict[str, str]] = tomllib.loads(project.read_text("utf-8"))["project"]["entry-points"]
    return found


def test_each_group_has_its_function() -> None:
    """Both packages, Trainer and Fabric; what is named there exists."""
    assert set(declared()) == GROUPS
    for group, entries in declared().items():
        (value,) = entries.values()
        module, _, function = value.partition(":")
        assert ("fabric" in group) == ("fabric" in function)
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("value", [None, "", "0", "off", "nonsense"])
def test_unasked_they_give_nothing(python: Python, value: str | None) -> None:
    """No callbacks, nothing but the standard library imported, nothing said."""
    done = python(ASK, **({} if value is None else {"MLOPS_AUTOLOG": value}))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["[] []", "['mlops_integrations']"]


def test_switched_off_they_give_nothing(python: Python) -> None:
    """What the script says counts more than the environment."""
    off = "import mlops_integrations as mlops; mlops.autolog(disable=True)\n"
    done = python(off + ASK, MLOPS_AUTOLOG="1")
    assert done.stdout.splitlines()[0] == "[] []"
    assert done.stderr == ""


def test_they_never_raise(python: Python) -> None:
    """Where what is asked for can't be had, it is said and there are no callbacks."""
    missing = "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
    done = python(
        missing + "from mlops_integrations.autologging import entry_points\nprint(entry_points.trainer_callbacks())",
        MLOPS_AUTOLOG="1",
    )
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert "mlops: this training is not recorded: ImportError: Lightning is not installed" in done.stderr


def test_wrong_names_and_keywords_are_said() -> None:
    """Where autolog() is called, not in the training."""
    import mlops_integrations as mlops

    with pytest.raises(ValueError, match=r"there is no 'pytorch'.*'lightning'"):
        mlops.autolog(frameworks=["pytorch"])
    with pytest.raises(ValueError, match="unknown keyword 'experiment'"):
        mlops.autolog(experiment="digits")
    with pytest.raises(ValueError, match="offlien"):
        mlops.autolog(mode="offlien")


def test_without_any_framework(python: Python) -> None:
    """It is no error that none is there; imports go on as ever, and in the end nothing of it is left."""
    script = """
import sys
for name in ("accelerate", "keras", "lightning", "pytorch_lightning", "transformers"):
    sys.modules[name] = None
import mlops_integrations as mlops
before = list(sys.meta_path)
mlops.autolog()
mlops.autolog()
import json, xml.dom.minidom
try:
    import keras
except ImportError:
    print("no keras")
print(len(sys.meta_path) - len(before))
mlops.autolog(disable=True)
print(sys.meta_path == before)
"""
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["no keras", "1", "True"]
