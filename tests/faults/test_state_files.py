"""Whatever bytes lie in the small files of a run directory, every command ends with a clear word.

Nothing is lost by it, and nothing is doubled on a server that keeps what comes twice once.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from fake_mlflow import FakeMlflow
from mlops_integrations.cli import arguments
from mlops_integrations.journal import files, identity
from mlops_integrations.journal.cursor import cursor_path
from mlops_integrations.journal.lease import Holder, Lease
from mlops_integrations.journal.records import FORMAT, End, Header, Metrics, RunSpec, frame
from mlops_integrations.journal.writer import JournalWriter

SEEDS = int(os.environ.get("FAULT_SEEDS", "12"))
UID = "mlops-0123456789abcdef0123456789abcdef"
POINTS = 20
HOSTILE = [
    b"",
    b"\n",
    bytes(4_096),
    b"\xff" * 100,
    b"null",
    b"[1]",
    b"{}",
    b"-1",
    b"9" * 5_000,
    b"[" * 200_000,
    b"x" * 20_000_000,
    b'{"destination": 1}\n[]\n1\n{"metric": 3}\n"\n' + b"[" * 100_000,
]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeMlflow]:
    """A server that keeps a point that comes twice once."""
    with FakeMlflow() as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, server: FakeMlflow) -> Path:
    """A run directory of two journal files, of which the first is delivered."""
    server.runs.clear()
    directory = tmp_path / "run"
    directory.mkdir()
    record(directory, server.uri, 0)
    assert arguments.main(["sync", str(directory)]) == 0
    record(directory, server.uri, POINTS)
    return directory


def record(directory: Path, uri: str, first: int, *, key: str = "loss", end: bool = True) -> None:
    """One journal file of a writer that has ended its run, or died."""
    who = identity.me() if end else structs.replace(identity.me(), start_time="1")
    begin, spec = 9_500 + first, RunSpec(UID, "run", 1, uri, "fake")
    writer = JournalWriter(directory, Header(FORMAT, UID, who, begin, "0"), spec)
    for step in range(first, first + POINTS):
        writer.append(Metrics(1_000 + step, [(key, float(step), step)]))
    if end:
        writer.finish(End(9_000 + first, "FINISHED", None, False, POINTS))
    writer.close()


def delivered(server: FakeMlflow) -> list[tuple[int, str]]:
    """Points and status of each run that is not deleted there."""
    return [(len(run.metrics), run.status) for run in server.runs.values() if not run.deleted]


def damaged(sound: bytes, seed: int) -> bytes:
    """The sound content with some damage."""
    chance = random.Random(seed)
    content = bytearray(sound or b"0")
    at = chance.randrange(len(content))
    kind = chance.randrange(5)
    if kind == 0:
        content[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del content[at:]
    elif kind == 2:
        content[at:] = bytes(len(content) - at)
    elif kind == 3:
        content[at : at + 4] = chance.randbytes(4)
    else:
        content = bytearray(chance.randbytes(chance.randrange(300)))
    return bytes(content)


def file_of(run: Path, name: str, uri: str) -> Path:
    """The file of this name, as the directory calls it."""
    return cursor_path(run, uri) if name == "cursor" else run / name


def sound_of(path: Path, name: str, uri: str) -> bytes:
    """What such a file holds when all is well."""
    if path.exists():
        return path.read_bytes()
    if name == "lease":
        return msgspec.json.encode(Holder(structs.replace(identity.me(), start_time="1"), "sync", "theirs"))
    if name == "refused.jsonl":
        return msgspec.json.encode({"destination": uri, "reason": "X", "metric": {"key": "a"}}) + b"\n"
    if name == "journal-0001.exit":
        return files.seal(b'{"time":1,"wait_status":9,"out_of_memory":false}')
    return b"12345"


def all_commands(run: Path) -> dict[str, int]:
    """The exit code of each command."""
    calls = {"sync": [str(run)], "status": [str(run)], "runs": ["--dir", str(run.parent)], "show": [str(run)]}
    return {name: arguments.main([name, *words]) for name, words in calls.items()}


@pytest.mark.parametrize(
    "name",
    ["cursor", "lease", "lease.wanted", "lease.lock", "refused.jsonl", "journal-0001.exit", "wake", "side_process"],
)
def test_any_bytes(run: Path, server: FakeMlflow, name: str) -> None:
    """Everything is delivered all the same, into the one run, and every command says so."""
    path = file_of(run, name, server.uri)
    sound = sound_of(path, name, server.uri)
    contents = [*HOSTILE, *(damaged(sound, seed) for seed in range(SEEDS))]
    for number, content in enumerate(contents):
        path.write_bytes(content)
        record(run, server.uri, POINTS * (2 + number))
        again = f"content {number} of {name}: {content[:80]!r}"
        assert {"sync": 0, "status": 0, "runs": 0, "show": 0} == all_commands(run), again
        assert [(POINTS * (3 + number), "FINISHED")] == delivered(server), again


@pytest.mark.parametrize("name", ["cursor", "lease", "refused.jsonl", "journal-0001.exit", "wake", "side_process"])
def test_a_directory_in_its_place(run: Path, server: FakeMlflow, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be read or written is said, without a traceback; what can be delivered is."""
    path = file_of(run, name, server.uri)
    path.unlink(missing_ok=True)
    path.mkdir()
    codes = all_commands(run)
    assert codes["sync"] in {0, 1}
    assert (0, 0) == (codes["runs"], codes["show"])
    if codes["sync"]:
        assert "left " in capsys.readouterr().out
    assert len(delivered(server)) == 1


