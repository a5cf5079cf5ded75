"""The run directory: its name, its privacy, what others find in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from msgspec import structs

from mlops_integrations.errors import MLOpsError, RunDirectoryError
from mlops_integrations.journal import cursor, files
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.ending import Ending, Exit
from mlops_integrations.journal.records import End, Header, Metrics, RunSpec, frame
from mlops_integrations.journal.root import (
    directory_label,
    find_by_run_id,
    find_by_uid,
    make_run_directory,
    point_latest_to,
    run_directories,
)
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")

UID = "mlops-0123456789abcdef0123456789abcdef"


def test_name_of_a_run_directory(tmp_path: Path) -> None:
    """Time, run name and the end of the uid, in this order: names sort by time."""
    made = make_run_directory(tmp_path / "runs", "my run: β/2", UID)
    assert made.path.is_dir()
    assert made.path.parent == tmp_path / "runs"
    assert made.path.name[15:] == "-my_run_β_2-cdef"
    assert made.path.name[:15].replace("-", "").isdigit()


@pytest.mark.parametrize(
    ("name", "label"),
    [("baseline", "baseline"), ("../../etc/passwd", "etc_passwd"), ("a\nb\x00c", "a_b_c"), ("..", "run"), ("", "run"),
     ("x" * 500, "x" * 50), ("🔥", "run"), ("-rf", "-rf"), ("\ud800", "run")],
)  # fmt: skip
def test_run_name_as_part_of_a_file_name(name: str, label: str) -> None:
    """Whatever the run is called, its directory stays in its root and has a name that every tool takes."""
    assert label == directory_label(name)


def test_same_second_and_uid(tmp_path: Path) -> None:
    """Runs of the same name and second don't share a directory."""
    made = {make_run_directory(tmp_path, "same", UID).path for _ in range(5)}
    assert len(made) == 5


@posix
def test_latest(tmp_path: Path) -> None:
    """``latest`` beside them points to the one that it was pointed to last, wherever the root is moved to."""
    for name in ("first", "second"):
        made = make_run_directory(tmp_path / "runs", name, UID)
        point_latest_to(made.path)
        assert made.path.resolve() == (tmp_path / "runs" / "latest").resolve()
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").is_dir()


def test_new_root_is_kept_out_of_git(tmp_path: Path) -> None:
    """A root that we make ignores itself; one that was there before is left as it is."""
    make_run_directory(tmp_path / "new", "run", UID)
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"
    (tmp_path / "old").mkdir()
    make_run_directory(tmp_path / "old", "run", UID)
    assert not (tmp_path / "old" / ".gitignore").exists()


@posix
def test_private_under_any_umask(tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, roots made on the way included."""
    before = os.umask(0)
    try:
        made = make_run_directory(tmp_path / "deep" / "root", "run", UID)
        made.wake()
        made.say_ready()
    finally:
        os.umask(before)
    modes = {
        path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "deep").rglob("*") if not path.is_symlink()
    }
    assert {name: "0o700" if name in {"root", made.path.name} else "0o600" for name in modes} == modes


@posix
def test_file_in_the_place_of_the_root(tmp_path: Path) -> None:
    """What can't be made raises an ``OSError``."""
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "root"):
        with pytest.raises(OSError, match="file"):
            make_run_directory(root, "run", UID)


@posix
def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """Trying out what a journal needs leaves the directory empty."""
    assert list(make_run_directory(tmp_path, "run", UID).path.iterdir()) == []


def test_no_run_directory(tmp_path: Path) -> None:
    """ServerCalls a directory without a journal what run it is says so, in an error of ours."""
    with pytest.raises(RunDirectoryError, match="is not a run directory") as raised:
        RunDirectory(tmp_path).spec()
    assert isinstance(raised.value, MLOpsError)


