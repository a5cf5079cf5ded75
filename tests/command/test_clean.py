"""``clean``: what a server has goes, whatever else stays, and is said."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.journal import cursor, reader, records
from mlops_integrations.journal.lease import Lease
from other_writers import move_writer

Record = Callable[..., mlops.Run]


@pytest.fixture
def delivered(record: Record, server: FakeMlflow, out: Any) -> Callable[..., mlops.Run]:
    """Records a run of a process that has ended since, and delivers it."""

    def make(name: str = "baseline", **options: Any) -> mlops.Run:
        run = record(name, tracking_uri=server.uri, **options)
        move_writer(run, start_time="long ago")
        assert 0 == out("sync", str(run.directory))[0]
        return run

    return make


def test_what_is_delivered_goes(
    delivered: Callable[..., mlops.Run], record: Record, server: FakeMlflow, out: Any, root: Path
) -> None:
    """The directory of a delivered run goes, that of one without a server stays; ``latest`` leads to what is left."""
    first = record("local")
    second = delivered("baseline")
    code, said, _ = out("clean")
    assert (0, False, True) == (code, second.directory.exists(), first.directory.exists())
    assert f"baseline-{second.uid[-4:]}: 3 points, FINISHED, {server.uri}" in said
    assert "recorded only, no server has it" in said
    assert "Runs: 1 removed, 1 kept; 0.0 MB freed" in said
    assert first.directory == (root / "latest").resolve()
    assert [] == [path.name for path in root.iterdir() if path.name.startswith(".") and path.is_dir()]
    assert 3 == len(server.run("baseline").metrics)


def test_nothing_left(delivered: Callable[..., mlops.Run], out: Any, root: Path) -> None:
    """With the last run goes ``latest``; to clean again is no mistake."""
    delivered()
    assert 0 == out("clean")[0]
    assert [".gitignore"] == [path.name for path in root.iterdir()]
    code, said, _ = out("clean")
    assert (0, True) == (code, "no runs in" in said)


def test_dry_run(delivered: Callable[..., mlops.Run], out: Any) -> None:
    """It says what would go, and removes nothing."""
    run = delivered()
    code, said, _ = out("clean", "--dry-run")
    assert (0, True, True) == (code, "Runs: 1 to remove" in said, run.directory.exists())


def test_older_than(delivered: Callable[..., mlops.Run], out: Any) -> None:
    """A run that ended lately stays, if asked for."""
    run = delivered()
    code, said, _ = out("clean", "--older-than", "2")
    assert (0, True, True) == (code, "it ended less than 2 days ago" in said, run.directory.exists())


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "two"])
def test_no_number_of_days(days: str, out: Any) -> None:
    """What is no number of days is wrong usage."""
    code, _, complaint = out("clean", "--older-than", days)
    assert (2, True) == (code, "--older-than: invalid" in complaint)


def test_a_process_that_still_runs(record: Record, server: FakeMlflow, out: Any) -> None:
    """A process that lives may log to its finished run again: it keeps its directory."""
    run = record(tracking_uri=server.uri)
    assert 0 == out("sync")[0]
    code, said, _ = out("clean")
    assert (0, True) == (code, f"its process still runs ({os.getpid()})" in said)
    assert run.directory.exists()


def test_a_run_of_another_machine(record: Record, server: FakeMlflow, out: Any) -> None:
    """Whose process can't be seen stays an hour after its end."""
    run = record(tracking_uri=server.uri)
    move_writer(run, host="elsewhere", boot_id="another")
    assert 0 == out("sync")[0]
    assert "in an hour, it can go" in out("clean")[1]
    hour_ago = time.time() - 3_700
    for path in run.directory.glob("journal-*.jsonl"):
        os.utime(path, (hour_ago, hour_ago))
    assert "Runs: 1 removed" in out("clean")[1]


def test_points_behind_the_cursor(delivered: Callable[..., mlops.Run], out: Any) -> None:
    """What was logged after the delivery is waiting."""
    run = delivered()
    run.log_metric("loss", 0.1, step=3)
    run.finish()
    code, said, _ = out("clean")
    assert (0, True, True) == (code, "1 waiting" in said, run.directory.exists())


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
def test_what_only_the_directory_has(
    delivered: Callable[..., mlops.Run], out: Any, field: str, value: Any, reason: str
) -> None:
    """A run directory that holds something that no server has stays."""
    run = delivered()
    (path,) = run.directory.glob("cursor-*.json")
    state = cursor.load(path)
    assert state is not None
    cursor.save(path, msgspec.structs.replace(state, **{field: value}))
    code, said, _ = out("clean")
    assert (0, True, True) == (code, reason in said, run.directory.exists())


def test_beside_an_uploader(delivered: Callable[..., mlops.Run], out: Any) -> None:
    """A run that somebody delivers is left to that one."""
    run = delivered()
    other = Lease(run.directory, "sync", yields=False)
    assert other.acquire()
    code, said, _ = out("clean")
    assert (1, True, True) == (code, "is delivering it" in said, run.directory.exists())
    other.release()


def test_something_logged_meanwhile(
    delivered: Callable[..., mlops.Run], out: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged between the look and the removal brings the directory back."""
    run = delivered()
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        monkeypatch.undo()
        run.log_metric("loss", 0.1, step=3)
        return rename(path, target)

    environment = os.environ["MLOPS_DIR"]
    monkeypatch.setattr(Path, "rename", late)
    code, said, _ = out("clean", environment)
    assert (1, True, True) == (code, "something was logged just now" in said, run.directory.exists())
    assert not (run.directory / "lease").exists()
    run.finish()


def test_a_run_that_cannot_be_read(delivered: Callable[..., mlops.Run], out: Any) -> None:
    """A journal of a later version stays, and the exit code says so."""
    run = delivered()
    path = run.directory / "journal-0001.jsonl"
    header, _ = reader.read_start(path)
    assert header is not None
    _, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(records.frame(msgspec.structs.replace(header, format=records.FORMAT + 1)) + rest)
    code, said, _ = out("clean")
    assert (1, True, True) == (code, "newer version" in said, run.directory.exists())
