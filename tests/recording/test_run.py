"""The Run as users call it: what it offers, and how it ends. Recorded only, no server."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import End, Header, Record, RunSpec
from mlops_integrations.recording.run import Run
from records_read import end_of

pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]
Point = tuple[str, float | str, int]
Points = Callable[[Run], list[Point]]


def test_names_that_people_call() -> None:
    """These names and keywords are fixed."""
    expected = {
        "experiment_name", "experiment_id", "run_name", "tracking_uri", "resume", "parent", "params", "tags",
        "directory", "mode", "uploader",
    }  # fmt: skip
    parameters = inspect.signature(mlops.start_run).parameters
    assert expected == set(parameters)
    assert {(inspect.Parameter.KEYWORD_ONLY, None)} == {(known.kind, known.default) for known in parameters.values()}
    calls = ["log_metrics", "log_metric", "log_params", "log_param", "set_tags", "set_tag", "log_artifact", "flush",
             "finish", "wait", "directory", "uid", "run_id", "url"]  # fmt: skip
    assert [name for name in calls if not hasattr(Run, name)] == []
    assert {"start_run", "active_run", "Run", "errors"} <= set(dir(mlops))
    assert inspect.signature(Run.flush).parameters["timeout"].default == 5.0
    assert inspect.signature(Run.wait).parameters["timeout"].default == 10.0


@pytest.mark.parametrize(
    ("call", "arguments"),
    [("log_metric", "key value step timestamp"), ("log_param", "key value"), ("set_tag", "key value")],
)
def test_signatures_that_editors_show(call: str, arguments: str) -> None:
    """Those of the plain form, though foreign forms are taken too."""
    assert list(inspect.signature(getattr(Run, call)).parameters) == ["self", *arguments.split()]


def test_what_a_run_knows_at_once(run: Run, tmp_path: Path) -> None:
    """Its directory and our own id; nothing of a server."""
    assert run.directory.parent == tmp_path / "mlops_runs"
    assert run.uid.startswith("mlops-")
    assert run.directory.name.endswith(f"-baseline-{run.uid[-4:]}")
    assert (run.run_id, run.url, run.wait(timeout=60.0)) == (None, None, None)
    assert "baseline" in repr(run)


def test_first_lines(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes, what run it is, and where it is to go; without the credentials of the address."""
    monkeypatch.setattr(sys, "argv", ["/code/train.py"])
    run = mlops.start_run(
        experiment_name="digits", tracking_uri="http://user:s3cr3t@host:5000/x/", mode="offline", parent="abc"
    )
    run.finish()
    header, spec = read(run.directory)[:2]
    assert isinstance(header, Header)
    assert isinstance(spec, RunSpec)
    assert (run.uid, os.getpid()) == (header.uid, header.writer.pid)
    assert (run.uid, "train", "http://host:5000/x", "digits", None, "abc", "/code/train.py", "LOCAL") == (
        spec.uid, spec.name, spec.tracking_uri, spec.experiment_name, spec.experiment_id, spec.parent,
        spec.source_name, spec.source_type,
    )  # fmt: skip
    assert abs(spec.start_time / 1000 - time.time()) < 60
    assert not any(b"s3cr3t" in path.read_bytes() for path in run.directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "on"}, {"uploader": "x"}, {"tracking_uri": "host:5000"}, {"experiment_name": "a", "experiment_id": "1"}],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], tmp_path: Path) -> None:
    """They raise before anything is made."""
    with pytest.raises(ValueError):
        mlops.start_run(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_flush_without_a_server() -> None:
    """False at once: there is nothing to wait for."""
    run = mlops.start_run()
    run.log_metric("a", 1.0)
    began = time.monotonic()
    assert not run.flush(timeout=300.0)
    assert not run.finish(timeout=300.0)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("status", "kept"), [(None, "FINISHED"), ("FINISHED", "FINISHED"), ("failed", "FAILED"), ("KILLED", "KILLED")]
)
def test_finish(read: Read, status: str | None, kept: str) -> None:
    """The status that was told stands, for good."""
    run = mlops.start_run()
    run.log_metrics({"a": 1.0, "b": 2.0})
    run.finish(status)
    end = end_of(read(run.directory))
    assert (kept, None, False, 2) == (end.status, end.reason, end.provisional, end.points)
    assert not run.is_open


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "DONE", "", 3])
def test_finish_with_a_status_that_is_none(run: Run, status: Any) -> None:
    """The call raises, tells what would do, and the run stays open."""
    with pytest.raises(ValueError, match="'FINISHED', 'FAILED' or 'KILLED'"):
        run.finish(status)
    assert run.is_open