def numbers(**fields: Any) -> Callable[[str], bytes]:
    """A cursor of sound form that holds numbers which no file has."""
    return lambda uri: files.seal(msgspec.json.encode({"destination": uri, **fields}))


@pytest.mark.parametrize(
    "content",
    [
        numbers(positions={"journal-0001.jsonl": -1}),
        numbers(positions={"journal-0001.jsonl": 2**63}),
        numbers(sending={"positions": {"journal-0001.jsonl": 2**80}, "since": -(2**70)}),
    ],
    ids=["before the file", "beyond every file", "what is on its way"],
)
def test_positions_that_no_file_has(run: Path, server: FakeMlflow, content: Callable[[str], bytes]) -> None:
    """They are no positions: delivery begins anew, in the same run."""
    cursor_path(run, server.uri).write_bytes(content(server.uri))
    assert {"sync": 0, "status": 0, "runs": 0, "show": 0} == all_commands(run)
    assert [(2 * POINTS, "FINISHED")] == delivered(server)


def test_one_wrong_digit(run: Path, server: FakeMlflow) -> None:
    """A cursor of sound form with a digit that nobody wrote is not believed: what it would pass over is delivered."""
    path = cursor_path(run, server.uri)
    sound = path.read_bytes()
    at = sound.index(b"journal-0001.jsonl") + len(b'journal-0001.jsonl":')
    path.write_bytes(sound[:at] + b"9" + sound[at:])
    with (run / "journal-0001.jsonl").open("ab") as file:
        file.write(frame(Metrics(5_000, [("late", 1.0, 1)])))
    assert arguments.main(["sync", str(run)]) == 0
    assert [2 * POINTS + 1] == [points for points, _ in delivered(server)]


@pytest.mark.parametrize("wait_status", [-1, 0x7F, 0xFFFF, 2**40], ids=hex)
def test_an_end_that_no_process_has(run: Path, server: FakeMlflow, wait_status: int) -> None:
    """A wait status that tells of no end is no note of one: what is found out about the process stands there then."""
    record(run, server.uri, 2 * POINTS, end=False)
    note = {"time": 1, "wait_status": wait_status}
    (run / "journal-0003.exit").write_bytes(files.seal(msgspec.json.encode(note)))
    assert {"sync": 0, "status": 0, "runs": 0, "show": 0} == all_commands(run)
    assert [(3 * POINTS, "FAILED")] == delivered(server)


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_refusals_that_can_not_be_read(run: Path, server: FakeMlflow, content: bytes) -> None:
    """Lines in the file of what was refused that are no such lines are passed over where they are counted."""
    server.refuse_metric("poison")
    record(run, server.uri, 2 * POINTS, key="poison", end=False)
    assert arguments.main(["sync", str(run)]) == 0
    (run / "refused.jsonl").write_bytes(content)
    assert {"sync": 0, "status": 0, "runs": 0, "show": 0} == all_commands(run)


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**70])
def test_a_lease_of_no_process(run: Path, server: FakeMlflow, pid: int) -> None:
    """Numbers that no process has are nobody's; to the kernel some of them mean many processes."""
    holder = Holder(structs.replace(identity.me(), pid=pid), "sync", "theirs", yields=False)
    (run / "lease").write_bytes(msgspec.json.encode(holder))
    assert {"sync": 0, "status": 0, "runs": 0, "show": 0} == all_commands(run)
    assert [(2 * POINTS, "FINISHED")] == delivered(server)


def test_dated_ahead_of_the_clock(run: Path, server: FakeMlflow) -> None:
    """A clock that was set back makes nobody wait: neither for a stranger's lease nor for a wish."""
    ahead = time.time() + 3_600
    stranger = structs.replace(identity.me(), host="elsewhere", boot_id="another")
    (run / "lease").write_bytes(msgspec.json.encode(Holder(stranger, "sync", "theirs", yields=False)))
    (run / "lease.wanted").write_bytes(b"")
    for name in ("lease", "lease.wanted", "wake"):
        (run / name).touch()
        os.utime(run / name, (ahead, ahead))
    assert not Lease(run, "side process").asked()
    assert {"sync": 0, "status": 0, "runs": 0, "show": 0} == all_commands(run)
    assert [(2 * POINTS, "FINISHED")] == delivered(server)
