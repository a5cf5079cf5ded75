"""The command line against real run directories, and a small server that stands for MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.cli.arguments import main
from mlops_integrations.cli.drain import Patience
from mlops_integrations.cli.sync import Sync
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.journal import cursor, lease, reader, records
from mlops_integrations.journal.lease import Lease
from mlops_integrations.journal.rundir import RunDirectory
from other_writers import move_writer
from real_mlflow import free_port

PACKAGE_HOME = Path(mlops.__file__).resolve().parents[1]
AT_ONCE = Patience(0.0, 0.0)

Record = Callable[..., mlops.Run]


def module(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """``python -m mlops_integrations`` as a process, which can import what this one can."""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(
        [sys.executable, "-m", "mlops_integrations", *arguments],
        cwd=cwd,
        env=environment | options.pop("environment", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def drop_last_record(run: mlops.Run) -> None:
    """Make a finished run look as if its process had been killed."""
    (path,) = run.directory.glob("journal-*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


# -- sync -----------------------------------------------------------------------------------------------------------


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


# -- status ---------------------------------------------------------------------------------------------------------


def test_status_before_and_after(record: Record, server: FakeMlflow, out: Any) -> None:
    """What is left is counted with the command that delivers it; exit code 1, and 0 when nothing is left."""
    run = record(tracking_uri=server.uri)
    code, said, _ = out("status")
    assert (1, True) == (code, "undelivered: 3 of 3 points" in said)
    assert f"-m mlops_integrations sync {run.directory}" in said
    assert "none at work" in said
    out("sync")
    code, said, _ = out("status")
    assert (0, True) == (code, "1 run, all delivered" in said)


def test_status_says_the_last_error(record: Record, server: FakeMlflow, capsys: Any, out: Any) -> None:
    """Why nothing moves is told, with the time since when."""
    run = record(tracking_uri=server.uri)
    server.answer_next("runs/log-batch", 503)
    Sync(Terminal(sys.stdout, sys.stderr), patience=AT_ONCE).run([RunDirectory(run.directory)])
    code, said, _ = out("status")
    assert (1, True) == (code, "last error:  HTTP 503" in said)


def test_status_tells_a_dead_uploader(record: Record, out: Any, python: Any) -> None:
    """A lease whose holder is gone is told as such."""
    run = record()
    script = """
import os, pathlib, sys
from mlops_integrations.journal.lease import Lease
assert Lease(pathlib.Path(sys.argv[1]), "side process").acquire()
os._exit(0)
"""
    assert 0 == python(script, str(run.directory)).returncode
    _, said, _ = out("status")
    assert "which is gone" in said


# -- runs -----------------------------------------------------------------------------------------------------------


def test_runs_table(record: Record, server: FakeMlflow, out: Any) -> None:
    """A row tells name, status, last step and values, what is delivered, and the link; oldest first."""
    record("first", tracking_uri=server.uri)
    out("sync")
    record("second", points=7)
    code, said, _ = out("runs")
    header, first, second = said.splitlines()
    assert (0, "RUN") == (code, header.split()[0])
    assert first.startswith("first-")
    assert f"{server.uri}/#/experiments/1/runs/{server.run('first').run_id}" in first
    assert "  delivered  " in first
    assert ["6", "loss=0.14286", "7", "7 waiting"] == [cell.strip() for cell in second.split("  ") if cell.strip()][-4:]


def test_runs_as_json(record: Record, server: FakeMlflow, out: Any) -> None:
    """Programs get all fields of each run."""
    run = record(finish=False, tracking_uri=server.uri)
    run.log_metric("score", float("nan"), step=9)
    run.log_metric("score", "no number")
    run.finish(status="FAILED")
    out("sync")
    code, said, _ = out("runs", "--json")
    (fields,) = json.loads(said)
    run_id = server.run("baseline").run_id
    expected = {
        "directory": str(run.directory),
        "uid": run.uid,
        "name": "baseline",
        "status": "FAILED",
        "reason": None,
        "last_step": 9,
        "last_values": {"loss": 1 / 3, "score": "NaN"},
        "points": 4,
        "delivered": 4,
        "waiting": 0,
        "complete": True,
        "refused": {},
        "losses": {"metric that is no number": 1},
        "trouble": None,
        "run_id": run_id,
        "url": f"{server.uri}/#/experiments/1/runs/{run_id}",
        "tracking_uri": server.uri,
    }
    assert (0, expected) == (code, {key: fields[key] for key in expected})
    assert {"started", "ended"} == set(fields) - set(expected)


def test_runs_counts_what_a_killed_run_left(record: Record, server: FakeMlflow, out: Any) -> None:
    """A run without an end is counted by reading it: delivered, refused and waiting points make the total."""
    run = record(finish=False, tracking_uri=server.uri)
    run.log_metric("bad//name", 1.0)
    out("sync")
    run.log_metric("loss", 0.0)
    (fields,) = json.loads(out("runs", "--json")[1])
    assert (5, 3, 1) == (fields["points"], fields["delivered"], fields["waiting"])
    run.finish()


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        ({}, "RUNNING "),
        ({"start_time": "1"}, "FAILED (process disappeared)"),
        ({"boot_id": "another"}, "RUNNING? "),
    ],
    ids=["alive", "dead", "unknown"],
)
def test_runs_tells_who_is_alive(record: Record, out: Any, identity: dict[str, Any], expected: str) -> None:
    """A run that nobody closed runs, has disappeared, or can't be judged from here."""
    run = record()
    drop_last_record(run)
    move_writer(run, **identity)
    _, said, _ = out("runs")
    assert expected in said.splitlines()[1]


