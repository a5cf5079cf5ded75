"""``RunHandle``, which every integration has: a run given or opened when needed, and mistakes said when it is made."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.framework_support.run_handle import RunHandle
from mlops_integrations.journal.records import End, Metrics, Params, Record, Tags
from mlops_integrations.journal.rundir import RunDirectory

Read = Callable[[Path], list[Record]]

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Keywords of a run that is only recorded, in the test's directory."""
    return {"uploader": "thread", "directory": tmp_path / "runs"}


def directories(root: Path) -> list[str]:
    """The names of the run directories."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink())


def in_child(work: Callable[[], None]) -> int:
    """Do this in a forked child; its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # the child must not come back into the test
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_something_else_in_place_of_a_run() -> None:
    """A name as first argument is said to be none, with what was probably meant."""
    with pytest.raises(TypeError, match="did you mean experiment_name='digits'"):
        RunHandle("digits", {})  # type: ignore[arg-type]


def test_a_run_and_keywords() -> None:
    """Either or."""
    with mlops.start_run(uploader="thread") as run, pytest.raises(ValueError, match="not both: run_name"):
        RunHandle(run, {"run_name": "a", "tags": None})


def test_a_keyword_that_there_is_not() -> None:
    """Said when the handle is made, with those that there are."""
    with pytest.raises(ValueError, match=r"unknown keyword 'experiment'.*experiment_name"):
        RunHandle(None, {"experiment": "a"})


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """Making a handle makes no file."""
    handle = RunHandle(None, {"uploader": "thread", "directory": tmp_path / "runs"})
    assert list(tmp_path.iterdir()) == []
    assert handle.run.directory.is_dir()
    handle.ended()


def test_nothing_can_be_recorded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where not even a directory for temporary files can be written, the training goes on and it is said."""
    monkeypatch.setattr("tempfile.tempdir", "/proc/nothing")
    handle = RunHandle(None, {"uploader": "thread", "directory": "/proc/nothing"})
    handle.began()
    handle.run.log_metric("a", 1)
    handle.ended()
    assert "nothing is recorded" in caplog.text
    assert not handle.run.directory.exists()


def test_a_prepared_run_records_nothing(options: dict[str, Any], read: Read) -> None:
    """Name, uid and directory are known; there is no journal before the run is asked for, then it is the same run."""
    handle = RunHandle(None, options | {"run_name": "baseline", "params": {"lr": 1}, "tags": {"team": "a"}})
    prepared = handle.prepared
    assert ("baseline", True) == (prepared.name, prepared.directory.is_dir())
    assert list(prepared.directory.iterdir()) == []
    assert mlops.active_run() is None

    assert handle.run is prepared
    assert mlops.active_run() is prepared
    handle.ended()
    records = read(prepared.directory)
    assert [Tags, Params, End] == [type(record) for record in records[2:]]


def test_a_prepared_run_that_is_written_to(options: dict[str, Any], read: Read) -> None:
    """Who has it, may log: nothing is lost, and the beginning is made up for when the framework's hook comes."""
    handle = RunHandle(None, options | {"params": {"lr": 1}})
    handle.prepared.log_metric("a", 1)
    handle.began()
    handle.ended()
    assert {Metrics, Params, End} <= {type(record) for record in read(handle.run.directory)}


def test_finishing_a_run_that_never_began(options: dict[str, Any]) -> None:
    """There is nothing to wait for and nothing to say."""
    handle = RunHandle(None, options | {"tracking_uri": "http://127.0.0.1:9"})
    assert handle.prepared.finish(timeout=5)


def test_resuming_before_the_begin(options: dict[str, Any], read: Read) -> None:
    """A checkpoint names the run to go on with: what was prepared in its place is gone."""
    first = RunHandle(None, options)
    first.began()
    first.run.log_metric("a", 1)
    first.ended()

    second = RunHandle(None, options)
    prepared = second.prepared.directory
    second.resume(first.run.uid, "server-id")
    second.began()
    second.run.log_metric("a", 2)
    second.ended()

    assert second.run.uid == first.run.uid
    assert not prepared.exists()
    assert [first.run.directory.name] == directories(options["directory"])
    points = [record.values for record in read(first.run.directory) if isinstance(record, Metrics)]
    assert points == [[("a", 1.0, 0)], [("a", 2.0, 1)]]


def test_the_latest_run_is_one_that_was_begun(options: dict[str, Any]) -> None:
    """A handle that is prepared leaves a checkpoint below ``latest`` to be found; a run that goes on is the latest."""
    latest = Path(options["directory"]) / "latest"
    first, other, second = RunHandle(None, options), RunHandle(None, options), RunHandle(None, options)
    first.run.log_metric("a", 1)
    other.run.log_metric("a", 1)
    assert latest.resolve() == other.run.directory
    assert second.prepared.directory.is_dir()
    assert latest.resolve() == other.run.directory
    second.resume(first.run.uid)
    second.began()
    assert latest.resolve() == first.run.directory
    for handle in (first, other, second):
        handle.ended()


