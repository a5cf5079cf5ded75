"""``clean``: what a server has goes, whatever else stays, and is said."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow, FakeRun
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.framework_support import lenient_start
from mlops_integrations.journal import cursor, identity, reader, records
from mlops_integrations.journal.lease import Lease
from other_writers import move_writer

Record = Callable[..., mlops.Run]
DAY = 86_400.0


def change(run: mlops.Run, **fields: Any) -> None:
    """Change a run's cursor."""
    (path,) = run.directory.glob("cursor-*.json")
    state = cursor.load(path)
    assert state is not None
    cursor.save(path, msgspec.structs.replace(state, **fields))


def stays(run: mlops.Run, out: Any, why: str, code: int = 0) -> None:
    """The run's directory is kept for this reason, under its name, and nobody holds it."""
    found, said, complaint = out("clean")
    assert (code, True) == (found, why in said), said + complaint
    assert list(run.directory.glob("journal-*.jsonl"))
    assert not (run.directory / "lease").exists()
    assert hidden(run.directory.parent) == []


def hidden(root: Path) -> list[Path]:
    """What an interrupted removal has left in a root."""
    return list(root.glob(".*.removed"))


@pytest.fixture
def delivered(record: Record, server: FakeMlflow, out: Any) -> Record:
    """Records a run of a process that has ended since, and delivers it."""

    def make(name: str = "baseline", **options: Any) -> mlops.Run:
        run = record(name, tracking_uri=server.uri, **options)
        move_writer(run, start_time="long ago")
        assert 0 == out("sync", str(run.directory))[0]
        return run

    return make


def test_what_is_delivered_goes(delivered: Record, record: Record, server: FakeMlflow, out: Any, root: Path) -> None:
    """The directory of a delivered run goes, that of one without a server stays."""
    first = record("local")
    second = delivered("baseline")
    code, said, complaint = out("clean")
    assert (0, False, True) == (code, second.directory.exists(), first.directory.exists())
    assert f"baseline-{second.uid[-4:]}: 3 points, FINISHED, {server.uri}" in said
    assert "recorded only, no server has it" in said
    assert "Runs: 1 removed, 1 kept; 0.0 MB freed" in said
    assert "status" in complaint  # says what is undelivered
    assert {".gitignore", first.directory.name} == {path.name for path in root.iterdir()}
    assert 3 == len(server.run("baseline").metrics)


def test_a_removed_run_goes_on(delivered: Record, server: FakeMlflow, out: Any, root: Path) -> None:
    """By its id on the server, though nothing of it is here any more; its uid says so."""
    run = delivered()
    assert "1 removed" in out("clean")[1]
    with pytest.raises(RunDirectoryError, match="resumed by its id on the server"):
        mlops.start_run(resume=run.uid, directory=root)
    (run_id,) = server.runs
    resumed = mlops.start_run(resume=run_id, directory=root, tracking_uri=server.uri, uploader="thread")
    resumed.log_metric("loss", 0.1, step=3)
    assert resumed.finish(timeout=30.0)
    assert (1, 4) == (len(server.runs), len(server.run("baseline").metrics))


def test_nothing_left(delivered: Record, out: Any, root: Path) -> None:
    """With the last run goes ``latest``; to clean again is no mistake."""
    delivered()
    assert 0 == out("clean")[0]
    assert [".gitignore"] == [path.name for path in root.iterdir()]
    code, said, _ = out("clean")
    assert (0, True) == (code, "no runs in" in said)


def test_latest_of_somebody_else(delivered: Record, out: Any, root: Path) -> None:
    """A link that leads elsewhere is left alone, though it leads nowhere at the moment."""
    delivered()
    (root / "latest").unlink()
    (root / "latest").symlink_to("/mnt/not-mounted/model")
    assert 0 == out("clean")[0]
    assert (root / "latest").is_symlink()


