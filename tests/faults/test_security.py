"""What nobody else is to see, and what strangers must not be able to do."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import hostile
from fake_mlflow import FakeMlflow
from hostile import serving
from mlops_integrations.backends.transport import Transport
from mlops_integrations.cli import arguments
from mlops_integrations.client import TrackingClient
from mlops_integrations.config.settings import Access
from mlops_integrations.upload.side_process import _Plain
from real_mlflow import eventually
from trainer import Trainer, side_processes

CANARY = "canary-5ecret-0123456789"
MOST_MEMORY = 300 * 2**20

TRAIN = """
import json, os, sys, time
from pathlib import Path
os.umask(int(sys.argv[1], 8) if len(sys.argv) > 1 else 0o22)
import mlops_integrations as mlops
Path("made").mkdir(mode=0o700)
(Path("made") / "model.pt").write_bytes(b"x")
run = mlops.start_run(experiment_name="fake", run_name="baseline", tags={"t": "1"})
run.log_metric("loss", 0.5, step=0)
run.log_metric("poison/", 0.5, step=0)
run.log_artifact("made/model.pt", "deep/deeper")
run.log_artifact("made/model.pt", "later", wait=False)
run.flush(timeout=1)
end = time.monotonic() + 60
while not (run.directory / "refused.jsonl").exists() and time.monotonic() < end:
    time.sleep(0.05)
def modes():
    return {str(p): p.lstat().st_mode & 0o777 for p in run.directory.rglob("*") if not p.is_symlink()}
found = modes()
run.finish(timeout=1)
root = run.directory.parent
beside = [path for path in (root, *root.iterdir()) if not path.is_symlink()]
found |= modes() | {str(path): path.lstat().st_mode & 0o777 for path in beside}
print(json.dumps(found))
"""


@pytest.mark.parametrize("place", ["MLOPS_DIR", "temporary files"])
@pytest.mark.parametrize("umask", ["0", "022", "077", "0777"])
def test_files_are_private_under_any_umask(umask: str, place: str, tmp_path: Path) -> None:
    """Directories are 0700 and files 0600: journal, state, artifacts, log; also among temporary files."""
    trainer = Trainer(tmp_path)
    chosen = {"MLOPS_DIR": str(tmp_path / "new" / "root")}
    if place == "temporary files":
        (tmp_path / "temporary").mkdir()
        (tmp_path / "mlops_runs").write_text("in the way")
        chosen = {"TMPDIR": str(tmp_path / "temporary")}
    with FakeMlflow() as server:
        (tmp_path / "train.py").write_text(TRAIN)
        done = subprocess.run(
            [sys.executable, "train.py", umask],
            cwd=tmp_path,
            env=trainer.environment(MLFLOW_TRACKING_URI=server.uri, MLOPS_LINGER="0", **chosen),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    modes: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    names = {Path(name).name.split("-")[0] for name in modes}
    assert {"journal", "cursor", "lease", "lease.lock", "uploader.log", "refused.jsonl", "model.pt", "deeper"} <= names
    kinds = {name: 0o700 if Path(name).is_dir() else 0o600 for name in modes if Path(name).exists()}
    assert kinds == {name: modes[name] for name in kinds}
    assert {0o600, 0o700} == set(modes.values())
    if place == "MLOPS_DIR":
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    else:
        assert all(name.startswith(chosen["TMPDIR"]) for name in modes)


SECRETS = {
    "password": {"MLFLOW_TRACKING_URI": f"//ann:{CANARY}@"},
    "token": {"MLFLOW_TRACKING_TOKEN": CANARY},
    "token file": {"MLOPS_TOKEN_FILE": "token.txt"},
    "token command": {"MLOPS_TOKEN_COMMAND": f"echo {CANARY}"},
    "header": {"MLOPS_HEADERS": json.dumps({"X-Api-Key": CANARY})},
    "signature": {"MLOPS_HEADERS": json.dumps({"Authorization": f'Signature keyId="a/b",signature="{CANARY}"'})},
}

LOUD = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
import mlops_integrations as mlops
try:
    run = mlops.start_run(experiment_name="fake\\x1b[31m", run_name="base\\x1b[31mline")
    print(repr(run), repr(run._recorder.settings))
    run.log_metric("loss\\x1b[31m", 0.5)
    run.log_metric("loss\\x1b[31m", "no\\x1b[31m number")
    run.flush(timeout=1)
    client = mlops.TrackingClient()
    print(repr(client))
    client.create_experiment("x")
except Exception as error:
    print(repr(error), str(error))
    traceback.print_exc()
run.finish("FAILED", timeout=1)
"""


