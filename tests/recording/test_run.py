"""The Run as users call it: what it keeps, what it leaves out and says, how it ends. Recorded only, no server."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import ending, rundir
from mlops_integrations.journal.records import Artifact, End, Header, Losses, Metrics, Params, Record, RunSpec, Tags
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import process_exit
from mlops_integrations.recording.run import Run

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")

Read = Callable[[Path], list[Record]]
Python = Callable[..., "subprocess.CompletedProcess[str]"]
Point = tuple[str, float | str, int]


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recording alone is what is tested here: the thread driver has nothing to do without a server."""
    monkeypatch.setenv("MLOPS_UPLOADER", "thread")


@pytest.fixture
def run() -> Iterator[Run]:
    """An open run without a server."""
    opened = mlops.start_run(run_name="baseline")
    yield opened
    opened.finish()


@pytest.fixture
def points(read: Read) -> Callable[[Run], list[Point]]:
    """All metric values of a run, in order."""

    def points_of(run: Run) -> list[Point]:
        return [item for record in read(run.directory) if isinstance(record, Metrics) for item in record.values]

    return points_of


Points = Callable[[Run], list[Point]]


def merged(records: list[Record], kind: type[Params] | type[Tags]) -> dict[str, str]:
    """Parameters or tags of all calls together."""
    found: dict[str, str] = {}
    for record in records:
        if isinstance(record, kind):
            found |= record.values
    return found


def losses(records: list[Record]) -> dict[str, int]:
    """What the last journal says was lost."""
    return [record.counts for record in records if isinstance(record, Losses)][-1]


# -- the surface ----------------------------------------------------------------------------------------------------


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


# -- metrics --------------------------------------------------------------------------------------------------------


def test_metrics(run: Run, read: Read) -> None:
    """Every key of a call stands in one record, with the call's step and time."""
    before = time.time_ns() // 1_000_000
    run.log_metrics({"train/loss": 0.3, "точность": 1, "損失": True}, step=7)
    run.log_metrics({"nan": float("nan"), "inf": float("inf"), "low": float("-inf")}, step=-(2**63), timestamp=123)
    run.log_metric("lr", 0.1, 2**63 - 1, 456)
    first, second, third = (record for record in read(run.directory) if isinstance(record, Metrics))
    assert first.values == [("train/loss", 0.3, 7), ("точность", 1.0, 7), ("損失", 1.0, 7)]
    assert before <= first.time <= time.time_ns() // 1_000_000
    assert (
        Metrics(123, [("nan", "NaN", -(2**63)), ("inf", "Infinity", -(2**63)), ("low", "-Infinity", -(2**63))])
        == second
    )
    assert Metrics(456, [("lr", 0.1, 2**63 - 1)]) == third


def test_step_left_out(run: Run, points: Points) -> None:
    """One past the key's last step, from 0, each key for itself."""
    run.log_metric("a", 0.0)
    run.log_metric("a", 1.0)
    run.log_metrics({"a": 2.0, "b": 0.0})
    run.log_metric("b", 1.0, step=10)
    run.log_metrics({"a": 3.0, "b": 2.0})
    run.log_metric("top", 1.0, step=2**63 - 1)
    run.log_metric("top", 2.0)
    steps = [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 10),
        ("a", 3),
        ("b", 11),
        ("top", 2**63 - 1),
        ("top", 2**63 - 1),
    ]
    assert steps == [(key, step) for key, _, step in points(run)]


@pytest.mark.parametrize(
    ("step", "kept", "said"),
    [
        (2.0, 2, ""),
        (1.5, 1, "rounded down"),
        (True, 1, ""),
        ("5", 0, "step '5'"),
        (2**63, 0, "64 bits"),
        (float("nan"), 0, "step nan"),
    ],
)
def test_steps_of_other_kinds(
    run: Run, points: Points, caplog: pytest.LogCaptureFixture, step: Any, kept: int, said: str
) -> None:
    """What is no integer becomes one, or the next step; and that is said once."""
    caplog.clear()
    run.log_metric("a", 1.0, step=step)
    run.log_metric("b", 1.0, step=step)
    assert [("a", 1.0, kept), ("b", 1.0, kept)] == points(run)
    assert (1 if said else 0) == len(caplog.messages)
    assert said in caplog.text