def test_dry_run(delivered: Record, out: Any) -> None:
    """It says what would go, and removes nothing."""
    run = delivered()
    code, said, _ = out("clean", "--dry-run")
    assert (0, True, True) == (code, "Runs: 1 to remove" in said, run.directory.exists())


def test_older_than(delivered: Record, out: Any) -> None:
    """A run that ended lately stays, if asked for."""
    run = delivered()
    code, said, _ = out("clean", "--older-than", "2")
    assert (0, True, True) == (code, "it ended within the last 2 days" in said, run.directory.exists())
    assert "1 removed" in out("clean", "--older-than", "0")[1]


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "two"])
def test_no_number_of_days(days: str, out: Any) -> None:
    """What is no number of days is wrong usage."""
    code, _, complaint = out("clean", "--older-than", days)
    assert (2, True) == (code, "is no number of days" in complaint)


@pytest.mark.parametrize("name", ["", "2026", "baseline", "nowhere"])
def test_what_is_removed_is_named_by_its_directory(delivered: Record, out: Any, name: str) -> None:
    """Neither an empty name (an unset variable) nor the beginning of one is enough to remove something."""
    run = delivered()
    code, _, complaint = out("clean", name)
    assert (2, True, True) == (code, "is not a directory" in complaint, run.directory.exists())


def test_a_run_named_twice(delivered: Record, out: Any, tmp_path: Path, root: Path) -> None:
    """By way of a link, too."""
    run = delivered()
    (tmp_path / "link").symlink_to(root)
    code, said, _ = out("clean", str(tmp_path / "link"), str(run.directory))
    assert (0, True, False) == (code, "Runs: 1 removed;" in said, run.directory.exists())


# -- what may still be needed ----------------------------------------------------------------------------------------


def test_a_process_that_still_runs(record: Record, server: FakeMlflow, out: Any) -> None:
    """A process that lives may log to its finished run again: it keeps its directory."""
    run = record(tracking_uri=server.uri)
    assert 0 == out("sync")[0]
    stays(run, out, f"its process still runs ({os.getpid()})")


def test_a_run_that_goes_on(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run that has not ended stays."""
    run = record(tracking_uri=server.uri, finish=False)
    assert 0 == out("sync")[0]
    stays(run, out, "it has not ended")
    run.finish()


def test_a_job_that_is_queued_again(delivered: Record, out: Any, read: Any) -> None:
    """A run whose job was requeued is RUNNING, though its process is gone."""
    run = delivered()
    path = run.directory / "journal-0001.jsonl"
    end = read(path)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    requeued = msgspec.structs.replace(end, status="RUNNING", reason=None)
    path.write_bytes(b"".join(lines[:-1]) + records.frame(requeued))
    assert 0 == out("sync")[0]
    stays(run, out, "it has not ended")


def test_a_process_that_will_go_on_with_the_run(delivered: Record, server: FakeMlflow, root: Path, out: Any) -> None:
    """A run that was resumed, and has logged nothing yet, is its process's."""
    run = delivered()
    options = {"directory": root, "tracking_uri": server.uri, "mode": "offline", "uploader": "thread"}
    resumed = lenient_start.prepare(options | {"resume": run.uid}, run.uid)
    assert run.directory == resumed.directory
    stays(run, out, f"its process still runs ({os.getpid()})")
    writer = msgspec.structs.replace(identity.me(), start_time="long ago")
    (run.directory / "next_writer").write_bytes(msgspec.json.encode(writer))
    assert "1 removed" in out("clean")[1]


def test_a_run_of_another_machine(record: Record, server: FakeMlflow, out: Any) -> None:
    """Whose process can't be seen stays a day."""
    run = record(tracking_uri=server.uri)
    move_writer(run, host="elsewhere", boot_id="another")
    assert 0 == out("sync")[0]
    stays(run, out, "whether that process lives can't be told from here")
    yesterday = time.time() - DAY - 1
    for path in run.directory.glob("journal-*.jsonl"):
        os.utime(path, (yesterday, yesterday))
    assert "Runs: 1 removed" in out("clean")[1]


def test_the_parent_of_an_undelivered_run(delivered: Record, record: Record, out: Any) -> None:
    """Its directory knows the id that its child asks for."""
    parent = delivered("parent")
    child = record("child", parent=parent)
    stays(parent, out, "a run that it is the parent of is not delivered yet")
    shutil.rmtree(child.directory)
    assert "1 removed" in out("clean")[1]


# -- what is only here -----------------------------------------------------------------------------------------------


def test_points_behind_the_cursor(delivered: Record, out: Any) -> None:
    """What was logged after the delivery is waiting."""
    run = delivered()
    run.log_metric("loss", 0.1, step=3)
    run.finish()
    stays(run, out, "1 waiting")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("refused", {"too long": 2}, "refused by the server, and only here: 2 x too long"),
        ("artifacts_kept", {"no way": 1}, "files that are only here: 1 x no way"),
        ("bad_lines", 1, "1 damaged line in its journal"),
        ("shortened", 3, "3 texts that the server has cut short"),
        ("notes", ["no steps"], "not all of it can be kept by such a server: no steps"),
        ("artifacts_waiting", {"model.pt": "artifacts/model.pt"}, "1 files waiting"),
    ],
)
def test_what_no_server_has(delivered: Record, out: Any, field: str, value: Any, reason: str) -> None:
    """A run directory that holds something that no server has stays."""
    run = delivered()
    change(run, **{field: value})
    stays(run, out, reason)