def test_runs_without_any(root: Path, out: Any) -> None:
    """No runs is no error; where others may be is said."""
    code, said, _ = out("runs")
    assert (0, True) == (code, f"No runs in {root}" in said)
    assert (0, "[\n]\n", "") == out("runs", "--json")


# -- show -----------------------------------------------------------------------------------------------------------


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


# -- whatever the terminal ------------------------------------------------------------------------------------------


def test_no_control_characters_reach_the_terminal(record: Record, server: FakeMlflow, out: Any) -> None:
    """Names, values, tags and server messages are shown without escapes, whatever they hold."""
    evil = "\x1b]0;title\x07\x9b31m\u202e\r\n"
    run = record(
        f"run{evil}", finish=False, params={f"p{evil}": evil}, tags={f"t{evil}": evil}, tracking_uri=server.uri
    )
    run.log_metric(f"m{evil}", 1.0)
    run.log_metric(f"m{evil}", 2.0)
    run.finish()
    server.answer_next("experiments/get-by-name", 400, body={"error_code": "X", "message": evil})
    for arguments in (
        ("sync",),
        ("sync",),
        ("status",),
        ("runs",),
        ("runs", "--json"),
        ("show",),
        ("show", run.uid, run.uid),
    ):
        _, said, complaint = out(*arguments)
        shown = (said + complaint).replace("\n", "")
        assert [] == [c for c in shown if not c.isprintable()], arguments


def test_closed_pipe(record: Record, server: FakeMlflow, tmp_path: Path) -> None:
    """When nobody reads on, the work is done all the same, and nothing is complained about."""
    for number in range(3):
        record(f"run{number}", tracking_uri=server.uri)
    process = module("sync", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    complaint = process.stderr.read()
    assert (0, "") == (process.wait(60), complaint)
    assert 3 == len(server.runs)
    process.stderr.close()


@pytest.mark.parametrize("command", ["runs", "show", "status"])
def test_ascii_terminal(record: Record, tmp_path: Path, command: str) -> None:
    """Where only ASCII can be shown, the rest is spelled, and curves are drawn in letters."""
    run = record("базис", finish=False)
    run.log_metrics({"потери": 1.0})
    run.log_metrics({"потери": 0.5})
    run.finish()
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    process = module(command, cwd=tmp_path, environment=environment)
    said, complaint = process.communicate(timeout=60)
    assert ("", True) == (complaint, "\\u0431" in said)
    assert (1 if command == "status" else 0) == process.returncode
    assert ("#" in said) == (command == "show")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
@pytest.mark.parametrize("command", ["runs", "show", "sync"])
def test_on_a_terminal(record: Record, server: FakeMlflow, tmp_path: Path, command: str) -> None:
    """On a terminal the same is told as safely, with or without the libraries that make it pretty."""
    import pty

    title = "\x1b]0;title\x07"
    run = record(f"baseline{title}", points=20, params={title: title}, tracking_uri=server.uri)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlops_integrations", command],
        cwd=tmp_path,
        env=dict(os.environ)
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            block = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        said += block
    os.close(ours)
    assert 0 == process.wait(60)
    assert f"baseline ]0;title -{run.uid[-4:]}" in said.decode()
    assert b"\x1b]" not in said


# -- python -m ------------------------------------------------------------------------------------------------------


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


# -- usage ----------------------------------------------------------------------------------------------------------


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


# -- several servers ------------------------------------------------------------------------------------------------


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


def test_doctor_without_a_server(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there: exit code 3 and why; no server named, or none at all: wrong usage. No secret is shown."""
    assert main(["doctor", "http://ann:secret@127.0.0.1:9"]) == 3
    told = capsys.readouterr().out
    assert "http://127.0.0.1:9" in told
    assert "trouble" in told
    assert "secret" not in told
    assert main(["doctor"]) == 2
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert main(["doctor", "sqlite:///x.db"]) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["doctor"]) == 3


def test_doctor_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A web server that is no tracking server is told as such."""
    import http.server
    import threading

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main(["doctor", f"http://127.0.0.1:{server.server_port}"]) == 3
        server.shutdown()
    assert "trouble" in capsys.readouterr().out