def test_finish_again(read: Read) -> None:
    """It changes nothing."""
    run = mlops.start_run()
    run.finish("FAILED")
    run.finish("FINISHED")
    assert [record.status for record in read(run.directory) if isinstance(record, End)] == ["FAILED"]


def test_log_after_finish_opens_the_run_again(read: Read, points: Points) -> None:
    """A journal file of its own, the same run, steps that go on, and an end of its own."""
    run = mlops.start_run()
    run.log_metric("a", 1.0)
    run.finish()
    run.log_metric("a", 2.0)
    assert run.is_open
    assert run is mlops.active_run()
    run.finish("KILLED")
    assert sorted(path.name for path in run.directory.glob("journal-*")) == ["journal-0001.jsonl", "journal-0002.jsonl"]
    assert points(run) == [("a", 1.0, 0), ("a", 2.0, 1)]
    records = read(run.directory)
    assert [record.status for record in records if isinstance(record, End)] == ["FINISHED", "KILLED"]
    assert {run.uid} == {record.uid for record in records if isinstance(record, (Header, RunSpec))}


@pytest.mark.parametrize("call", ["log_params", "set_tags", "log_artifact"])
def test_every_kind_of_call_opens_it_again(tmp_path: Path, call: str) -> None:
    """Not only metrics."""
    (tmp_path / "f").write_text("")
    run = mlops.start_run()
    run.finish()
    getattr(run, call)("f" if call == "log_artifact" else {"a": 1})
    assert run.is_open
    run.finish()


class OddError(Exception):
    """Of a user."""


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "FINISHED", None),
        (OddError("bad loss"), "FAILED", "OddError: bad loss"),
        (KeyboardInterrupt(), "KILLED", "SIGINT"),
        (SystemExit(0), "FINISHED", None),
        (SystemExit(3), "FAILED", "exit code 3"),
    ],
)
def test_with_block(read: Read, error: BaseException | None, status: str, reason: str | None) -> None:
    """How the block was left is how the run ended; the exception goes on as it was."""
    leaves = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with leaves as left, mlops.start_run() as run:
        assert run is mlops.active_run()
        if error is not None:
            raise error
    assert error is (None if left is None else left.value)
    end = end_of(read(run.directory))
    assert (status, reason, False) == (end.status, end.reason, end.provisional)


class UnprintableError(Exception):
    """Whose text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError


def test_with_block_left_by_an_odd_exception(read: Read) -> None:
    """The user's own exception leaves the block, and the run has failed, even if it can't be printed."""
    with pytest.raises(UnprintableError), mlops.start_run() as run:
        raise UnprintableError
    assert end_of(read(run.directory)).status == "FAILED"


def test_finish_within_a_block(read: Read) -> None:
    """What was told there stands."""
    with mlops.start_run() as run:
        run.finish("KILLED")
    assert [record.status for record in read(run.directory) if isinstance(record, End)] == ["KILLED"]


def test_active_run() -> None:
    """The one that was started last and is open."""
    assert mlops.active_run() is None
    with mlops.start_run() as outer:
        assert outer is mlops.active_run()
        with mlops.start_run(parent=outer) as inner:
            assert inner is mlops.active_run()
        assert outer is mlops.active_run()
    assert mlops.active_run() is None


def test_runs_ended_in_any_order() -> None:
    """The active one is always an open one."""
    first, second, third = (mlops.start_run() for _ in range(3))
    second.finish()
    assert third is mlops.active_run()
    third.finish()
    assert first is mlops.active_run()
    first.finish()
    assert mlops.active_run() is None
