"""``python -m mlops_integrations``, wrong usage, and help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from command_line import module
from fake_mlflow import FakeMlflow

PACKAGE_HOME = Path(mlops.__file__).resolve().parents[1]

Record = Callable[..., mlops.Run]


def test_working_directory_with_the_names_of_libraries(record: Record, server: FakeMlflow, tmp_path: Path) -> None:
    """A user's own ``requests.py`` and the like in the working directory do no harm."""
    record(tracking_uri=server.uri)
    for name in ("requests", "json", "msgspec", "keras", "rich", "plotext", "urllib3", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')")
    for command in ("sync", "runs", "show", "status"):
        process = module(command, cwd=tmp_path)
        _, complaint = process.communicate(timeout=60)
        assert (0, "") == (process.returncode, complaint)
    assert 3 == len(server.run("baseline").metrics)


def test_package_in_the_working_directory(tmp_path: Path) -> None:
    """Called from where the package itself lies, it is found."""
    process = module("--version", cwd=PACKAGE_HOME, environment={"PYTHONPATH": ""})
    said, _ = process.communicate(timeout=60)
    assert (0, f"mlops-integrations {mlops.__version__}\n") == (process.returncode, said)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("sync", "--nonsense"),
        ("sync", "missing"),
        ("sync", "--to", "sqlite:///x.db"),
        ("runs", "--dir", "no"),
    ],
)
def test_wrong_usage(root: Path, out: Any, arguments: tuple[str, ...]) -> None:
    """Exit code 2, a line that says what is wrong, nothing on stdout but what belongs there."""
    code, _, complaint = out(*arguments)
    assert (2, True) == (code, complaint.strip() != "")


def test_usage_errors_name_a_next_step(out: Any) -> None:
    """A complaint about the arguments says where to read more."""
    assert "More: mlops-integrations sync --help" in out("sync", "--to")[2]


@pytest.mark.parametrize("arguments", [("--help",), ("sync", "--help"), ("show", "--help"), ("--version",)])
def test_help(out: Any, arguments: tuple[str, ...]) -> None:
    """Help and version go to stdout with exit code 0."""
    code, said, complaint = out(*arguments)
    assert (0, "", True) == (code, complaint, "mlops-integrations" in said)
