"""``sync`` of real run directories, to a small server that stands for MLflow."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mlops_integrations as mlops
from command_line import module
from fake_mlflow import FakeMlflow
from mlops_integrations.cli.drain import Patience
from mlops_integrations.cli.sync import Sync
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.journal import cursor, lease, reader, records
from mlops_integrations.journal.lease import Lease
from mlops_integrations.journal.rundir import RunDirectory
from other_writers import drop_last_record, move_writer
from real_mlflow import free_port

AT_ONCE = Patience(0.0, 0.0)

Record = Callable[..., mlops.Run]


def test_sync_delivers_everything(record: Record, server: FakeMlflow, out: Any) -> None:
    """Points with their times, parameters, tags and the status reach the server; the exit code is 0."""
    run = record(params={"lr": 0.1}, tags={"team": "vision"}, tracking_uri=server.uri)
    code, said, _ = out("sync")
    delivered = server.run("baseline")
    assert (code, "FINISHED") == (0, delivered.status)
    assert {("loss", 1.0, 0), ("loss", 0.5, 1), ("loss", 1 / 3, 2)} == {(k, v, s) for k, v, _, s in delivered.metrics}
    assert ({"lr": "0.1"}, "vision") == (delivered.params, delivered.tags["team"])
    assert f"baseline-{run.uid[-4:]}: 3 points, FINISHED, {server.uri}" in said
    assert "Runs: 1 delivered. 3 points" in said


def test_sync_twice_is_cheap(record: Record, server: FakeMlflow, out: Any) -> None:
    """What is delivered completely is not contacted again."""
    record(tracking_uri=server.uri)
    out("sync")
    calls = list(server.requests)
    code, said, _ = out("sync")
    assert (0, calls) == (code, server.requests)
    assert "1 delivered before" in said


def test_sync_takes_a_run_directory_or_a_root(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run directory that is named is delivered alone; a root stands for all in it, each once."""
    first, second = record("first"), record("second")
    assert 0 == out("sync", str(first.directory), "--to", server.uri)[0]
    assert ["first"] == [run.name for run in server.runs.values()]
    assert 0 == out("sync", str(second.directory), str(second.directory.parent), "--to", server.uri)[0]
    assert ["first", "second"] == [run.name for run in server.runs.values()]


def test_sync_uses_credentials_of_the_address(record: Record, server: FakeMlflow, out: Any) -> None:
    """User and password in ``--to`` are sent, and written nowhere."""
    run = record()
    code, *_ = out("sync", "--to", server.uri.replace("//", "//ann:secret@"))
    assert (0, {"Basic YW5uOnNlY3JldA=="}) == (code, set(server.authorizations))
    assert [] == [path for path in run.directory.iterdir() if path.is_file() and b"secret" in path.read_bytes()]


