"""What an import pulls in, and that it works where the standard library is Windows'."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[..., "subprocess.CompletedProcess[str]"]

FRAMEWORKS = (
    "keras",
    "torch",
    "lightning",
    "pytorch_lightning",
    "transformers",
    "accelerate",
    "jax",
    "tensorflow",
    "numpy",
)
"""None of them is ours to import before a user has done it."""

LOADED = """
import sys
print(*sorted(name for name in {names!r} if name in sys.modules))
"""


def ends_with(*names: str) -> str:
    """A script's last lines, which print those of these modules that are loaded."""
    return LOADED.format(names=names)


def output(done: subprocess.CompletedProcess[str]) -> str:
    """Standard output of a script that ended well."""
    assert (done.returncode, "" if done.returncode == 0 else done.stderr) == (0, "")
    return done.stdout.strip()


def test_import_of_the_package(python: Python) -> None:
    """Neither a framework nor anything that we depend on, nor any other part of ours."""
    script = "import mlops_integrations" + ends_with(
        *FRAMEWORKS, "requests", "urllib3", "msgspec", "mlops_integrations.recording.run", "logging"
    )
    assert output(python(script)) == ""


def test_import_of_run(python: Python) -> None:
    """Recording needs no framework and no requests."""
    script = "import mlops_integrations.recording.run, mlops_integrations.recording.start" + ends_with(
        *FRAMEWORKS, "requests", "urllib3"
    )
    assert output(python(script)) == ""


def test_public_names(python: Python) -> None:
    """Every public name is there when it is asked for, and an unknown one is an AttributeError."""
    script = """
import mlops_integrations as mlops
print(*sorted(name for name in mlops.__all__ if not hasattr(mlops, name)), hasattr(mlops, "invented"))
from mlops_integrations import Run, active_run, errors, start_run
"""
    assert output(python(script)) == "False"


def test_a_run_with_a_side_process(python: Python) -> None:
    """Recording with a server somewhere loads no requests into the training process: that is the side process's."""
    script = """
import mlops_integrations as mlops
run = mlops.start_run(tracking_uri="http://127.0.0.1:1")
run.log_metrics({"a": 1.0}, step=1)
run.finish(timeout=0)
""" + ends_with(*FRAMEWORKS, "requests", "urllib3")
    assert output(python(script, MLOPS_FINISH_TIMEOUT="0", MLOPS_LINGER="0")) == ""


WINDOWS = """
import sys
for name in ("fcntl", "resource", "pwd", "termios", "grp"):
    sys.modules[name] = None
import os
for name in ("register_at_fork", "pidfd_open", "fork"):
    if hasattr(os, name):
        delattr(os, name)
import importlib, pkgutil
import mlops_integrations
for module in pkgutil.walk_packages(mlops_integrations.__path__, "mlops_integrations."):
    if not module.name.endswith(("__main__", *{frameworks!r})):
        importlib.import_module(module.name)
sys.platform = "win32"
run = mlops_integrations.start_run(uploader="thread", mode="offline", params={{"a": 1}})
run.log_metrics({{"a": 1.0}})
run.log_artifact(sys.argv[1])
run.finish()
print(run.directory)
"""


def test_standard_library_of_windows(python: Python, tmp_path: Path) -> None:
    """Without POSIX's modules and functions everything imports, and a run is recorded."""
    (tmp_path / "f").write_text("x")
    script = WINDOWS.format(frameworks=("keras", "lightning", "transformers", "accelerate"))
    directory = Path(output(python(script, str(tmp_path / "f"))))
    assert b'"metrics"' in (directory / "journal-0001.jsonl").read_bytes()
    assert (directory / "artifacts" / "f").exists()


@pytest.mark.parametrize("name", ["requests.py", "msgspec.py", "keras.py"])
def test_import_touches_nothing(python: Python, tmp_path: Path, name: str) -> None:
    """Importing makes no file, and no file of the user by the name of a library is taken up by it."""
    (tmp_path / name).write_text("raise SystemExit('wrong file')\n")
    assert output(python("import mlops_integrations", PYTHONDONTWRITEBYTECODE="1")) == ""
    assert [tmp_path / name] == list(tmp_path.iterdir())