def shown(text: str) -> list[str]:
    """The characters of a text that steer a terminal."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


CASES = [
    ("password", 500, "json", "process"),
    ("password", 500, "html", "thread"),
    ("token", 500, "html", "process"),
    ("token file", 302, "redirect", "process"),
    ("token command", 400, "json", "process"),
    ("header", 500, "html", "process"),
    ("signature", 400, "json", "thread"),
    ("signature", 200, "html", "process"),
]
"""Which secret; the server's status, and how it shows what it was asked; who uploads."""

Case = tuple[str, int, str, str]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, dict[str, str]]:
    """For each case, what can be read anywhere afterwards. All at once: most of the time is waiting."""
    places = {case: tmp_path_factory.mktemp("secret") for case in CASES}
    with ThreadPoolExecutor(len(CASES)) as threads:
        return dict(zip(CASES, threads.map(_all_that_is_said, CASES, places.values()), strict=True))


def _all_that_is_said(case: Case, directory: Path) -> dict[str, str]:
    kind, status, form, uploader = case
    trainer = Trainer(directory)
    (directory / "token.txt").write_text(CANARY)
    with serving(hostile.echo(status, form)) as (uri, asked):
        variables = {"MLFLOW_TRACKING_URI": uri, "MLOPS_LINGER": "0", "MLOPS_UPLOADER": uploader} | SECRETS[kind]
        if kind == "password":
            variables["MLFLOW_TRACKING_URI"] = uri.replace("//", SECRETS[kind]["MLFLOW_TRACKING_URI"])
        process = trainer.start(LOUD, **variables)
        eventually(lambda: asked or process.poll() is not None)
        commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in side_processes(directory)]
        out, err = process.communicate(timeout=60)
        calls = {"sync": [], "status": [], "runs": [], "show": [], "doctor": [uri]}
        told = {
            call: subprocess.Popen(
                [sys.executable, "-m", "mlops_integrations", call, *words],
                cwd=directory,
                env=trainer.environment(**variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for call, words in calls.items()
        }
        found = {call: process.communicate(timeout=60)[0] for call, process in told.items()}
        eventually(lambda: not side_processes(directory))
    assert asked
    files = [path for path in trainer.root.rglob("*") if path.is_file()]
    found |= {path.name: path.read_text(errors="replace") for path in files}
    return found | {"commands": "".join(commands).replace("\0", " "), "trainer": out + err, "asked": "\n".join(asked)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_a_secret_is_nowhere(case: Case, said: dict[Case, dict[str, str]]) -> None:
    """A server that shows all that it was asked, logging at its loudest: no file, line, exception or process has it."""
    found = said[case]
    assert {"journal-0001.jsonl", "sync", "doctor", "trainer"} <= set(found)
    assert bool(found["commands"]) is (case[3] == "process")
    forms = [CANARY, base64.b64encode(f"ann:{CANARY}".encode()).decode()]
    assert [] == [where for where, text in found.items() if any(form in text for form in forms)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_nothing_steers_a_terminal(case: Case, said: dict[Case, dict[str, str]]) -> None:
    """Neither what the server says nor names of runs and metrics: on stderr, in what commands print, in any file."""
    found = dict(said[case])
    # What a training prints itself is its own business.
    lines = [line for line in found.pop("trainer").splitlines() if "mlops: " in line]
    assert lines
    assert [] == shown("\n".join(lines))
    assert {} == {where: steering for where, text in found.items() if (steering := shown(text))}


def test_the_log_spells_out_what_steers_a_terminal() -> None:
    """Whatever is logged in the side process, by whomever, with a traceback or not."""
    try:
        int(f"no number {hostile.STEERING}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "text %s", (hostile.STEERING,), sys.exc_info())
    written = _Plain("%(message)s").format(record)
    assert [] == shown(written)
    assert "\n" in written


@pytest.mark.parametrize(
    "proxy", ["http://ann:{}@no host:1", "http://ann:{}@127.0.0.1:1", "gopher://ann:{}@h:1", "http://ann:{}@[::1"]
)
def test_a_proxy_with_a_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the proxy can't be used is told without its password."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy.format(CANARY))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    reply = Transport(Access(timeout=2.0)).get("http://mlflow.example/api", {})
    assert reply.status is None
    assert CANARY not in repr(reply)


@pytest.mark.parametrize(
    "uri",
    ["htp://ann:{}@h/", "http://ann:{}@h:x/", "htp://ann:{}\n@h/", "http://ann:{}@[h/", "h?token={}", "http:ann:{}@h"],
)
def test_an_address_that_makes_no_sense(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What is wrong with it is told without the password in it."""
    with pytest.raises(ValueError) as raised:
        TrackingClient(uri.format(CANARY))
    assert CANARY not in repr(raised.value)
    arguments.main(["doctor", uri.format(CANARY)])
    assert CANARY not in "".join(capfd.readouterr())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status: int) -> None:
    """Neither a question nor a write nor a file goes on to another host."""
    with (
        serving(lambda handler: handler.reply(200, b"{}")) as (elsewhere, asked),
        serving(lambda handler: handler.reply(status, b"", Location=f"{elsewhere}/x")) as (uri, _),
    ):
        transport = Transport(Access(token=CANARY))
        replies: list[Any] = [
            transport.get(uri, {}),
            transport.post(uri, b"{}"),
            transport.put(uri, lambda: _Content(b"x")),
            transport.stream(uri, {}),
        ]
    assert [status] * 4 == [reply.status for reply in replies]
    assert asked == []


class _Content:
    """A file on its way."""

    def __init__(self, content: bytes) -> None:
        self._blocks = [content]

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        return iter(self._blocks)

    def read(self, count: int = -1, /) -> bytes:
        """The block."""
        return self._blocks.pop() if self._blocks else b""

    def __enter__(self) -> _Content:
        return self

    def __exit__(self, *_: object) -> None: ...


MEASURED = """
import sys
from pathlib import Path
def peak():
    return Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access
reply = Transport(Access(timeout=20.0)).post(sys.argv[1], b"{}")
print(reply.status, reply.body is None, peak())
print(reply.text)
"""


@pytest.mark.parametrize(
    "answer",
    [hostile.endless_body, hostile.endless_header, hostile.endless_header_line, hostile.gzip_bomb, hostile.deep_json],
)
def test_an_answer_without_end(answer: hostile.Answer, python: Any) -> None:
    """Is no answer, and takes a bounded amount of memory."""
    with serving(answer) as (uri, _):
        done = python(MEASURED, uri)
    assert done.returncode == 0, done.stderr
    _, is_none, memory = done.stdout.splitlines()[0].split()
    assert is_none == "True"
    assert int(memory) * 1024 < MOST_MEMORY
    print(f"\n{int(memory) / 1024:.0f} MB: {done.stdout.splitlines()[1][:80]}")


SHOWN = """
import sys
from pathlib import Path
def peak():
    return Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
from mlops_integrations.cli.arguments import main
codes = [main([call, sys.argv[1]]) for call in ("sync", "show", "status")]
print(codes, peak())
"""


def test_a_line_without_end(python: Any, tmp_path: Path) -> None:
    """A journal that holds half a gigabyte on one line takes a bounded amount of memory; its records are read."""
    with FakeMlflow() as server:
        Trainer(tmp_path).run(
            "import mlops_integrations as mlops\n"
            f"uri = {server.uri!r}\n"
            "run = mlops.start_run(tracking_uri=uri, mode='offline', experiment_name='fake', run_name='r')\n"
            "run.log_metric('loss', 1.0)\n"
            "run.finish()\n"
        )
        (directory,) = (path for path in (tmp_path / "mlops_runs").iterdir() if path.name[0] == "2")
        journal = directory / "journal-0001.jsonl"
        os.truncate(journal, journal.stat().st_size + 512 * 2**20)
        with journal.open("ab") as file:
            file.write(b"\n")
        done = python(SHOWN, str(directory))
        assert done.returncode == 0, done.stderr
        assert len(server.run("r").metrics) == 1
    memory = int(done.stdout.splitlines()[-1].split()[-1]) * 1024
    assert memory < MOST_MEMORY
    print(f"\n{memory / 2**20:.0f} MB")
    assert "damaged    1 line of the journal" in done.stdout
