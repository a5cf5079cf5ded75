"""The processes that write in a run directory: who is gone, how each ended, what that makes of the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from mlops_integrations.journal import identity
from mlops_integrations.journal.ending import Ending
from mlops_integrations.journal.records import End, Header, Identity, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.writer_processes import WriterProcesses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is killed, or exits with 3 when its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; sys.stdin.read(); sys.exit(3)"], stdin=subprocess.PIPE
    )
    yield process
    process.kill()
    process.communicate()


def identity_of(pid: int) -> Identity:
    """Of a neighbour."""
    fields = identity.stat_fields(pid)
    assert fields is not None
    return structs.replace(identity.me(), pid=pid, start_time=fields[identity.START_TIME_FIELD])


def journal_of(run: RunDirectory, writer: Identity, end: End | None = None, *, last_sign: float | None = None) -> Path:
    """A journal file as that process would have written it."""
    journal = JournalWriter(run.path, Header(1, "mlops-1", writer, 1, "0"), RunSpec("mlops-1", "run", 1))
    if end is None:
        journal.close()
    else:
        journal.finish(end)
    if last_sign is not None:
        os.utime(journal.path, (last_sign, last_sign))
    return journal.path


def wait_until_ended(process: subprocess.Popen[bytes]) -> None:
    """Without waiting for it as its parent does: it stays a zombie."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_writer_that_lives(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """Nothing has ended."""
    journal_of(run, identity_of(child.pid))
    writers = WriterProcesses(run)
    writers.poll()
    assert (writers.ending(), writers.final, writers.all_gone, writers.unknown) == (None, False, False, [])
    writers.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_writer_that_is_killed(run: RunDirectory, child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Seen alive, then dead: the run was killed by that signal, now."""
    journal_of(run, identity_of(child.pid))
    writers = WriterProcesses(run)
    writers.poll()
    child.send_signal(number)
    wait_until_ended(child)
    writers.poll()
    ended = writers.ending()
    assert ended is not None
    assert ("KILLED", number.name) == (ended.status, ended.reason)
    assert (writers.final, writers.all_gone) == (True, True)


