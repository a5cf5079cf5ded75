"""Credentials go to the server that the user has named, never to one that only a run directory names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from requests.adapters import HTTPAdapter

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.backends import credentials
from mlops_integrations.backends.credentials import NotSignedError
from mlops_integrations.backends.oracle import signing
from mlops_integrations.cli.drain import Patience
from mlops_integrations.cli.sync import Sync
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import oracle_uri
from mlops_integrations.config.credential_owner import Withheld
from mlops_integrations.config.settings import Access
from mlops_integrations.journal import cursor, reader, records
from mlops_integrations.journal.rundir import RunDirectory
from other_writers import move_writer

Record = Callable[..., mlops.Run]
AT_ONCE = Patience(0.0, 0.0)

KINDS = {
    "user": {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "canary"},
    "token": {"MLFLOW_TRACKING_TOKEN": "canary"},
    "file": {"MLOPS_TOKEN_FILE": "token.txt"},
    "command": {"MLOPS_TOKEN_COMMAND": "given by the fixture"},
    "headers": {"MLOPS_HEADERS": '{"x-secret": "canary"}'},
    "certificate": {"MLFLOW_TRACKING_CLIENT_CERT_PATH": "canary.pem"},
    "plugin": {"MLFLOW_TRACKING_AUTH": "mine"},
}


@pytest.fixture
def theirs() -> Iterator[FakeMlflow]:
    """The server that the run directory names."""
    with FakeMlflow() as running:
        yield running


class World:
    """The user's credentials, and what a server has got of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self._monkeypatch = monkeypatch
        self.ran = tmp_path / "ran"
        self.certificates: list[Any] = []
        self.signed = 0
        (tmp_path / "token.txt").write_text("canary")
        (tmp_path / "canary.pem").touch()
        script = f"open({str(self.ran)!r}, 'w').close(); print('canary')"
        KINDS["command"]["MLOPS_TOKEN_COMMAND"] = f'{sys.executable} -S -c "{script}"'
        monkeypatch.setattr(credentials, "fetch_plugin", lambda _: self._sign)
        monkeypatch.setattr(signing, "fetch_plugin", lambda _: self._sign)
        send = HTTPAdapter.send

        def watched(adapter: HTTPAdapter, request: Any, **options: Any) -> Any:
            self.certificates.append(options.get("cert"))
            return send(adapter, request, **options)

        monkeypatch.setattr(HTTPAdapter, "send", watched)

    def _sign(self, request: Any) -> Any:
        self.signed += 1
        request.headers["Authorization"] = "Plugin canary"
        return request

    def configure(self, kind: str, uri: str | None) -> None:
        """Set the credentials of this kind, and the server that the environment names."""
        for name, value in KINDS[kind].items():
            self._monkeypatch.setenv(name, value)
        if uri is not None:
            self._monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def got(self, server: FakeMlflow) -> bool:
        """Whether credentials were sent to this server, which was asked for something."""
        assert server.headers
        names = {name for headers in server.headers for name in headers}
        return bool({"authorization", "x-secret"} & names) or any(self.certificates)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """What the user has configured."""
    return World(monkeypatch, tmp_path)


@pytest.fixture
def prepared(record: Record, theirs: FakeMlflow, out: Any, world: World) -> Callable[[str], mlops.Run]:
    """A run of the other server's, for a command to work on: delivered for ``clean``, else only recorded."""

    def make(command: str) -> mlops.Run:
        run = record(tracking_uri=theirs.uri)
        move_writer(run, start_time="long ago")
        if command == "clean":
            assert 0 == out("sync", str(run.directory))[0]
        theirs.headers.clear()
        world.certificates.clear()
        return run

    return make


def named(place: str, mine: FakeMlflow, theirs: FakeMlflow) -> str | None:
    """What MLFLOW_TRACKING_URI says."""
    return {
        "same": theirs.uri,
        "same, with a prefix": f"{theirs.uri}/prefix",
        "other port": mine.uri,
        "other host": theirs.uri.replace("127.0.0.1", "localhost"),
        "other scheme": theirs.uri.replace("http:", "https:"),
        "none": None,
    }[place]