def test_sync_keeps_credentials_from_other_servers(
    record: Record, server: FakeMlflow, out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in MLFLOW_TRACKING_URI are not sent to another server, which a run was recorded for."""
    record(tracking_uri=server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@elsewhere.example:5000")
    assert 0 == out("sync")[0]
    assert {None} == set(server.authorizations)


def test_sync_without_a_server(record: Record, out: Any) -> None:
    """With no address anywhere: exit code 3, and what to do."""
    record()
    code, said, complaint = out("sync")
    assert (3, True) == (code, "no tracking server is known for it" in said)
    assert "--to http://host:5000" in complaint


def test_sync_with_an_absent_server(record: Record, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that never answers: exit code 3, said once for all runs, everything kept."""
    runs = [
        RunDirectory(record(name, tracking_uri=f"http://127.0.0.1:{free_port()}").directory)
        for name in ("first", "second")
    ]
    destination = runs[1].spec().tracking_uri
    code = Sync(Terminal(sys.stdout, sys.stderr), destination, patience=AT_ONCE).run(runs)
    said = capsys.readouterr()
    assert (3, 1) == (code, said.out.count("refused"))
    assert f"{destination} was not reached" in said.out
    assert "Nothing is lost" in said.err
    assert [None, None] == [lease.live_holder(run.path) for run in runs]


def test_sync_with_a_server_that_breaks(
    record: Record, server: FakeMlflow, capsys: pytest.CaptureFixture[str], out: Any
) -> None:
    """A server that answered and then fails: exit code 1; a later sync delivers the rest, nothing twice."""
    run = record(tracking_uri=server.uri)
    server.answer_next("runs/log-batch", 503, times=1)
    code = Sync(Terminal(sys.stdout, sys.stderr), patience=AT_ONCE).run([RunDirectory(run.directory)])
    assert (1, True) == (code, "HTTP 503" in capsys.readouterr().out)
    assert 0 == out("sync")[0]
    assert (1, 3) == (len(server.runs), len(server.run("baseline").metrics))


def test_sync_is_patient_with_a_server_that_has_answered(record: Record, server: FakeMlflow) -> None:
    """A failure after the first answer is waited out, where one before it would have ended the attempt."""
    run = record(tracking_uri=server.uri)
    server.answer_next("runs/log-batch", 503, times=2)
    patience = Patience(first=0.0, later=60.0)
    assert 0 == Sync(Terminal(None, None), patience=patience).run([RunDirectory(run.directory)])
    assert 3 == len(server.run("baseline").metrics)


def test_sync_of_a_deleted_run(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run that was deleted on the server is left alone, and the way out is said."""
    run = record(tracking_uri=server.uri)
    out("sync")
    next(iter(server.runs.values())).deleted = True
    run.log_metric("loss", 0.1)
    run.finish()
    code, said, _ = out("sync")
    assert (1, True) == (code, "was deleted on the server. Everything is kept" in said)


def test_sync_of_a_deleted_run_as_new(record: Record, server: FakeMlflow, out: Any, root: Path) -> None:
    """TrainerListener to, another run is made in its place, and all that is recorded delivered there, once."""
    run = record(tracking_uri=server.uri, params={"lr": 0.1})
    out("sync")
    ((old, deleted),) = server.runs.items()
    deleted.deleted = True
    assert 0 == out("sync", "--as-new")[0]
    assert 1 == len(server.runs)  # nobody has noticed yet, and nothing is left to deliver
    run.log_metric("loss", 0.1, step=3)
    run.finish()
    code, said, _ = out("sync")
    assert (1, True) == (code, "`sync --as-new` makes another one" in said)
    for _ in range(2):
        assert 0 == out("sync", "--as-new")[0]
        assert 2 == len(server.runs)
        another = server.run("baseline")
        assert (4, {"lr": "0.1"}, "FINISHED") == (len(another.metrics), another.params, another.status)
    assert "1 run, all delivered" in out("status")[1]
    assert run.directory == mlops.start_run(resume=old, directory=root, mode="offline").directory


def test_sync_as_new_of_a_run_that_is_there(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run that was restored, or only failed for a while, gets no twin."""
    run = record(tracking_uri=server.uri)
    out("sync")
    (kept,) = server.runs.values()
    kept.deleted = True
    run.log_metric("loss", 0.1, step=3)
    run.finish()
    assert 1 == out("sync")[0]
    kept.deleted = False
    assert 0 == out("sync", "--as-new")[0]
    assert (1, 4, "FINISHED") == (len(server.runs), len(kept.metrics), kept.status)
    run.log_metric("loss", 0.1, step=4)
    run.finish()
    server.answer_next("runs/update", 400, times=1)
    out("sync", "--as-new")
    assert 0 == out("sync", "--as-new")[0]
    assert (1, 5, "FINISHED") == (len(server.runs), len(kept.metrics), kept.status)


def test_sync_as_new_into_a_full_disk(
    record: Record, server: FakeMlflow, out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known of the deleted run is still known, and the wish is not carried out behind one's back."""
    run = record(tracking_uri=server.uri)
    out("sync")
    next(iter(server.runs.values())).deleted = True
    run.log_metric("loss", 0.1, step=3)
    run.finish()
    save = cursor.save

    def full(path: Path, state: cursor.Cursor, *, durable: bool = False) -> None:
        if state.as_new is not None:
            raise OSError("no space")
        save(path, state, durable=durable)

    monkeypatch.setattr(cursor, "save", full)
    assert 1 == out("sync", "--as-new")[0]
    monkeypatch.setattr(cursor, "save", save)
    code, said, _ = out("sync")
    assert (1, 1, True) == (code, len(server.runs), "was deleted on the server" in said)
    assert 0 == out("sync", "--as-new")[0]
    assert 4 == len(server.run("baseline").metrics)


def test_sync_into_another_experiment_with_a_lost_cursor(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run that may be there already is looked for where it was recorded for."""
    run = record(tracking_uri=server.uri)
    out("sync")
    (path,) = run.directory.glob("cursor-*.json")
    path.write_bytes(b"")
    code, _, complaint = out("sync", "--experiment", "digits")
    assert (0, True, 1) == (code, "--experiment is not used" in complaint, len(server.runs))


def test_sync_of_a_run_that_was_never_there(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run to go on with that the server does not know: what to type is said, and does it."""
    record(tracking_uri=server.uri, resume="nope")
    code, said, _ = out("sync")
    assert (1, True) == (code, "`sync --as-new` makes another run" in said)
    assert 0 == out("sync", "--as-new")[0]
    assert 3 == len(server.run("baseline").metrics)


@pytest.mark.parametrize("tried_before", [True, False])
def test_sync_into_another_experiment(record: Record, server: FakeMlflow, out: Any, tried_before: bool) -> None:
    """An experiment that is not there: what to type is said, and does it; a run that is made already stays."""
    record(tracking_uri=server.uri, experiment_id="999")
    if tried_before:
        code, said, _ = out("sync")
        assert (1, True) == (code, "`sync --experiment NAME` puts the run into another one" in said)
    assert 0 == out("sync", "--experiment", "digits")[0]
    assert server.experiments["digits"] == server.run("baseline").experiment_id
    assert 0 == out("sync", "--experiment", "others")[0]
    assert (1, ["digits"]) == (len(server.runs), list(server.experiments))


def test_sync_says_what_is_refused(record: Record, server: FakeMlflow, out: Any) -> None:
    """Refused records are counted by reason, with the file that keeps them; the rest is delivered."""
    run = record(tracking_uri=server.uri, finish=False)
    run.log_metric("bad//name", 1.0)
    run.finish()
    code, said, _ = out("sync")
    assert (0, 3) == (code, len(server.run("baseline").metrics))
    assert "1 x name that reads as a path" in said
    assert str(run.directory / "refused.jsonl") in said


def test_sync_of_a_running_run(record: Record, server: FakeMlflow, out: Any) -> None:
    """What is there is delivered, and the run stays open, however often."""
    run = record(finish=False, tracking_uri=server.uri)
    for _ in range(2):
        code, said, _ = out("sync")
        assert (0, True) == (code, "delivered so far, it goes on" in said)
    assert ("RUNNING", 3) == (server.run("baseline").status, len(server.run("baseline").metrics))
    run.finish()


@pytest.mark.parametrize(
    "identity",
    [{"boot_id": "another", "host": "elsewhere"}, {"boot_id": "another"}, {"pid_namespace": 1}],
    ids=["host", "boot", "container"],
)
def test_sync_of_an_unknown_writer(record: Record, server: FakeMlflow, out: Any, identity: dict[str, Any]) -> None:
    """A run of another machine or container is delivered, and closed only when told that it has ended."""
    run = record(tracking_uri=server.uri)
    drop_last_record(run)
    move_writer(run, **identity)
    for _ in range(2):
        code, said, _ = out("sync")
        assert (1, True) == (code, "If it does not: sync --close" in said)
    assert ("RUNNING", 3) == (server.run("baseline").status, len(server.run("baseline").metrics))
    assert 0 == out("sync", "--close")[0]
    closed = server.run("baseline")
    assert ("FAILED", "process disappeared") == (closed.status, closed.tags["mlops.exit.reason"])


def test_sync_beside_a_living_uploader(record: Record, server: FakeMlflow, root: Path, out: Any) -> None:
    """The uploader of a live run hands the delivery over when asked, and goes on afterwards."""
    with FakeMlflow() as other:
        run = mlops.start_run(run_name="live", tracking_uri=server.uri, directory=root, uploader="thread")
        run.log_metric("loss", 1.0)
        assert run.flush(30.0)
        code, said, complaint = out("sync", "--to", other.uri)
        assert (0, True) == (code, "it goes on" in said)
        assert "asking thread (process" in complaint
        assert [] == list(run.directory.glob("lease.wanted"))
        assert 1 == len(other.run("live").metrics)
        run.log_metric("loss", 0.5)
        assert run.flush(30.0)
        assert run.finish(timeout=30.0)
        assert 2 == len(server.run("live").metrics)


def test_sync_beside_another_sync(record: Record, server: FakeMlflow, out: Any) -> None:
    """Another sync does not hand over: it is named, and the run left to it."""
    run = record(tracking_uri=server.uri)
    other = Lease(run.directory, "sync", yields=False)
    assert other.acquire()
    code, said, _ = out("sync")
    assert (1, []) == (code, server.requests)
    assert f"sync (process {os.getpid()} on " in said
    assert "is delivering it" in said
    other.release()


def test_sync_of_a_newer_format(record: Record, server: FakeMlflow, out: Any) -> None:
    """A journal of a later version is left untouched, and said."""
    run = record(tracking_uri=server.uri)
    (path,) = run.directory.glob("journal-*.jsonl")
    header, _ = reader.read_start(path)
    assert header is not None
    _, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(records.frame(msgspec.structs.replace(header, format=records.FORMAT + 1)) + rest)
    for command in ("sync", "status"):
        code, said, _ = out(command)
        assert (1, True) == (code, "newer version: update mlops-integrations" in said)
    assert [] == server.requests


def test_sync_interrupted(record: Record, server: FakeMlflow, tmp_path: Path) -> None:
    """Ctrl-C: exit code 130, nothing is lost, the lease is free."""
    run = record(tracking_uri=server.uri)
    server.answer_next("runs/log-batch", 503, times=1_000)
    process = module("sync", cwd=tmp_path)
    server.wait_for("runs/log-batch")
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert (130, None) == (process.returncode, lease.read(run.directory / "lease"))
    assert "Nothing is lost" in complaint
    assert "Traceback" not in complaint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_sync_of_a_read_only_directory(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run directory that can't be written is left, with the system's reason."""
    run = record(tracking_uri=server.uri)
    run.directory.chmod(0o500)
    try:
        code, said, _ = out("sync")
    finally:
        run.directory.chmod(0o700)
    assert (1, True) == (code, "Permission denied" in said)


def test_sync_again_without_to(record: Record, server: FakeMlflow, out: Any) -> None:
    """What was delivered to a server that was named once is delivered: a plain sync has nothing to do."""
    record()
    assert out("sync", "--to", server.uri)[0] == 0
    requests = len(server.requests)
    code, said, _ = out("sync")
    assert (code, len(server.requests)) == (0, requests)
    assert "delivered before" in said


def test_the_same_server_under_another_address(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run that is there already is found and taken, not made a second time."""
    record(tracking_uri=server.uri)
    assert out("sync")[0] == 0
    assert out("sync", "--to", server.uri.replace("127.0.0.1", "localhost"))[0] == 0
    assert len(server.runs) == 1


def test_sync_of_a_run_by_its_name(record: Record, server: FakeMlflow, out: Any) -> None:
    """``sync`` takes what ``show`` takes."""
    run = record(tracking_uri=server.uri)
    assert out("sync", run.directory.name)[0] == 0
    assert out("sync", "latest")[0] == 0


def test_sync_of_a_directory_without_runs(out: Any, tmp_path: Path) -> None:
    """Somebody who names a directory means the runs in it: none there is a mistake."""
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, complaint = out("sync", str(empty))
    assert code == 2
    assert "no runs in" in complaint