def test_exit_code_corrects_what_was_provisional(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """Exit wrote FINISHED, the code says 3: the run failed. Until that is known it counts as finished, not for good."""
    journal_of(run, identity_of(child.pid), End(5, "FINISHED", provisional=True))
    writers = WriterProcesses(run)
    writers.poll()
    assert Ending("FINISHED", None, 5) == writers.ending()
    assert not writers.final
    assert child.stdin is not None
    child.stdin.close()
    wait_until_ended(child)
    writers.poll()
    assert Ending("FAILED", "exit code 3", 5) == writers.ending()
    assert writers.final


def test_explicit_end_is_final_at_once(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """What ``finish`` was told needs nobody's death."""
    journal_of(run, identity_of(child.pid), End(5, "KILLED", "told"))
    writers = WriterProcesses(run)
    writers.poll()
    assert Ending("KILLED", "told", 5) == writers.ending()
    assert (writers.final, writers.all_gone) == (True, False)
    writers.close()


def test_writer_that_was_gone_before(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """Nobody saw how: it disappeared, at its last sign of life."""
    its = identity_of(child.pid)
    child.kill()
    child.communicate()
    journal_of(run, its, last_sign=1_700_000_000.0)
    writers = WriterProcesses(run)
    writers.poll()
    assert Ending("FAILED", "process disappeared", 1_700_000_000_000) == writers.ending()
    assert writers.final


def test_what_was_found_out_stays(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """Whoever looks later, when the process is long gone, knows it as well."""
    journal_of(run, identity_of(child.pid))
    first = WriterProcesses(run)
    first.poll()
    child.terminate()
    wait_until_ended(child)
    first.poll()
    child.communicate()
    later = WriterProcesses(run)
    later.poll()
    assert first.ending() == later.ending()
    assert (later.ending() or Ending("", None, 0)).reason == "SIGTERM"


@pytest.mark.parametrize("elsewhere", [{"host": "other", "boot_id": "other"}, {"pid_namespace": 1}])
def test_writer_elsewhere(run: RunDirectory, elsewhere: dict[str, Any]) -> None:
    """It can't be judged: nothing is closed, however long it is silent, unless a person says so."""
    its = structs.replace(identity.me(), **elsewhere)
    journal_of(run, its, last_sign=1_700_000_000.0)
    writers = WriterProcesses(run)
    writers.poll()
    assert (None, False, [its]) == (writers.ending(), writers.all_gone, writers.unknown)
    by_person = WriterProcesses(run, presume_dead=True)
    by_person.poll()
    assert Ending("FAILED", "process disappeared", 1_700_000_000_000) == by_person.ending()
    assert (by_person.final, by_person.all_gone, by_person.unknown) == (True, True, [])


def test_presuming_does_not_touch_the_living(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """A neighbour that lives is not closed by ``--close`` either."""
    journal_of(run, identity_of(child.pid))
    writers = WriterProcesses(run, presume_dead=True)
    writers.poll()
    assert writers.ending() is None
    writers.close()


def test_last_writer_decides(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """A run with several journals has ended when all have."""
    journal_of(run, identity_of(child.pid))
    journal_of(run, identity.me(), End(5, "FINISHED"))
    writers = WriterProcesses(run)
    writers.poll()
    assert writers.ending() is None
    child.kill()
    wait_until_ended(child)
    writers.poll()
    assert Ending("FINISHED", None, 5) == writers.ending()
    writers.close()


def test_file_whose_start_is_not_there_yet(run: RunDirectory) -> None:
    """A journal that is just being made has no writer to judge."""
    (run.path / "journal-0001.jsonl").write_bytes(b"")
    writers = WriterProcesses(run)
    writers.poll()
    assert (writers.ending(), writers.all_gone) == (None, False)


def test_descriptors_are_let_go_of(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """However many writers were watched, no descriptor stays open."""
    for _ in range(5):
        journal_of(run, identity_of(child.pid))
    for _ in range(3):
        writers = WriterProcesses(run)
        writers.poll()
        writers.close()
    open_files = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
    assert [] == [name for name in open_files if "pidfd" in name]


def test_all_gone_but_for_the_unknowable(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """A writer elsewhere, of which nothing will ever be known, keeps nobody waiting for the last one here."""
    journal_of(run, structs.replace(identity.me(), host="other", boot_id="other"))
    journal_of(run, identity_of(child.pid))
    writers = WriterProcesses(run)
    writers.poll()
    assert not writers.all_gone
    child.kill()
    wait_until_ended(child)
    writers.poll()
    assert writers.all_gone


def test_one_descriptor_for_a_process_with_many_files(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """A run that is re-opened again and again does not use up the descriptors of who watches it."""
    for _ in range(20):
        journal_of(run, identity_of(child.pid))
    writers = WriterProcesses(run)
    writers.poll()
    open_files = [os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()]
    assert len([name for name in open_files if "pidfd" in name]) <= 1
    writers.close()


def test_file_found_after_its_writers_end(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """What is known of a writer's end holds for a file of its that is seen only afterwards."""
    its = identity_of(child.pid)
    first = journal_of(run, its)
    writers = WriterProcesses(run)
    writers.poll()
    child.kill()
    wait_until_ended(child)
    writers.poll()
    child.communicate()
    second = journal_of(run, its)
    writers.poll()
    assert run.exit_of(first) == run.exit_of(second)
    assert (writers.ending() or Ending("", None, 0)).reason == "SIGKILL"


def test_ended_for_good(run: RunDirectory, child: subprocess.Popen[bytes]) -> None:
    """A run that was told to end has ended although its process goes on; one that may still change has not."""
    writers = WriterProcesses(run)
    writers.poll()
    assert not writers.ended
    journal_of(run, identity_of(child.pid), End(5, "FINISHED"))
    writers.poll()
    assert (writers.ended, writers.all_gone) == (True, False)
    journal_of(run, identity_of(child.pid))
    writers.poll()
    assert not writers.ended
    writers.close()