def test_losses(record: Record, server: FakeMlflow, out: Any) -> None:
    """What could not be recorded is counted in the journal alone."""
    run = record(tracking_uri=server.uri, finish=False)
    run.log_metrics({"loss": "no number"})  # type: ignore[dict-item]
    run.finish()
    move_writer(run, start_time="long ago")
    assert 0 == out("sync")[0]
    stays(run, out, "what could not be recorded is counted only here: 1 x")


@pytest.mark.parametrize(
    "name", ["last.ckpt", "checkpoints/last.ckpt", "artifacts/half/copied.pt", "nested/journal-0001.jsonl"]
)
def test_files_of_the_user(delivered: Record, out: Any, name: str) -> None:
    """Lightning's checkpoints lie in the run directory: what is no part of the record is not ours to remove."""
    run = delivered()
    (run.directory / name).parent.mkdir(parents=True, exist_ok=True)
    (run.directory / name).write_bytes(b"1")
    stays(run, out, f"that are no part of its record: {name.split('/')[0]}")


def test_files_that_were_logged(
    delivered: Record, out: Any, tmp_path: Path, record: Record, server: FakeMlflow
) -> None:
    """Copies of files that the server has go with the run, and what a killed uploader has left."""
    (tmp_path / "model.pt").write_bytes(b"1")
    run = record(tracking_uri=server.uri, finish=False)
    run.log_artifact(tmp_path / "model.pt", "weights")
    run.finish()
    move_writer(run, start_time="long ago")
    out("sync")
    change(run, artifacts_kept={}, artifacts=1, artifacts_waiting={})
    server.run("baseline").files["weights/model.pt"] = b"1"
    for name in ("lease.lock", ".lease.17.0123abcd", "uploader.log", ".cursor-0123456789ab.json.17.0123abcd"):
        (run.directory / name).touch()
    code, said, _ = out("clean")
    assert (0, True) == (code, "1 removed" in said), said
    assert (tmp_path / "model.pt").exists()


@pytest.mark.parametrize("how", ["deleted", "wiped", "gone"])
def test_a_server_that_does_not_have_it(delivered: Record, server: FakeMlflow, out: Any, how: str) -> None:
    """The server is asked: a run that it has lost, or can't tell of, is only here."""
    run = delivered()
    if how == "deleted":
        server.run("baseline").deleted = True
        stays(run, out, f"on {server.uri} differs: it was deleted there")
    elif how == "wiped":
        server.runs.clear()
        stays(run, out, "does not have run")
    else:
        server.answer_next("runs/get", 503, times=4)  # the store asks four times
        second = delivered("second")
        stays(run, out, f"{server.uri} can't be asked whether it has the run")
        assert second.directory.exists()