@pytest.mark.parametrize("place", ["same", "same, with a prefix", "other port", "other host", "other scheme", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["sync", "clean"])
def test_who_gets_them(
    prepared: Callable[[str], mlops.Run],
    world: World,
    server: FakeMlflow,
    theirs: FakeMlflow,
    out: Any,
    command: str,
    kind: str,
    place: str,
) -> None:
    """Only the very server that is named; another one is asked without, and that is said once, without a secret."""
    run = prepared(command)
    world.configure(kind, named(place, server, theirs))
    code, said, complaint = out(command, str(run.directory))
    assert 0 == code, said + complaint  # this server takes requests without credentials
    wanted = place.startswith("same")
    assert wanted == world.got(theirs)
    assert (wanted and kind == "command", wanted and kind == "plugin") == (world.ran.exists(), world.signed > 0)
    assert [] == server.headers
    assert (not wanted) == complaint.count("not sent to") == complaint.count(theirs.uri) // 2
    assert "canary" not in said + complaint
    if not wanted:
        assert all(name in complaint for name in KINDS[kind])
        assert ("MLFLOW_TRACKING_URI is not set" in complaint) == (place == "none")


@pytest.mark.parametrize("kind", KINDS)
def test_to(
    prepared: Callable[[str], mlops.Run], world: World, server: FakeMlflow, theirs: FakeMlflow, out: Any, kind: str
) -> None:
    """What ``--to`` names gets them, whatever directory and environment name, which get nothing at all."""
    run = prepared("sync")
    world.configure(kind, theirs.uri)
    assert (0, "") == out("sync", str(run.directory), "--to", server.uri)[::2]
    assert (True, []) == (world.got(server), theirs.headers)


def test_to_with_user_and_password(
    prepared: Callable[[str], mlops.Run], world: World, server: FakeMlflow, theirs: FakeMlflow, out: Any
) -> None:
    """Those of ``--to`` go there, and nobody else's do."""
    run = prepared("sync")
    world.configure("user", theirs.uri)
    assert 0 == out("sync", str(run.directory), "--to", server.uri.replace("//", "//bob:secret@"))[0]
    assert {"Basic Ym9iOnNlY3JldA=="} == set(server.authorizations)
    assert [] == theirs.headers


def type_in(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Paste a command into a shell."""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    place.mkdir()
    return subprocess.run(
        command, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("command", "options"), [("sync", ["--close", "--experiment", "a b"]), ("clean", ["--older-than", "1e-09"])]
)
def test_the_command_that_is_printed(
    prepared: Callable[[str], mlops.Run],
    world: World,
    server: FakeMlflow,
    theirs: FakeMlflow,
    out: Any,
    tmp_path: Path,
    command: str,
    options: list[str],
) -> None:
    """As it stands there, from any directory, it does what was asked for, and sends them."""
    run = prepared(command)
    world.configure("token", server.uri)
    for call in ("runs/get", "runs/log-batch"):
        theirs.answer_next(call, 400, body={"error_code": "RESOURCE_DOES_NOT_EXIST"})
    _, _, complaint = out(command, str(run.directory), *options)
    (typed,) = re.findall(r"If that server is to have them: (.*)$", complaint, re.MULTILINE)
    words = shlex.split(typed)
    assert [option for option in options if option not in words] == []
    theirs.headers.clear()
    done = type_in(typed, tmp_path / "elsewhere")
    assert (0, "") == (done.returncode, done.stderr)
    assert {"Bearer canary"} == {headers.get("authorization") for headers in theirs.headers}
    assert [] == server.headers


def test_it_names_all_runs_of_that_server(
    record: Record, world: World, server: FakeMlflow, theirs: FakeMlflow, out: Any, tmp_path: Path
) -> None:
    """And no other run: those would go there, too. It is said once."""
    runs = [record(name, tracking_uri=theirs.uri) for name in ("first", "second")]
    mine = record("mine", tracking_uri=server.uri)
    world.configure("token", server.uri)
    code, _, complaint = out("sync")
    (typed,) = re.findall(r"If that server is to have them: (.*)$", complaint, re.MULTILINE)
    assert (0, [str(run.directory) for run in runs]) == (code, [word for word in typed.split() if "/runs/" in word])
    assert str(mine.directory) not in typed
    assert {"Bearer canary"} == set(server.authorizations)
    assert {None} == set(theirs.authorizations)
    assert 0 == type_in(typed, tmp_path / "elsewhere").returncode


def test_a_refusal_does_not_blame_the_credentials(
    prepared: Callable[[str], mlops.Run],
    world: World,
    server: FakeMlflow,
    theirs: FakeMlflow,
    out: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A server that asks for credentials has got none: that is said along with its answer, and stands in ``status``."""
    run = prepared("sync")
    world.configure("token", server.uri)
    for answer, text in (
        ({}, "HTTP 401: {} (no credentials were sent to this server)"),
        ({"error_code": "PERMISSION_DENIED", "message": "no"}, "PERMISSION_DENIED: no (no credentials were sent"),
    ):
        theirs.answer_next("experiments/get", 401, body=answer)
        assert 3 == Sync(Terminal(sys.stdout, sys.stderr), patience=AT_ONCE).run([RunDirectory(run.directory)])
        assert text in capsys.readouterr().out
        assert text in out("status")[1]
        for path in run.directory.glob("cursor-*"):
            path.unlink()


def test_a_refusal_of_what_cleans_looks_for(
    prepared: Callable[[str], mlops.Run], world: World, theirs: FakeMlflow, out: Any
) -> None:
    """The run stays, and why is not the credentials' fault."""
    run = prepared("clean")
    world.configure("token", None)
    theirs.answer_next("runs/get", 403)
    code, said, _ = out("clean", str(run.directory))
    assert (0, True) == (code, "HTTP 403: {} (no credentials were sent to this server)" in said)
    assert run.directory.exists()


def test_nothing_is_read_for_another_server(
    prepared: Callable[[str], mlops.Run], world: World, theirs: FakeMlflow, out: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A token file that is not there would be complained about."""
    run = prepared("sync")
    world.configure("file", None)
    Path("token.txt").unlink()
    theirs.answer_next("experiments/get", 401)  # it would be read again
    assert 3 == Sync(Terminal(None, None), patience=AT_ONCE).run([RunDirectory(run.directory)])
    assert "MLOPS_TOKEN_FILE" not in caplog.text
    assert 0 == out("sync", str(run.directory), "--to", theirs.uri)[0]
    assert "MLOPS_TOKEN_FILE" in caplog.text


def test_without_credentials_nothing_is_said(
    prepared: Callable[[str], mlops.Run], server: FakeMlflow, out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is withheld."""
    run = prepared("sync")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert (0, "") == out("sync", str(run.directory))[::2]


@pytest.mark.parametrize("command", ["sync", "clean"])
def test_netrc(
    prepared: Callable[[str], mlops.Run],
    world: World,
    theirs: FakeMlflow,
    out: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
) -> None:
    """What it has for the host of a run directory is not sent there, with or without credentials of another kind."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password canary\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    run = prepared(command)
    assert 0 == out(command, str(run.directory))[0]
    assert not world.got(theirs)


@pytest.mark.parametrize(
    "form", ["{theirs}\\@{mine}", "{theirs}/\\@{mine}", "{theirs}?@{mine}", "{theirs}#@{mine}", "{at}"]
)
@pytest.mark.parametrize("command", ["sync", "clean"])
def test_an_address_that_looks_like_ours(
    prepared: Callable[[str], mlops.Run],
    world: World,
    server: FakeMlflow,
    theirs: FakeMlflow,
    out: Any,
    command: str,
    form: str,
) -> None:
    """What one library takes for our host and another for theirs gets nothing."""
    run = prepared(command)
    mine = server.uri.removeprefix("http://")
    rename_server(run, form.format(theirs=theirs.uri, mine=mine, at=theirs.uri.replace("//", f"//{mine}@")))
    world.configure("token", server.uri)
    if command == "sync":
        Sync(Terminal(None, None), patience=AT_ONCE).run([RunDirectory(run.directory)])
    else:
        out(command, str(run.directory))
    assert not any("authorization" in headers for headers in theirs.headers)


def rename_server(run: mlops.Run, uri: str) -> None:
    """Have a run directory name another server, in its journal and in its cursor."""
    (path,) = run.directory.glob("journal-*.jsonl")
    header, spec = reader.read_start(path)
    assert header is not None
    assert spec is not None
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = records.frame(msgspec.structs.replace(spec, tracking_uri=uri))
    change = sum(map(len, lines)) - path.stat().st_size
    path.write_bytes(b"".join(lines))
    for file in run.directory.glob("cursor-*.json"):
        state = cursor.load(file)
        assert state is not None
        file.unlink()
        positions = {name: position + change for name, position in state.positions.items()}
        fresh = msgspec.structs.replace(state, destination=uri, positions=positions)
        cursor.save(cursor.cursor_path(run.directory, uri), fresh)


@pytest.mark.parametrize("kind", ["token", "plugin"])
@pytest.mark.parametrize("command", ["sync", "clean"])
def test_oracle(
    prepared: Callable[[str], mlops.Run],
    world: World,
    server: FakeMlflow,
    theirs: FakeMlflow,
    out: Any,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    kind: str,
) -> None:
    """A workspace that nobody has named is not even asked; one that is named gets what is signed."""
    run = prepared(command)
    uri = f"{theirs.uri}/20260430/aiDataPlatforms/p/workspaces/w?auth=ambient"
    rename_server(run, uri)
    world.configure(kind, server.uri)
    code, said, complaint = out(command, str(run.directory))
    assert (command == "sync", [], 0) == (bool(code), theirs.headers, world.signed)
    assert ("sync --to" if command == "sync" else "nothing is signed") in said
    (typed,) = re.findall(r"If that server is to have them: (.*)$", complaint, re.MULTILINE)
    assert uri in shlex.split(typed)[-1 if command == "sync" else 0]
    assert "Oracle's configuration" in complaint
    assert run.directory.exists()
    if kind == "plugin":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        Sync(Terminal(None, None), patience=AT_ONCE).run([RunDirectory(run.directory)])
        out(command, str(run.directory)) if command == "clean" else None
        assert {"Plugin canary"} == {headers.get("authorization") for headers in theirs.headers}


def test_oracle_signs_nothing_without_leave() -> None:
    """Whoever opens such a server: what its address says of credentials is not done."""
    address = oracle_uri.parse("https://theirs/aiDataPlatforms/p/workspaces/w?auth=ambient")
    assert address is not None
    withheld = Withheld(("Oracle's configuration",), None, "https://theirs", needed=True)
    signs = signing.OracleCredentials(address, Access(request_auth="mine", withheld=withheld))
    with pytest.raises(NotSignedError, match="nothing is signed"):
        signs.open()
    assert not signs.refresh()


@pytest.mark.parametrize("command", ["sync", "clean"])
def test_databricks(
    prepared: Callable[[str], mlops.Run],
    world: World,
    theirs: FakeMlflow,
    out: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
) -> None:
    """The workspace's token goes there once ``databricks`` is named, as the command that is printed does."""
    run = prepared(command)
    monkeypatch.setenv("DATABRICKS_HOST", theirs.uri)
    monkeypatch.setenv("DATABRICKS_TOKEN", "canary")
    call = "runs/get" if command == "clean" else "experiments/create"
    theirs.answer_next(call, 400, body={"error_code": "RESOURCE_DOES_NOT_EXIST"})
    _, _, complaint = out(command, str(run.directory))
    assert not world.got(theirs)
    (typed,) = re.findall(r"If that server is to have them: (.*)$", complaint, re.MULTILINE)
    theirs.headers.clear()
    assert 0 == type_in(typed, tmp_path / "elsewhere").returncode
    assert {"Basic dG9rZW46Y2FuYXJ5"} == {headers.get("authorization") for headers in theirs.headers}


RESUMED = """
import sys
import mlops_integrations as mlops
run = mlops.start_run(resume=sys.argv[1], uploader=sys.argv[2])
run.log_metric("loss", 0.1, step=9)
print(run.finish(timeout=100.0))
"""


@pytest.mark.parametrize("uploader", ["thread", "process"])
def test_a_run_that_goes_on(
    prepared: Callable[[str], mlops.Run],
    world: World,
    server: FakeMlflow,
    theirs: FakeMlflow,
    python: Any,
    uploader: str,
) -> None:
    """It is delivered where it is named now; the server that its directory names is not asked."""
    run = prepared("clean")
    world.configure("token", server.uri)
    done = python(RESUMED, run.uid, uploader, timeout=150.0)
    assert "True\n" == done.stdout, done.stderr
    assert [] == theirs.headers
    assert {"Bearer canary"} == set(server.authorizations)


def test_a_run_that_goes_on_without_a_server(
    prepared: Callable[[str], mlops.Run], world: World, theirs: FakeMlflow, root: Path
) -> None:
    """Its directory names one, and that is no reason to deliver it there."""
    run = prepared("clean")
    world.configure("token", None)
    resumed = mlops.start_run(resume=run.uid, directory=root, uploader="thread")
    resumed.log_metric("loss", 0.1, step=9)
    assert not resumed.finish(timeout=5.0)
    assert [] == theirs.headers


def test_a_forged_cursor(
    record: Record, world: World, server: FakeMlflow, theirs: FakeMlflow, out: Any, python: Any
) -> None:
    """One that lies in our server's place and names another one changes nothing."""
    run = record(tracking_uri=server.uri)
    assert 0 == out("sync")[0]
    (path,) = run.directory.glob("cursor-*.json")
    state = cursor.load(path)
    assert state is not None
    cursor.save(path, msgspec.structs.replace(state, destination=theirs.uri))
    world.configure("token", server.uri)
    done = python(RESUMED, run.uid, "thread", timeout=150.0)
    assert "True\n" == done.stdout, done.stderr
    assert ([], 4) == (theirs.headers, len(server.run("baseline").metrics))


def test_what_is_left_is_sent_with_credentials(
    server: FakeMlflow, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that the script alone has named is named by the command that delivers the rest."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "canary")
    server.answer_next("experiments/get", 503, times=1_000)
    run = mlops.start_run(tracking_uri=server.uri, directory=root, uploader="thread")
    run.log_metric("loss", 0.1)
    server.wait_for("experiments/get")
    assert not run.finish(timeout=0.0)
    run._recorder.delivery.say_what_is_left()
    (typed,) = re.findall(r"The rest: (.*)$", caplog.text, re.MULTILINE)
    assert typed.endswith(f" --to {server.uri}")
    caplog.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    run._recorder.delivery._left_said = False
    run._recorder.delivery.say_what_is_left()
    (typed,) = re.findall(r"The rest: (.*)$", caplog.text, re.MULTILINE)
    assert typed.endswith(f"sync {run.directory}")
    server.forget_answers()
    assert run.finish(timeout=60.0)


def test_doctor_and_client(server: FakeMlflow, out: Any, world: World, theirs: FakeMlflow) -> None:
    """What they are given is named, whatever the environment names."""
    world.configure("token", theirs.uri)
    assert "a token" in out("doctor", server.uri)[1]
    assert "user joe" in out("doctor", server.uri.replace("//", "//joe:canary@"))[1]
    assert (True, []) == (world.got(server), theirs.headers)