def test_what_is_written_to_a_prepared_run_begins_it(options: dict[str, Any], read: Read) -> None:
    """Parameters and tags come first, once; a checkpoint that is read later does not take the run away."""
    with mlops.start_run(**options) as other:
        pass
    handle = RunHandle(None, options | {"params": {"lr": 1}, "tags": {"team": "a"}})
    handle.prepared.log_metric("a", 1)
    handle.resume(other.uid)
    handle.began()
    handle.ended()
    assert other.uid != handle.run.uid
    records = read(handle.run.directory)
    assert [Tags, Params, Metrics, End] == [type(record) for record in records[2:]]


def test_resuming_on_another_machine(options: dict[str, Any]) -> None:
    """Where the run's directory is not at hand, the server's run is gone on with."""
    handle = RunHandle(None, options)
    handle.resume("mlops-" + 32 * "0", "0123456789abcdef")
    handle.began()
    handle.ended()
    assert RunDirectory(handle.run.directory).spec().resume_run_id == "0123456789abcdef"


@pytest.mark.parametrize("why", ["begun", "told otherwise", "another experiment", "given"])
def test_what_is_not_resumed(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    """A run that has begun goes on; what the user says of the run wins over the checkpoint."""
    with mlops.start_run(**options, experiment_name="first") as first:
        pass
    with mlops.start_run(**options) as other:
        given = {"told otherwise": {"resume": other.uid}, "another experiment": {"experiment_name": "second"}}
        handle = RunHandle(other, {}) if why == "given" else RunHandle(None, options | given.get(why, {}))
        if why == "begun":
            handle.began()
        handle.resume(first.uid, None)
        assert handle.run.uid != first.uid
        handle.ended()


def test_options_that_come_later(options: dict[str, Any]) -> None:
    """A framework's own name for the run is taken where the user gave none."""
    handle, named = RunHandle(None, options), RunHandle(None, options | {"run_name": "mine"})
    for each in (handle, named):
        each.keep(run_name="theirs", experiment_name=None)
    assert ("theirs", "mine") == (handle.prepared.name, named.prepared.name)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(ValueError("x"), "FAILED", "ValueError: x"), (KeyboardInterrupt(), None, None), (SystemExit(3), None, None)],
)
def test_what_leaves_a_training_untold(
    options: dict[str, Any], error: BaseException, status: str | None, reason: str | None
) -> None:
    """An error ends the run; an interrupt or exit leaves it open, for the process's end to tell."""
    handle = RunHandle(None, options)
    handle.began()
    handle.left(error)
    ended = RunDirectory(handle.run.directory).ending()
    assert (status, reason) == ((None, None) if ended is None else (ended.status, ended.reason))
    handle.ended()


@pytest.mark.parametrize(("code", "expected"), [(3, ("FAILED", "exit code 3")), (0, ("FINISHED", None))])
def test_an_exit_that_leaves_a_training(
    python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, code: int, expected: tuple[str, str | None]
) -> None:
    """Where no side process asks the kernel, the training's own word tells with which code the process ended."""
    script = f"""
import sys
from mlops_integrations.framework_support.run_handle import RunHandle
handle = RunHandle(None, {{"uploader": "thread", "mode": "offline"}})
handle.began()
try:
    sys.exit({code})
except SystemExit as error:
    handle.left(error)
    raise
"""
    assert code == python(script).returncode
    ended = RunDirectory(tmp_path / "mlops_runs" / "latest").ending()
    assert ended is not None
    assert expected == (ended.status, ended.reason)


def test_training_again_after_a_failure(options: dict[str, Any]) -> None:
    """With a smaller batch, say: the run is re-opened, and its end is the last one's."""
    handle = RunHandle(None, options)
    for error in (MemoryError("too large"), None):
        handle.began()
        handle.ended() if error is None else handle.left(error)
    ended = RunDirectory(handle.run.directory).ending()
    assert ended is not None
    assert ended.status == "FINISHED"


@pytest.mark.parametrize("after", ["nothing", "logs", "ends killed", "ends failed"])
def test_requeued(options: dict[str, Any], after: str) -> None:
    """The run stays RUNNING, also if the same process logs on and is then terminated; an error of its own is told."""
    handle = RunHandle(None, options)
    handle.began()
    handle.requeued()
    if after != "nothing":
        handle.run.log_metric("a", 1)
    if after == "logs":
        handle.run._recorder.end("FINISHED", None, provisional=True)
    elif after == "ends killed":
        handle.ended("KILLED", "SIGTERM")
    elif after == "ends failed":
        handle.failed(ValueError("x"))
    ended = RunDirectory(handle.run.directory).ending()
    assert ended is not None
    assert ended.status == ("FAILED" if after == "ends failed" else "RUNNING")