def lose_a_point(there: FakeRun) -> None:
    """One in the middle, which no cursor can know."""
    there.metrics.remove(next(row for row in there.metrics if row[3] == 1))


def change_a_value(there: FakeRun) -> None:
    """As a server that keeps 32 bits does."""
    key, _, time, step = row = next(row for row in there.metrics if row[3] == 1)
    there.metrics.remove(row)
    there.metrics.add((key, 0.25, time, step))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lose_a_point, "1 of 3 points missing there: 1 of 'loss'"),
        (change_a_value, "1 of 3 points missing there: 1 of 'loss'"),
        (lambda there: there.metrics.clear(), "3 of 3 points missing there: 3 of 'loss'"),
        (lambda there: there.params.clear(), "1 parameter missing there, or other than here: 'lr'"),
        (lambda there: there.params.update(lr="0.2"), "1 parameter missing there, or other than here: 'lr'"),
        (lambda there: there.tags.pop("team"), "1 tag missing there, or other than here: 'team'"),
        (lambda there: there.files.clear(), "1 file missing there, or other than here: 'notes.txt'"),
        (
            lambda there: there.files.update({"notes.txt": b"sixth"}),
            "1 file missing there, or other than here: 'notes.txt'",
        ),
        (lambda there: there.files.update({"notes.txt": b"nota bene"}), "1 file missing there, or other than here"),
        (lambda there: setattr(there, "status", "RUNNING"), "its status there is RUNNING, not FINISHED"),
    ],
    ids=[
        "a point",
        "a value",
        "all points",
        "a param",
        "a param's value",
        "a tag",
        "a file",
        "its content",
        "its length",
        "the status",
    ],
)
def test_what_the_server_no_longer_shows_is_kept(
    record: Record, server: FakeMlflow, out: Any, tmp_path: Path, damage: Callable[[FakeRun], object], why: str
) -> None:
    """Everything is read back before it goes: an acknowledgement of long ago proves nothing."""
    (tmp_path / "notes.txt").write_bytes(b"notes")
    run = record(tracking_uri=server.uri, finish=False, params={"lr": "0.1"}, tags={"team": "vision"})
    run.log_artifact(tmp_path / "notes.txt")
    run.finish()
    move_writer(run, start_time="long ago")
    out("sync")
    change(run, artifacts_kept={}, artifacts=1, artifacts_waiting={})
    there = server.run("baseline")
    there.files["notes.txt"] = b"notes"
    damage(there)
    stays(run, out, why)
    assert "1 kept" in out("clean", "--dry-run")[1]  # which promises no more than it would do