@pytest.mark.parametrize("timestamp", [-1, "yesterday", float("nan"), 2**63])
def test_time_that_is_none(run: Run, read: Read, caplog: pytest.LogCaptureFixture, timestamp: Any) -> None:
    """The present time is taken, and that is said."""
    run.log_metric("a", 1.0, timestamp=timestamp)
    record = read(run.directory)[2]
    assert isinstance(record, Metrics)
    assert abs(record.time / 1000 - time.time()) < 60
    assert "the present time is taken" in caplog.text


def test_what_is_no_number(read: Read, points: Points, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, counted, and said once of each key; the rest of the call is kept."""
    run = mlops.start_run()
    run.log_metrics({"text": "x", "loss": 0.5, "none": None, "pair": [1, 2]}, step=1)
    run.log_metric("text", object())
    run.finish()
    assert points(run) == [("loss", 0.5, 1)]
    assert losses(read(run.directory)) == {"metric that is no number": 4}
    said = [message for message in caplog.messages if message.startswith("mlops: not kept: metric that is no number")]
    assert [message.partition("(")[2].partition(":")[0] for message in said] == ["text", "none", "pair"]
    assert caplog.messages[-1] == "mlops: not kept in all: 4 x metric that is no number"


def test_many_things_that_are_no_numbers(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Only the first few keys are named: a mistake in a large loop does not fill the terminal."""
    run.log_metrics({f"key{i}": None for i in range(100)})
    assert sum("no number" in message for message in caplog.messages) == 5


def test_losses_are_counted_once(read: Read) -> None:
    """Each journal file counts its own losses, so that a re-opened run does not count them again."""
    run = mlops.start_run()
    run.log_metric("a", None)
    run.finish()
    run.log_metric("a", 1.0)
    run.finish()
    assert losses(read(run.directory)) == {"metric that is no number": 1}


def test_what_is_logged_after_the_end_does_not_change_how_it_ended(
    python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """A run that FAILED, re-opened by a late log call and left open, is FAILED with its reason."""
    done = python(
        "import mlops_integrations as mlops\n"
        "try:\n"
        "    with mlops.start_run(uploader='thread') as run:\n"
        "        raise ValueError('boom')\n"
        "except ValueError:\n"
        "    run.log_metric('late', 1)\n"
        "print(run.directory)\n"
    )
    assert done.returncode == 0, done.stderr
    ended = RunDirectory(Path(done.stdout.strip())).ending()
    assert ended is not None
    assert (ended.status, ended.reason) == ("FAILED", "ValueError: boom")


@pytest.mark.parametrize("call", ["log_metrics", "log_params", "set_tags"])
def test_no_mapping(run: Run, read: Read, caplog: pytest.LogCaptureFixture, call: str) -> None:
    """A list in place of a mapping is a wrong argument: counted, said with what would be right, never raised."""
    getattr(run, call)([("a", 1)])
    assert caplog.messages[-1] == (
        f"mlops: not kept: wrong argument ({call} takes a mapping of names to values, not list)"
    )


@pytest.mark.parametrize("name", ["params", "tags"])
def test_start_with_no_mapping(name: str) -> None:
    """At construction a wrong argument is an error."""
    with pytest.raises(ValueError, match=f"{name}= takes a mapping"):
        mlops.start_run(**{name: [1]})


def test_call_with_nothing_to_keep(run: Run, read: Read) -> None:
    """It writes no record."""
    run.log_metrics({})
    run.log_metrics({"a": "x"})
    run.log_params({})
    run.set_tags({})
    assert [Header, RunSpec] == [type(record) for record in read(run.directory)]


def test_keys_that_are_no_text(run: Run, points: Points) -> None:
    """They are kept by ``str``; half surrogate pairs are spelled out."""
    run.log_metrics({1: 1.0, ("a", 2): 2.0}, step=0)  # type: ignore[dict-item]
    run.log_metrics({"bad\ud800": 3.0, "good": 4.0}, step=0)
    assert points(run) == [("1", 1.0, 0), ("('a', 2)", 2.0, 0), ("bad\\ud800", 3.0, 0), ("good", 4.0, 0)]


def test_numpy_values(run: Run, points: Points) -> None:
    """NumPy's numbers are values, its integers steps and its texts names."""
    np = pytest.importorskip("numpy")
    run.log_metrics({np.str_("a"): np.float32(0.5), "b": np.array([2])}, step=np.int64(3))
    run.log_params({np.str_("p"): np.str_("v")})
    assert points(run) == [("a", 0.5, 3), ("b", 2.0, 3)]


def test_a_step_is_not_given_out_again_to_another_thread(
    run: Run, points: Points, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that was taken is not noted once more, when another thread has taken the following ones meanwhile."""
    taken = run._metric_input
    next_step = taken.next_step

    def overtaken(key: str) -> int:
        step = next_step(key)
        next_step(key)
        return step

    with monkeypatch.context() as beside:
        beside.setattr(taken, "next_step", overtaken)
        run.log_metric("loss", 1.0)
    run.log_metric("loss", 1.0)
    assert [0, 2] == [step for _, _, step in points(run)]


def test_threads_log_at_the_same_time(run: Run, points: Points) -> None:
    """Every point is there, each thread's in its order, and next steps are given out once."""
    barrier = threading.Barrier(4)

    def log(number: int) -> None:
        barrier.wait(10)
        for step in range(200):
            run.log_metrics({f"thread {number}": step, "more": 0.0}, step=step)
            run.log_metric("shared", 1.0)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = points(run)
    for number in range(4):
        assert list(range(200)) == [step for key, _, step in found if key == f"thread {number}"]
    assert list(range(800)) == sorted(step for key, _, step in found if key == "shared")


def test_large_call(run: Run, points: Points) -> None:
    """Ten thousand keys in one call are kept like one."""
    run.log_metrics({f"key {number}": number for number in range(10_000)}, step=1)
    assert [(f"key {number}", float(number), 1) for number in range(10_000)] == points(run)


# -- parameters, tags -----------------------------------------------------------------------------------------------


def test_params(run: Run, read: Read) -> None:
    """Any value by ``str``, nested mappings flattened with a slash."""
    run.log_params({"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "seed": None, 3: True})
    run.log_param("имя", "значение")
    expected = {"optimizer/lr": "0.1", "optimizer/betas": "(0.9, 0.99)", "seed": "None", "3": "True", "имя": "значение"}
    assert expected == merged(read(run.directory), Params)


def test_param_given_again(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """The same value is silent; another one is kept out, counted, and said with its name."""
    run = mlops.start_run(params={"lr": 0.1})
    caplog.clear()
    run.log_params({"lr": "0.1"})
    run.log_param("lr", 0.1)
    assert caplog.messages == []
    run.log_params({"lr": 0.2, "depth": 3})
    run.log_param("lr", 0.3)
    run.finish()
    records = read(run.directory)
    assert [record.values for record in records if isinstance(record, Params)] == [{"lr": "0.1"}, {"depth": "3"}]
    assert losses(records) == {"parameter given again with another value": 2}
    assert sum("lr" in message for message in caplog.messages) == 1


def test_tags(run: Run, read: Read) -> None:
    """Each call is kept: the last value stands when they are delivered."""
    run.set_tags({"stage": "dev", "n": 1})
    run.set_tag("stage", "prod")
    assert merged(read(run.directory), Tags) == {"stage": "prod", "n": "1"}


def test_params_and_tags_of_the_start(read: Read) -> None:
    """They are recorded at once."""
    run = mlops.start_run(params={"a": {"b": 1}}, tags={"team": "vision"})
    assert (
        merged(read(run.directory), Params),
        merged(read(run.directory), Tags),
    ) == ({"a/b": "1"}, {"team": "vision"})
    run.finish()


# -- calls in the style of others -----------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False])
def test_calls_in_the_style_of_mlflows_client(
    read: Read, points: Points, caplog: pytest.LogCaptureFixture, own: bool
) -> None:
    """A run id in front is recognized and said; this run's is recorded, another's is counted as lost."""
    run = mlops.start_run()
    caplog.clear()
    run_id = run.uid if own else "0123456789abcdef0123456789abcdef"
    run.log_metric(run_id, "a", 0.5)
    run.log_metric(run_id, "b", 0.5, 123, 7)
    run.log_metric(run_id, "c", 0.5, timestamp=123, step=8)
    run.log_param(run_id, "p", 1)
    run.set_tag(run_id, "t", "x")
    run.finish()
    records = read(run.directory)
    assert ([("a", 0.5, 0), ("b", 0.5, 7), ("c", 0.5, 8)] if own else []) == points(run)
    assert ({"p": "1"} if own else {}) == merged(records, Params)
    assert ({"t": "x"} if own else {}) == merged(records, Tags)
    if own:
        assert [record.time for record in records if isinstance(record, Metrics)][1:] == [123, 123]
    else:
        assert losses(records) == {"call with the id of another run": 5}
    for call in ("log_metric", "log_param", "set_tag"):
        assert sum(f"run.{call} takes no run id" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("value", [{"value": 0.5}, {"value": 0.5, "step": 3}])
def test_client_style_by_keyword(run: Run, points: Points, value: dict[str, Any]) -> None:
    """``client.log_metric(run_id, "loss", value=0.5)`` is a call in that style too, and no error."""
    run.log_metric(run.uid, "loss", **value)
    assert [("loss", 0.5, value.get("step", 0))] == points(run)


def test_client_style_by_keyword_of_texts(run: Run, read: Read) -> None:
    """So are ``log_param`` and ``set_tag``."""
    run.log_param(run.uid, key="p", value=1)
    run.set_tag(run.uid, key="t", value=1)
    assert (merged(read(run.directory), Params), merged(read(run.directory), Tags)) == ({"p": "1"}, {"t": "1"})


def test_everything_by_keyword(run: Run, read: Read, points: Points, caplog: pytest.LogCaptureFixture) -> None:
    """Ours by their names, with nothing to say about it."""
    caplog.clear()
    run.log_metrics(metrics={"a": 1.0}, step=1, timestamp=5)
    run.log_metric(key="b", value=2.0, step=2, timestamp=6)
    run.log_params(params={"p": 1})
    run.log_param(key="q", value=2)
    run.set_tags(tags={"t": 1})
    run.set_tag(key="u", value=2)
    assert points(run) == [("a", 1.0, 1), ("b", 2.0, 2)]
    assert merged(read(run.directory), Params) == {"p": "1", "q": "2"}
    assert merged(read(run.directory), Tags) == {"t": "1", "u": "2"}
    assert caplog.messages == []


def test_keywords_of_other_trackers(
    run: Run, read: Read, points: Points, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What we do not take is left out and said; it raises nothing, and the rest is recorded."""
    (tmp_path / "f").write_text("x")
    run.log_metrics({"a": 1.0}, step=1, synchronous=False)
    run.log_metrics({"a": 1.0}, 2, None, "model", dataset=None)
    run.log_metric("a", 1.0, step=3, model_id="m")
    run.log_params({"p": 1}, synchronous=True)
    run.log_param("q", 2, synchronous=True)
    run.set_tags({"t": 1}, synchronous=True)
    run.set_tag("u", 2, synchronous=True)
    run.log_artifact("f", "d", run_id="r")
    assert [step for _, _, step in points(run)] == [1, 2, 3]
    assert merged(read(run.directory), Params) == {"p": "1", "q": "2"}
    assert merged(read(run.directory), Tags) == {"t": "1", "u": "2"}
    assert (run.directory / "artifacts" / "d" / "f").exists()
    assert "run.log_metrics does not take synchronous: left out" in caplog.text


@pytest.mark.swallows
@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_metrics([("a", 1.0)]),
        lambda run: run.log_metrics(None),
        lambda run: run.log_params("lr=0.1"),
        lambda run: run.log_params(None),
        lambda run: run.set_tags(5),
        lambda run: run.log_artifact(None),
        lambda run: run.log_metric([], "a", 1.0),
        lambda run: run.log_param({}, "a", 1.0),
    ],
)
def test_calls_that_make_no_sense(
    run: Run, points: Points, caplog: pytest.LogCaptureFixture, call: Callable[[Run], None]
) -> None:
    """They end no training: they are counted and said, and the run goes on."""
    caplog.clear()
    call(run)
    run.log_metric("after", 1.0)
    assert ("after", 1.0, 0) in points(run)
    assert len(caplog.messages) >= 1


def test_control_characters_do_not_reach_the_terminal(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A key may come from a file that a stranger made."""
    run.log_metrics({"\x1b[31mred\nmlops: forged": "no number"})
    run.log_metric("a", 1.0, step="\x1b[31m")  # type: ignore[arg-type]
    run.log_params({"\x1b[31m": 1})
    run.log_params({"\x1b[31m": 2})
    run.log_metrics({"a": 1.0}, **{"\x1b[31m": 1})  # type: ignore[arg-type]
    assert all(message.isprintable() for message in caplog.messages)


# -- artifacts ------------------------------------------------------------------------------------------------------


def test_artifact_is_a_copy_of_this_moment(run: Run, read: Read, tmp_path: Path) -> None:
    """What happens to the file afterwards changes nothing."""
    source = tmp_path / "модель.pt"
    source.write_bytes(b"first")
    run.log_artifact(source, "checkpoints/best")
    source.write_bytes(b"second")
    source.unlink()
    assert (run.directory / "artifacts" / "checkpoints" / "best" / "модель.pt").read_bytes() == b"first"
    record = read(run.directory)[2]
    assert isinstance(record, Artifact)
    assert (
        record.file,
        record.path,
        record.size,
    ) == ("artifacts/checkpoints/best/модель.pt", "checkpoints/best/модель.pt", 5)


def test_artifact_logged_again(run: Run, tmp_path: Path) -> None:
    """The last copy stands, and no half copies are left."""
    (tmp_path / "f").write_bytes(b"1")
    run.log_artifact(str(tmp_path / "f"))
    (tmp_path / "f").write_bytes(b"22")
    run.log_artifact(tmp_path / "f")
    assert {path.name: path.read_bytes() for path in (run.directory / "artifacts").iterdir()} == {"f": b"22"}


def test_directory_as_artifact(run: Run, read: Read, tmp_path: Path) -> None:
    """Every file below it, by its place there."""
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "a").write_bytes(b"1")
    (tmp_path / "out" / "deep" / "b").write_bytes(b"22")
    run.log_artifact(tmp_path / "out", "plots")
    paths = {record.path: record.size for record in read(run.directory) if isinstance(record, Artifact)}
    assert paths == {"plots/a": 1, "plots/deep/b": 2}


@pytest.mark.parametrize("path", ["..", "../up", "a/../../b", "/abs", "a\\..\\b", "nul\x00"])
def test_artifact_path_that_leads_out(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str) -> None:
    """It is refused and said; nothing is written anywhere."""
    (tmp_path / "f").write_bytes(b"1")
    before = sorted(tmp_path.rglob("f"))
    run.log_artifact(tmp_path / "f", path)
    assert before == sorted(tmp_path.rglob("f"))
    assert "artifact that could not be copied" in caplog.text


def test_artifact_that_is_not_there(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing file ends no training."""
    run.log_artifact(tmp_path / "missing")
    assert "artifact that could not be copied" in caplog.text
    assert "missing" in caplog.text


@posix
def test_everything_is_private_under_any_umask(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, whatever is logged."""
    (tmp_path / "f").write_bytes(b"1")
    before = os.umask(0)
    try:
        run = mlops.start_run(run_name="private")
        run.log_metric("a", 1.0)
        run.log_artifact(tmp_path / "f", "deep/er")
        run.finish()
    finally:
        os.umask(before)
    root = tmp_path / "mlops_runs"
    places = [path for path in (root, *root.rglob("*")) if not path.is_symlink()]
    modes = {str(path.relative_to(tmp_path)): oct(path.stat().st_mode & 0o777) for path in places}
    assert {str(path.relative_to(tmp_path)): "0o700" if path.is_dir() else "0o600" for path in places} == modes


# -- waiting and ending ---------------------------------------------------------------------------------------------


def test_flush_without_a_server() -> None:
    """False at once: there is nothing to wait for."""
    run = mlops.start_run()
    run.log_metric("a", 1.0)
    began = time.monotonic()
    assert not run.flush(timeout=300.0)
    assert not run.finish(timeout=300.0)
    assert time.monotonic() - began < 60


def end_of(records: list[Record]) -> End:
    """The last record, which must be an end."""
    assert isinstance(records[-1], End)
    return records[-1]


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


# -- resuming, parents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["run", "uid"])
def test_resume(read: Read, points: Points, by: str) -> None:
    """The same run goes on, in the same directory, through a journal file of its own."""
    first = mlops.start_run(run_name="first", experiment_name="digits")
    first.log_metric("a", 1.0, step=1)
    first.finish()
    second = mlops.start_run(resume=first if by == "run" else first.uid)
    second.log_metric("a", 2.0, step=2)
    second.finish()
    assert (first.uid, first.directory, first.name) == (second.uid, second.directory, second.name)
    assert points(first) == [("a", 1.0, 1), ("a", 2.0, 2)]
    specs = [record for record in read(first.directory) if isinstance(record, RunSpec)]
    assert len(specs) == 2
    assert specs[0] == specs[1]


def test_resume_of_a_run_that_is_not_there(tmp_path: Path) -> None:
    """A uid of ours belongs to a directory: without it there is nothing to go on with."""
    with pytest.raises(RunDirectoryError, match="mlops-0000"):
        mlops.start_run(resume="mlops-0000")


def test_resume_of_a_servers_run(read: Read) -> None:
    """An id of the server is noted, to be gone on with there."""
    run = mlops.start_run(resume="0123456789abcdef")
    run.finish()
    spec = read(run.directory)[1]
    assert isinstance(spec, RunSpec)
    assert spec.resume_run_id == "0123456789abcdef"


def test_run_of_the_environment(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """``MLFLOW_RUN_ID`` is gone on with by the first run of the process, not by a second one as well."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "fedcba9876543210")
    first = mlops.start_run()
    first.finish()
    second = mlops.start_run()
    second.finish()
    specs = [read(run.directory)[1] for run in (first, second)]
    assert [spec.resume_run_id for spec in specs if isinstance(spec, RunSpec)] == ["fedcba9876543210", None]


def test_parent(read: Read) -> None:
    """A parent is noted by its uid and its directory, so that it is found on every server; or by its id there."""
    parent = mlops.start_run()
    child, other = mlops.start_run(parent=parent), mlops.start_run(parent="0123")
    for run in (child, other, parent):
        run.finish()
    specs = [read(run.directory)[1] for run in (child, other)]
    expected = [(parent.uid, str(parent.directory)), ("0123", None)]
    assert expected == [(spec.parent, spec.parent_directory) for spec in specs if isinstance(spec, RunSpec)]


# -- directories ----------------------------------------------------------------------------------------------------


def test_root(run: Run, tmp_path: Path) -> None:
    """The root ignores itself, and its link points to the run."""
    assert (tmp_path / "mlops_runs" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "mlops_runs" / "latest").resolve() == run.directory.resolve()


def test_directory_argument_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are made where they are asked for."""
    monkeypatch.setenv("MLOPS_DIR", str(tmp_path / "variable"))
    by_variable = mlops.start_run()
    by_argument = mlops.start_run(directory=tmp_path / "argument")
    for run in (by_variable, by_argument):
        run.finish()
    assert [tmp_path / "variable", tmp_path / "argument"] == [
        run.directory.parent for run in (by_variable, by_argument)
    ]


def test_directory_stays_where_it_is_when_the_script_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: Points
) -> None:
    """A script may change its working directory."""
    run = mlops.start_run()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.log_metric("a", 1.0)
    run.finish()
    run.log_metric("a", 2.0)
    run.finish()
    assert len(points(run)) == 2


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_directory_asked_for_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """It raises, naming the directory."""
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "runs"
    if by == "variable":
        monkeypatch.setenv("MLOPS_DIR", str(place))
    with pytest.raises(RunDirectoryError, match="can't be used for runs") as raised:
        mlops.start_run(directory=place if by == "argument" else None)
    assert str(place) in str(raised.value)
    assert isinstance(raised.value, OSError)


def test_default_directory_that_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: Points, caplog: pytest.LogCaptureFixture
) -> None:
    """A private directory among temporary files takes its place, and that is said once."""
    (tmp_path / "mlops_runs").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run = mlops.start_run()
    run.log_metric("a", 1.0)
    run.finish()
    assert points(run) == [("a", 1.0, 0)]
    assert run.directory.is_relative_to(tmp_path / "tmp")
    assert run.directory.parent.stat().st_mode & 0o777 == 0o700
    assert sum("can't be used for runs" in message for message in caplog.messages) == 1


def test_no_directory_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Then nothing is recorded, which is said; the training goes on."""
    (tmp_path / "mlops_runs").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "mlops_runs"))
    with mlops.start_run() as run:
        run.log_metrics({"a": 1.0})
        run.log_params({"a": 1})
        assert not run.flush()
    assert "nothing is recorded" in caplog.text
    assert "not kept" in caplog.text


def test_run_directory_deleted_meanwhile(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged is lost, and that is said at the next look; the training goes on."""
    for path in run.directory.iterdir():
        path.unlink()
    run.directory.rmdir()
    clock = time.time_ns() + 60 * 10**9
    monkeypatch.setattr("time.time_ns", lambda: clock)
    run.log_metric("a", 1.0)
    assert "was deleted" in caplog.text


@posix
def test_script_by_a_name_that_is_no_unicode(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """File names are bytes: one that is no UTF-8 does not keep a run from starting."""
    monkeypatch.setattr(sys, "argv", [os.fsdecode(b"/data/\xff/tr\xffain.py")])
    run = mlops.start_run(experiment_name="\ud800", parent="\ud800", tags={"\ud800": "\ud800"})
    run.finish()
    spec = read(run.directory)[1]
    assert isinstance(spec, RunSpec)
    assert spec.name == "tr\\udcffain"


@pytest.mark.parametrize("name", ["../../up", "a/b", "a\nb", "x" * 1_000, "имя 🔥", "", ".", 5, "\ud800"])
def test_run_names(tmp_path: Path, name: Any) -> None:
    """Whatever a run is called, its directory lies in the root."""
    run = mlops.start_run(run_name=name)
    run.finish()
    assert run.directory.parent == tmp_path / "mlops_runs"


# -- modes, messages ------------------------------------------------------------------------------------------------


def test_disabled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same objects, no file, no message, nothing counted aloud."""
    (tmp_path / "f").write_text("")
    with mlops.start_run(mode="disabled", params={"a": 1}, tracking_uri="http://127.0.0.1:1") as run:
        run.log_metrics({"a": 1.0}, step=1)
        run.log_params({"a": 2})
        run.set_tag("a", 1)
        run.log_artifact("f")
        assert (run.flush(), run.wait(), run.run_id, run.url) == (False, None, None, None)
    assert not run.finish()
    assert [tmp_path / "f"] == list(tmp_path.iterdir())
    assert caplog.messages == []


def test_disabled_run_in_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    """A pickled one is as silent."""
    run = pickle.loads(pickle.dumps(mlops.start_run(mode="disabled")))
    run.log_metric("a", 1.0)
    run.finish()
    assert caplog.messages == []


def test_offline(caplog: pytest.LogCaptureFixture) -> None:
    """A server is noted, not asked; no process, no thread."""
    before = threading.active_count()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        run = mlops.start_run(mode="offline", tracking_uri=uri)
        run.log_metric("a", 1.0)
        assert not run.flush(timeout=60.0)
        assert not run.finish(timeout=60.0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert before == threading.active_count()


def test_first_message(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Where the run is recorded, through our logger, at a level that is shown without any set-up."""
    run = mlops.start_run(run_name="baseline")
    run.finish()
    assert [(entry.name, entry.levelno) for entry in caplog.records] == [("mlops_integrations", logging.WARNING)]
    start = f"mlops: recording baseline-{run.uid[-4:]} in {run.directory}"
    assert caplog.messages[0].startswith(start)


def test_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """``MLOPS_QUIET`` takes the first message away, and leaves what the user must know."""
    monkeypatch.setenv("MLOPS_QUIET", "1")
    run = mlops.start_run()
    assert caplog.messages == []
    run.log_metrics({"a": "text"})
    run.finish()
    assert len(caplog.messages) == 1


def test_logging_is_left_as_it_is() -> None:
    """We add no handler and set no level."""
    ours = logging.getLogger("mlops_integrations")
    assert (ours.handlers, ours.level, ours.propagate) == ([], logging.NOTSET, True)


def test_messages_reach_stderr_without_any_setup(python: Python) -> None:
    """A plain script shows them, on stderr, and keeps stdout for itself."""
    done = python(
        "import mlops_integrations as m; m.start_run(run_name='plain', mode='offline', uploader='thread').finish()"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("mlops: recording plain-")


def test_training_after_an_end_that_does_not_end(run: Run) -> None:
    """A second training that is cut off by the exit makes the run FAILED, however well the first one had ended."""
    run._recorder.training_began()
    run._recorder.training_ended()
    run.finish()
    run._recorder.training_began()
    run._recorder.end("FINISHED", None, provisional=True)
    ended = RunDirectory(run.directory).ending()
    assert ended is not None
    assert (ended.status, ended.reason) == ("FAILED", ending.NOT_ENDED)


@pytest.mark.parametrize("shell", [None, object()], ids=["imported only", "interactive"])
def test_exception_where_ipython_is_imported(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    """Many a library imports IPython in a mere script, where an uncaught exception is the end; a shell outlives it."""
    error = ValueError("boom")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "last_exc", error, raising=False)
    assert process_exit.uncaught_exception() is (error if shell is None else None)


@posix
def test_daemon_thread_that_logs_during_exit(python: Python) -> None:
    """A run that is re-opened while the exit waits gets an end all the same, and what is left of it is said."""
    script = """
import sys, threading, time
import mlops_integrations as mlops
run = mlops.start_run(tracking_uri=sys.argv[1])
print(run.directory)
def log():
    while run.is_open:
        time.sleep(0.001)
    run.log_metric("late", 1.0)
threading.Thread(target=log, daemon=True).start()
"""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = python(script, uri, MLOPS_FINISH_TIMEOUT="1", MLOPS_UPLOADER="thread")
    run = RunDirectory(Path(done.stdout.strip()))
    assert (len(run.journals()), done.returncode) == (2, 0), done.stderr
    assert [True, True] == [isinstance(rundir.end_of(path), End) for path in run.journals()]
    assert "Traceback" not in done.stderr
    assert "0 of 1 points delivered" in done.stderr


# -- other processes ------------------------------------------------------------------------------------------------


def test_pickled_run(read: Read, points: Points) -> None:
    """It records into the same run through a journal file of its own; without logging it opens none."""
    run = mlops.start_run(tracking_uri="http://user:s3cr3t@h", mode="offline")
    run.log_metric("a", 1.0, step=0)
    content = pickle.dumps(run)
    assert b"s3cr3t" not in content
    worker, idle = pickle.loads(content), pickle.loads(content)
    assert (run.uid, run.directory, run.name) == (worker.uid, worker.directory, worker.name)
    worker.log_metric("b", 2.0, step=0)
    worker.finish()
    idle.finish()
    assert run.is_open
    run.log_metric("a", 3.0, step=1)
    run.finish()
    assert len(list(run.directory.glob("journal-*.jsonl"))) == 2
    assert points(run) == [("a", 1.0, 0), ("a", 3.0, 1), ("b", 2.0, 0)]


def test_copies(run: Run) -> None:
    """Frameworks copy what is handed to them: a copy in the same process is the very same run."""
    assert copy.copy(run) is run
    assert copy.deepcopy({"logger": run})["logger"] is run


FORK = """
import os, sys, threading
import mlops_integrations as mlops
run = mlops.start_run(run_name="forked", tracking_uri=sys.argv[1], uploader="thread")
print(run.directory, flush=True)
stop = threading.Event()
def log():
    step = 0
    while not stop.is_set():
        run.log_metric("thread", 1.0, step=step)
        step += 1
thread = threading.Thread(target=log)
thread.start()
children = []
for number in range(5):
    run.log_metric("parent", 1.0, step=number)
    child = os.fork()
    if child == 0:
        for step in range(100):
            run.log_metrics({"child": 1.0}, step=step)
            run.log_params({"child": step})
        assert not run.flush(timeout=300.0)
        assert not run.finish(timeout=300.0)
        assert mlops.active_run() is None
        sys.exit(0) if number % 2 else os._exit(0)
    children.append(child)
stop.set()
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
thread.join()
run.log_metric("parent", 1.0, step=5)
run.finish(timeout=0)
sys.stdout.flush()
os._exit(0)
"""


@posix
def test_fork(python: Python, points: Points, read: Read) -> None:
    """In a forked child the run is a counted no-op, said once; it ends at once, and the parent's journal is whole."""
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = python(FORK, uri, MLOPS_FINISH_TIMEOUT="300")
    directory, codes = done.stdout.splitlines()
    assert (codes, done.returncode) == ("[0, 0, 0, 0, 0]", 0)
    records = read(Path(directory))
    found = [item for record in records if isinstance(record, Metrics) for item in record.values]
    assert list(range(6)) == [step for key, _, step in found if key == "parent"]
    steps = [step for key, _, step in found if key == "thread"]
    assert list(range(len(steps))) == steps
    assert {"parent", "thread"} == {key for key, _, _ in found}
    assert len(list(Path(directory).glob("journal-*.jsonl"))) == 1
    assert isinstance(records[-1], End)
    assert done.stderr.count("logged in a forked process") == 5
    assert "Traceback" not in done.stderr


@posix
def test_signal_handler_that_logs(python: Python, read: Read) -> None:
    """A handler may log in the middle of a log call, and of another handler's."""
    script = """
import itertools, signal
import mlops_integrations as mlops
run = mlops.start_run(run_name="signals")
numbers, calls = itertools.count(), []
def handler(*_):
    number = next(numbers)
    run.log_metrics({"handler": 1.0}, step=number)
    run.log_params({f"p{number}": 1})
    calls.append(number)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
step = 0
while len(calls) < 100:
    run.log_metrics({"main": 1.0}, step=step)
    run.log_params({f"q{step}": 1})
    step += 1
signal.setitimer(signal.ITIMER_REAL, 0)
run.finish()
print(run.directory, len(calls), step)
"""
    done = python(script, MLOPS_UPLOADER="thread")
    directory, count, step = done.stdout.split()
    records = read(Path(directory))
    found = [item for record in records if isinstance(record, Metrics) for item in record.values]
    # A handler may be interrupted by the next one, so that its call comes later.
    assert list(range(int(count))) == sorted(number for key, _, number in found if key == "handler")
    assert list(range(int(step))) == [number for key, _, number in found if key == "main"]
    assert int(count) + int(step) == len(merged(records, Params))
