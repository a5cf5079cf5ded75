"""A host program that closes all descriptors, as daemons do, and opens files of its own: these are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_mlflow import FakeMlflow
from mlops_integrations.journal import identity, reader
from mlops_integrations.journal.records import Header, Metrics, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.exit_status import ProcessDescriptor, open_process
from mlops_integrations.upload.writer_processes import WriterProcesses

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")

Python = Callable[..., "subprocess.CompletedProcess[str]"]

DAEMON = """
import os, sys
import mlops_integrations as mlops

run = mlops.start_run(experiment_name='hosts', run_name='daemon', uploader=sys.argv[1])
run.log_metrics({'loss': 0.0}, step=0)
assert run.flush(30)
os.closerange(3, 4096)
# So many that each low number is one of them, in which there always is something to read.
mine = [open(f'mine-{number}', 'w+b', buffering=0) for number in range(40)]
for file in mine:
    file.write(b'before ')
    file.seek(0)
for step in range(1, 6):
    run.log_metrics({'loss': float(step)}, step=step)
print(run.flush(30))
print(run.finish(timeout=30))
for file in mine:
    assert file.tell() == 0
    file.seek(0, 2)
    file.write(b'after')
print({open(file.name, 'rb').read() for file in mine})
"""


@pytest.fixture
def server() -> Iterator[FakeMlflow]:
    """A server that keeps what it is sent."""
    with FakeMlflow() as fake:
        yield fake


@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_all_is_closed_in_the_middle_of_a_run(python: Python, server: FakeMlflow, uploader: str) -> None:
    """The program's files have what it wrote, and are open; every point is on the server, and the run is FINISHED."""
    done = python(DAEMON, uploader, MLFLOW_TRACKING_URI=server.uri)
    assert ("True\nTrue\n{b'before after'}\n", 0) == (done.stdout, done.returncode), done.stderr
    run = server.run("daemon")
    assert [float(step) for step in range(6)] == sorted(value for _, value, _, _ in run.metrics)
    assert "FINISHED" == run.status


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Gives a number to a file of the program's; in the end that file is open, and nobody has read in it."""
    path = tmp_path / "theirs"
    path.write_bytes(b"theirs")
    given: list[int] = []

    def give(number: int) -> None:
        fd = os.open(path, os.O_RDONLY)
        os.dup2(fd, number)
        os.close(fd)
        given.append(number)

    yield give
    for number in given:
        assert os.read(number, 10) == b"theirs"
        os.close(number)


def test_a_reader_whose_number_is_another_files(writer: JournalWriter, theirs: Callable[[int], None]) -> None:
    """It goes on in the journal, where it was, and does not close the other."""
    journal = reader.JournalReader(writer.path)
    assert 2 == len(list(journal))
    theirs(journal._fd)
    writer.append(Metrics(1, [("loss", 0.5, 1)]))
    assert [Metrics(1, [("loss", 0.5, 1)])] == list(journal)
    theirs(journal._fd)
    journal.close()


def test_a_reader_whose_journal_is_another_by_now(writer: JournalWriter, theirs: Callable[[int], None]) -> None:
    """Nothing is read that could be taken for the journal's next record."""
    journal = reader.JournalReader(writer.path)
    theirs(journal._fd)
    writer.path.rename(writer.path.with_name("old"))
    writer.path.write_bytes(b"another\n")
    with pytest.raises(OSError, match=r"journal-0001\.jsonl"):
        journal.next()
    journal.close()


def test_a_writer_whose_number_is_a_readers(writer: JournalWriter) -> None:
    """A reader of the same journal, re-opened first, may have got the number: it can't be written through."""
    reading = os.open(writer.path, os.O_RDONLY)
    number = writer._fd
    os.dup2(reading, number)
    os.close(reading)

    assert writer.append(Metrics(1, [("loss", 0.5, 1)]))

    assert os.read(number, 9)  # it is still the reader's
    writer.close()
    os.close(number)


def test_a_reader_whose_number_is_a_writers(writer: JournalWriter) -> None:
    """And the other way round."""
    journal = reader.JournalReader(writer.path)
    number = journal._fd
    os.dup2(writer._fd, number)

    assert 2 == len(list(journal))

    journal.close()
    os.close(number)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
def test_a_writer_whose_descriptor_is_another_file(
    tmp_path: Path, header: Header, spec: RunSpec, theirs: Callable[[int], None]
) -> None:
    """A file always has something to read, as a process that has ended: nobody is taken for dead by that."""
    journal = JournalWriter(tmp_path, header, spec)
    writers = WriterProcesses(RunDirectory(tmp_path))
    writers.poll()
    (process,) = writers._by_writer.values()
    assert process._pidfd is not None
    number = process._pidfd.number
    assert number is not None
    theirs(number)
    writers.poll()
    assert not process.gone
    assert not writers.nobody_to_wait_for_now
    writers.close()
    journal.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
def test_a_process_descriptor_that_was_closed() -> None:
    """It has no number any more."""
    fd = open_process(identity.me().pid)
    assert fd is not None
    held = ProcessDescriptor(fd)
    number = held.number
    assert number is not None
    os.close(number)
    assert held.number is None
    held.close()