def test_long_histories_are_read_back_page_by_page(
    record: Record, server: FakeMlflow, out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the values are, NaN and infinities among them; more values of others' are no difference."""
    monkeypatch.setattr("mlops_integrations.backends.rest.store._HISTORY_PAGE", 7)
    run = record(tracking_uri=server.uri, points=40, finish=False)
    for step, value in enumerate((float("nan"), float("inf"), float("-inf"), -0.0, 1e-320, 1e308)):
        run.log_metric("odd", value, step=step)
    run.finish()
    move_writer(run, start_time="long ago")
    assert 0 == out("sync")[0]
    there = server.run("baseline")
    largest = sys.float_info.max
    there.metrics = {
        (key, {"Infinity": largest, "-Infinity": -largest}.get(value, value), time, step)  # as SQL stores do
        for key, value, time, step in there.metrics
    } | {("loss", 7.0, 1, 99)}
    assert "1 removed" in out("clean")[1]
    assert server.requests.count("metrics/get-history") == 7


def test_progress_of_a_comparison(delivered: Record, out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told how far a long one is."""
    monkeypatch.setattr("mlops_integrations.cli.progress._LINE_SECONDS", 0.0)
    delivered()
    assert "3 of 3 points compared" in out("clean")[2]


# -- beside others ---------------------------------------------------------------------------------------------------


def test_beside_an_uploader(delivered: Record, out: Any) -> None:
    """A run that somebody delivers is left to that one."""
    run = delivered()
    other = Lease(run.directory, "sync", yields=False)
    assert other.acquire()
    code, said, _ = out("clean")
    assert (0, True, True) == (code, f"sync (process {os.getpid()} on " in said, run.directory.exists())
    other.release()


@pytest.mark.parametrize("what", ["line", "empty journal", "file"])
def test_something_written_meanwhile(delivered: Record, out: Any, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """What is written between the look and the removal brings the directory back."""
    run = delivered()
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        if what == "line":
            run.log_metric("loss", 0.1, step=3)
        else:
            (path / {"empty journal": "journal-0002.jsonl", "file": "last.ckpt"}[what]).touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    stays(run, out, "something was logged just now")
    run.finish()


@pytest.mark.parametrize("error", [OSError("no more"), KeyboardInterrupt()], ids=["OSError", "Ctrl-C"])
def test_interrupted_before_anything_goes(
    delivered: Record, out: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Whatever happens before the journals go brings the directory back."""
    run = delivered()
    rename = Path.rename

    def broken(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        rename(path, target)
        raise error

    monkeypatch.setattr(Path, "rename", broken)
    stays(run, out, "Runs: 1 left" if isinstance(error, OSError) else "", 1 if isinstance(error, OSError) else 130)
    assert "1 removed" in out("clean")[1]


@pytest.mark.parametrize("first", ["journal", "rest"])
def test_interrupted_in_the_middle(
    delivered: Record, server: FakeMlflow, out: Any, monkeypatch: pytest.MonkeyPatch, root: Path, first: str
) -> None:
    """What is left hidden is no run for any other command, and the next call removes it."""
    run = delivered()
    run.log_metric("loss", 0.1, step=3)
    run.finish()
    for path in run.directory.glob("journal-*.jsonl"):
        header, _ = reader.read_start(path)
        assert header is not None
        lines = path.read_bytes().splitlines(keepends=True)
        writer = msgspec.structs.replace(header.writer, start_time="long ago")
        path.write_bytes(records.frame(msgspec.structs.replace(header, writer=writer)) + b"".join(lines[1:]))
    assert 0 == out("sync")[0]
    unlink, rmtree = Path.unlink, shutil.rmtree

    def broken(path: Path, missing_ok: bool = False) -> None:
        if path.name == "journal-0002.jsonl":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    if first == "journal":
        monkeypatch.setattr(Path, "unlink", broken)
    else:
        monkeypatch.setattr(shutil, "rmtree", interrupted)
    code, _, complaint = out("clean")
    assert (130, True, False) == (code, "Interrupted" in complaint, run.directory.exists())
    (left,) = hidden(root)
    requests = list(server.requests)
    for command in ("sync", "status"):
        assert "no runs in" in out(command)[1]
    assert requests == server.requests
    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    assert 0 == out("clean")[0]
    assert left.exists()  # it is somebody's, whose process still runs
    (left / "lease").unlink()
    assert 0 == out("clean", "--dry-run")[0]
    assert left.exists()
    code, said, _ = out("clean")
    assert (0, first == "journal") == (code, "1 removed" in said)
    assert ([], 1) == (hidden(root), len(server.runs))


def test_a_run_that_cannot_be_read(delivered: Record, out: Any) -> None:
    """A journal of a later version stays, and the exit code says so."""
    run = delivered()
    path = run.directory / "journal-0001.jsonl"
    header, _ = reader.read_start(path)
    assert header is not None
    _, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(records.frame(msgspec.structs.replace(header, format=records.FORMAT + 1)) + rest)
    stays(run, out, "newer version", 1)
