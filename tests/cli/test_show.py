"""``show``: one run, and several side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow

Record = Callable[..., mlops.Run]


def test_show_one_run(record: Record, out: Any) -> None:
    """Header, parameters, tags, each metric's numbers, its curve with its gaps, and what was not kept."""
    run = record(points=50, finish=False, params={"lr": 0.1}, tags={"team": "vision"})
    run.log_metric("loss", float("inf"), step=50)
    run.log_metric("loss", "no number")
    run.finish()
    code, said, _ = out("show")
    assert (0, True) == (code, f"directory  {run.directory}" in said)
    lines = [line.split() for line in said.splitlines()]
    assert ["status", "FINISHED"] in lines
    assert ["lr", "0.1"] in lines
    assert ["team", "vision"] in lines
    assert ["loss", "51", "0.02", "1", "Infinity", "1", "x", "Infinity"] in lines
    assert "loss  (gaps: 1 x Infinity)" in said
    assert "0.02 │" in said
    assert "not kept   1 x metric that is no number" in said


@pytest.mark.parametrize("by", ["directory", "name of directory", "prefix", "name", "label", "uid", "run id"])
def test_show_finds_a_run(record: Record, server: FakeMlflow, out: Any, by: str) -> None:
    """A run may be named in any of the ways that a user has seen."""
    run = record("wanted", tracking_uri=server.uri)
    out("sync")
    record("other")
    names = {
        "directory": str(run.directory),
        "name of directory": run.directory.name,
        "prefix": run.directory.name[:-3],
        "name": "wanted",
        "label": f"wanted-{run.uid[-4:]}",
        "uid": run.uid,
        "run id": server.run("wanted").run_id,
    }
    code, said, _ = out("show", names[by])
    assert (0, True) == (code, run.uid in said)


def test_show_the_latest(record: Record, out: Any) -> None:
    """Without a name the run that began last is shown."""
    record("zzz")
    run = record("aaa")
    assert run.uid in out("show")[1]


def test_show_an_ambiguous_name(record: Record, out: Any) -> None:
    """Several runs of one name: exit code 2 and their directories."""
    runs = [record("same"), record("same")]
    code, _, complaint = out("show", "same")
    assert 2 == code
    assert all(run.directory.name in complaint for run in runs)


@pytest.mark.parametrize("arguments", [("show",), ("show", "nothing")])
def test_show_without_runs(root: Path, out: Any, arguments: tuple[str, ...]) -> None:
    """No such run, or none at all: exit code 2, and where was looked."""
    code, said, complaint = out(*arguments)
    assert (2, "", True) == (code, said, str(root) in complaint)


def test_show_compares_runs(record: Record, out: Any) -> None:
    """Several runs stand side by side: parameters that differ, and each metric's last, lowest and highest value."""
    first = record("first", params={"lr": 0.1, "depth": 3})
    second = record("second", points=2, params={"lr": 0.2, "depth": 3})
    code, said, _ = out("show", first.uid, second.uid)
    lines = [line.split() for line in said.splitlines()]
    assert (0, True) == (code, ["lr", "0.1", "0.2"] in lines)
    assert "1 parameter with the same value in all runs" in said
    assert [["loss", "0.33333", "0.5"], ["loss", "0.33333", "0.5"], ["loss", "1", "1"]] == [
        line for line in lines if line[:1] == ["loss"]
    ]