@forks
@pytest.mark.parametrize("opened", ["never", "prepared", "begun", "given"])
def test_a_fork_that_trains(options: dict[str, Any], read: Read, opened: str) -> None:
    """Records into the same run through a journal file of its own, and the parent knows the run."""
    given = mlops.start_run(**options) if opened == "given" else None
    handle = RunHandle(given, {} if given else options)
    if opened == "prepared":
        assert handle.prepared.directory.is_dir()
    elif opened == "begun":
        handle.began()

    def train() -> None:
        handle.began()
        handle.run.log_metric("a", 1)
        handle.ended()
        handle.run.finish(timeout=0)

    assert in_child(train) == 0
    directory = handle.prepared.directory
    assert [directory.name] == directories(options["directory"])
    assert [[("a", 1.0, 0)]] == [record.values for record in read(directory) if isinstance(record, Metrics)]
    assert len(RunDirectory(directory).journals()) == (2 if opened in {"begun", "given"} else 1)
    handle.prepared.finish(timeout=0)


@forks
def test_a_fork_that_loads_data(options: dict[str, Any], read: Read) -> None:
    """Such a worker is a daemon: nothing is recorded, nothing hangs, no file is made."""
    handle = RunHandle(None, options)

    def load() -> None:
        handle.run.log_metric("a", 1)

    worker = multiprocessing.get_context("fork").Process(target=load, daemon=True)
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0
    assert not options["directory"].exists()
    handle.began()
    worker = multiprocessing.get_context("fork").Process(target=load, daemon=True)
    worker.start()
    worker.join(30)
    assert worker.exitcode == 0
    handle.ended()
    assert [] == [record for record in read(handle.run.directory) if isinstance(record, Metrics)]


def test_a_pickled_handle_has_the_same_run(options: dict[str, Any], read: Read) -> None:
    """As in a spawned process: whichever copy begins, all find its run."""
    handle = RunHandle(None, options)
    copy = pickle.loads(pickle.dumps(handle))
    copy.began()
    copy.run.log_metric("a", 1)
    copy.ended()
    assert handle.prepared.directory == copy.run.directory
    assert handle.prepared.uid == copy.run.uid


def test_ranks_share_a_run(options: dict[str, Any], read: Read) -> None:
    """On one machine each has a journal in the same directory; that of rank 0 says how it ended."""
    handles = [RunHandle(None, options), RunHandle(None, options)]
    told: list[Any] = []

    def send(value: Any) -> Any:
        told.append(value)
        return value

    handles[0].share(0, send)
    handles[1].share(1, lambda _: told[0])
    for rank, handle in enumerate(handles):
        handle.began()
        handle.run.log_metric("a", rank)
    handles[0].ended()
    handles[1].ended()

    directory = handles[0].run.directory
    assert handles[1].run.directory == directory
    assert len(RunDirectory(directory).journals()) == 2
    ended = RunDirectory(directory).ending()
    assert ended is not None
    assert ended.status == "FINISHED"
    assert RunDirectory(directory).spec().rank == 0


def test_a_rank_on_another_machine(options: dict[str, Any], tmp_path: Path) -> None:
    """Has a run directory of its own with the same uid, and is known to be no rank 0."""
    handle = RunHandle(None, options)
    uid = "mlops-" + 32 * "a"
    handle.share(1, lambda _: (uid, str(tmp_path / "not here"), True))
    handle.began()
    handle.ended()
    spec = RunDirectory(handle.run.directory).spec()
    assert (spec.uid, spec.rank) == (uid, 1)


def test_ranks_of_a_disabled_run(options: dict[str, Any]) -> None:
    """No rank records where rank 0 does not."""
    told: list[Any] = []
    handles = [RunHandle(None, options | {"mode": "disabled"}), RunHandle(None, options)]
    handles[0].share(0, lambda value: told.append(value) or value)
    handles[1].share(1, lambda _: told[0])
    handles[1].began()
    handles[1].run.log_metric("a", 1)
    handles[1].ended()
    assert not options["directory"].exists()


def test_a_borrowed_run(options: dict[str, Any], read: Read) -> None:
    """A handle that borrows records into the run that the user has open, and leaves it open; copies of it do so too."""
    handle, elsewhere = RunHandle(None, options), RunHandle(None, options)
    handle.borrow()
    other = RunHandle(None, options)
    other.began()  # a handle's run is nobody's to borrow
    with mlops.start_run(**options) as run:
        elsewhere.began()
        copied = pickle.loads(pickle.dumps(handle))
        handle.began()
        handle.ended()
        assert handle.run is run
        assert run.is_open
        assert not handle.is_own
    assert run.uid == copied.run.uid
    for each in (other, elsewhere):
        each.ended()
        assert run.uid != each.run.uid


def test_nothing_to_borrow(options: dict[str, Any]) -> None:
    """Where the user has no run open, or gave one, a handle that borrows is like any other."""
    with mlops.start_run(**options) as given:
        pass
    with mlops.start_run(**options) as run:
        alone, named = RunHandle(None, options), RunHandle(given, {})
        named.borrow()
    alone.borrow()
    alone.began()
    assert alone.run.uid not in {run.uid, given.uid}
    assert named.run is given
    alone.ended()
    assert not alone.run.is_open