def test_later_format_is_no_readable_run(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """A journal of a later format is not misread as some run."""
    later = structs.replace(header, format=2)
    (tmp_path / "journal-0001.jsonl").write_bytes(frame(later) + frame(spec))
    with pytest.raises(RunDirectoryError):
        RunDirectory(tmp_path).spec()


def test_newest_journal_says_what_run_it_is(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """A re-opened run may go to another server; a newest file whose start is not there yet is passed over."""
    moved = structs.replace(spec, tracking_uri="http://other")
    for content in (spec, moved):
        JournalWriter(tmp_path, header, content).close()
    (tmp_path / "journal-0003.jsonl").write_bytes(b"")
    assert moved == RunDirectory(tmp_path).spec()


def test_a_look_makes_nothing(tmp_path: Path, writer: JournalWriter) -> None:
    """To see whose a run directory is, nothing is made in it, if it is ours."""
    os.utime(tmp_path, ns=(0, 0))
    assert RunDirectory(tmp_path).spec().uid
    assert 0 == tmp_path.stat().st_mtime_ns


def test_sizes(tmp_path: Path, writer: JournalWriter) -> None:
    """Each journal file by name, as large as it is now."""
    run = RunDirectory(tmp_path)
    before = run.sizes()
    record = Metrics(1, [("loss", 0.5, 0)])
    writer.append(record)
    assert {name: size + len(frame(record)) for name, size in before.items()} == run.sizes()


def test_ending_is_the_last_word(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """A run has ended when no writer is left, and then as the one said who spoke last, in whatever file."""
    run = RunDirectory(tmp_path)
    assert run.ending() is None
    first, second = JournalWriter(tmp_path, header, spec), JournalWriter(tmp_path, header, spec)
    second.finish(End(2, "FINISHED"))
    assert run.ending() is None
    first.finish(End(3, "FAILED", "ValueError: x"))
    assert Ending("FAILED", "ValueError: x", 3) == run.ending()


def test_bystander_has_no_say(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """Who wrote beside the one that said how the run ended, and later went away without a word, changes nothing."""
    run = RunDirectory(tmp_path)
    told = JournalWriter(tmp_path, structs.replace(header, time=1), spec)
    bystander = JournalWriter(tmp_path, structs.replace(header, time=2), spec)
    told.finish(End(3, "FINISHED"))
    bystander.close()
    assert run.ending() is None
    run.note_exit(bystander.path, Exit(4))
    assert Ending("FINISHED", None, 3) == run.ending()


def test_writer_that_came_later_has_a_say(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """A run that was re-opened after its end, by a process that then died, ended as that one did."""
    run = RunDirectory(tmp_path)
    JournalWriter(tmp_path, structs.replace(header, time=1), spec).finish(End(2, "FINISHED"))
    later = JournalWriter(tmp_path, structs.replace(header, time=3), spec)
    later.close()
    run.note_exit(later.path, Exit(4, 9))
    assert Ending("KILLED", "SIGKILL", 4) == run.ending()


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096], ids=["empty", "zeros"])
def test_journal_that_never_began(tmp_path: Path, header: Header, spec: RunSpec, content: bytes) -> None:
    """A power failure may leave a file without a line: no run waits for it for ever, but for a while it does."""
    run = RunDirectory(tmp_path)
    JournalWriter(tmp_path, header, spec).finish(End(2, "FINISHED"))
    blank = tmp_path / "journal-0002.jsonl"
    blank.write_bytes(content)
    assert run.ending() is None
    os.utime(blank, (1.0, 1.0))
    assert Ending("FINISHED", None, 2) == run.ending()


def test_exit_beside_its_journal(tmp_path: Path, writer: JournalWriter) -> None:
    """What is found out about a writer's end is kept; a bare disappearance never replaces the kernel's word."""
    run = RunDirectory(tmp_path)
    assert run.exit_of(writer.path) is None
    for found, kept in [(Exit(1), Exit(1)), (Exit(2), Exit(1)), (Exit(3, 9), Exit(3, 9)), (Exit(4), Exit(3, 9))]:
        run.note_exit(writer.path, found)
        assert kept == run.exit_of(writer.path)
    assert Ending("KILLED", "SIGKILL", 3) == run.ending()


@pytest.mark.parametrize("garbage", [b"", b"{", b"null", b'{"time":"x"}', b'{"time":1,"wait_status":"\xff"}'])
def test_garbage_beside_a_journal(tmp_path: Path, writer: JournalWriter, garbage: bytes) -> None:
    """A note that can't be read is none."""
    run = RunDirectory(tmp_path)
    for content in (garbage, files.seal(garbage)):
        writer.path.with_suffix(".exit").write_bytes(content)
        (tmp_path / "side_process").write_bytes(garbage)
        assert run.exit_of(writer.path) is None
        assert run.ready_pid() is None


def test_wake_and_ready(tmp_path: Path) -> None:
    """A wish to be woken changes the wake time; the side process that came up last is known, and whether it leaves."""
    run = RunDirectory(tmp_path)
    assert (run.wake_time(), run.ready_pid()) == (0, None)
    run.wake()
    assert run.wake_time() > 0
    run.say_ready()
    assert os.getpid() == run.ready_pid()
    run.say_ready(leaving=True)
    assert -os.getpid() == run.ready_pid()


def test_runs_of_a_root(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """Run directories are found by name, uid and server run id; other directories, files and links are no runs."""
    root = tmp_path / "runs"
    runs = []
    for number in range(3):
        uid = f"{UID}{number}"
        made = make_run_directory(root, f"run {number}", uid)
        JournalWriter(made.path, structs.replace(header, uid=uid), structs.replace(spec, uid=uid)).close()
        cursor.save(cursor.cursor_path(made.path, "http://host"), Cursor("http://host", run_id=f"server {number}"))
        runs.append(made.path)
    (root / "other").mkdir()
    (root / "file").write_text("")
    assert sorted(runs) == [found.path for found in run_directories(root)]
    assert [runs[1]] == [found.path for found in run_directories(runs[1])]
    assert list(run_directories(tmp_path / "missing")) == []
    by_uid, by_run_id = find_by_uid(root, f"{UID}1"), find_by_run_id(root, "server 2")
    assert by_uid is not None
    assert by_run_id is not None
    assert [runs[1], runs[2]] == [by_uid.path, by_run_id.path]
    assert (find_by_uid(root, "mlops-x"), find_by_run_id(root, "x")) == (None, None)
