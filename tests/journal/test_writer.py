"""What a returned append promises, and what a failed one leaves behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_integrations import descriptors
from mlops_integrations.journal import writer as writing
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import End, Header, Metrics, Params, Record, RunSpec, Tags
from mlops_integrations.journal.writer import JournalWriter, file_name

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")

Read = Callable[[Path], list[Record]]


@pytest.fixture(autouse=True, params=[0, 1], ids=["alone", "beside a thread"])
def others(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many other threads there are: the way of writing depends on it."""
    count: int = request.param
    monkeypatch.setattr(writing, "other_threads", lambda: count)
    return count


def metrics(number: int) -> Metrics:
    """A record that can be told from others."""
    return Metrics(number, [("loss", float(number), number)])


def test_appended_records_are_on_disk_at_once(writer: JournalWriter, header: Header, spec: RunSpec, read: Read) -> None:
    """Another reader sees a record as soon as its append has returned."""
    for number in range(3):
        assert writer.append(metrics(number))
        assert [header, spec, *map(metrics, range(number + 1))] == read(writer.path)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count system calls")
def test_one_append_is_one_write(writer: JournalWriter) -> None:
    """However many keys a record has, it goes to the operating system as one unbuffered write."""
    before = writer.path.stat().st_size, *written()
    assert writer.append(Metrics(1, [(f"key {number}", 1.0, number) for number in range(1_000)]))
    after = writer.path.stat().st_size, *written()
    size, total, calls = (now - then for now, then in zip(after, before, strict=True))
    assert size > 10_000
    assert (size, 1) == (total, calls)


def written() -> tuple[int, int]:
    """How many bytes this process has written so far, in how many calls."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"]), int(counts["syscw"])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_interpreter_lock_is_kept_beside_other_threads(
    writer: JournalWriter, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``os.write``, which gives the lock away, is called only where there is no other thread to take it."""
    calls: list[int] = []
    write = os.write

    def counting(fd: int, data: bytes) -> int:
        calls.append(fd)
        return write(fd, data)

    monkeypatch.setattr(os, "write", counting)
    assert writer.append(metrics(1))
    assert 1 - others == len(calls)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_the_lock_is_given_away_where_a_write_may_take_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system one thread waits, not all of them."""
    assert writing.lock_keeping_write(tmp_path) is not None
    monkeypatch.setattr(writing, "network_file_system", lambda _: "nfs4")
    assert writing.lock_keeping_write(tmp_path) is None


def test_each_writer_has_a_file_of_its_own(tmp_path: Path, header: Header, spec: RunSpec, read: Read) -> None:
    """WriterProcesses in one directory never share a file, and the order of names is the order of opening."""
    writers = [JournalWriter(tmp_path, header, spec) for _ in range(3)]
    for number, journal in enumerate(writers):
        assert journal.append(metrics(number))
        journal.close()
    assert [file_name(1), file_name(2), file_name(3)] == [journal.path.name for journal in writers]
    assert [[header, spec, metrics(number)] for number in range(3)] == [read(journal.path) for journal in writers]


def test_writers_opened_at_the_same_time(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """Creation is exclusive: threads that open at once get as many files."""
    barrier = threading.Barrier(8)
    paths: list[Path] = []

    def open_one() -> None:
        barrier.wait(10)
        journal = JournalWriter(tmp_path, header, spec)
        paths.append(journal.path)
        journal.close()

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(set(paths)) == 8


@posix
def test_file_is_private_under_any_umask(tmp_path: Path, header: Header, spec: RunSpec) -> None:
    """Nobody else may read the journal, even where the umask would let them."""
    before = os.umask(0)
    try:
        journal = JournalWriter(tmp_path, header, spec)
    finally:
        os.umask(before)
    journal.close()
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_threads_append_whole_records(writer: JournalWriter, read: Read) -> None:
    """Appends of several threads are all there, none torn, each thread's in its order."""
    barrier = threading.Barrier(4)

    def append(thread: int) -> None:
        barrier.wait(10)
        for number in range(300):
            assert writer.append(Metrics(thread, [("loss", 0.5, number)]))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = [record for record in read(writer.path) if isinstance(record, Metrics)]
    steps = {thread: [record.values[0][2] for record in found if record.time == thread] for thread in range(4)}
    assert {thread: list(range(300)) for thread in range(4)} == steps


def test_end_is_the_last_record(writer: JournalWriter, read: Read) -> None:
    """Threads that append while another finishes get their record kept before the end, or are told that it is not."""
    kept: list[int] = []
    go = threading.Event()

    def append() -> None:
        go.wait(10)
        number = 0
        while writer.append(metrics(number)):
            kept.append(number)
            number += 1

    threads = [threading.Thread(target=append) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    end = End(1, "FINISHED")
    assert writer.finish(end)
    for thread in threads:
        thread.join(10)
    found = read(writer.path)[2:]
    assert end == found[-1]
    assert sorted(kept) == sorted(record.time for record in found[:-1] if isinstance(record, Metrics))
    assert len(kept) == len(found) - 1


def test_closed_writer_never_writes_into_a_number_used_again(writer: JournalWriter, tmp_path: Path) -> None:
    """The number of a closed file may soon belong to a file of the user: nothing of ours goes there."""
    writer.close()
    others = [(tmp_path / f"user-{number}").open("wb") for number in range(5)]
    assert not writer.append(metrics(1))
    assert not writer.finish(End(1, "FINISHED"))
    for other in others:
        other.close()
    assert [(tmp_path / f"user-{number}").stat().st_size for number in range(5)] == [0] * 5
    assert writer.closed


@posix
def test_signal_handler_that_logs(
    writer: JournalWriter, read: Read, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler may append in the middle of an append of the same thread: no deadlock, both records whole."""

    def interrupted() -> int:
        monkeypatch.setattr(writing, "other_threads", lambda: others)
        signal.raise_signal(signal.SIGUSR1)
        return others

    before = signal.signal(signal.SIGUSR1, lambda *_: writer.append(metrics(2)))
    try:
        monkeypatch.setattr(writing, "other_threads", interrupted)
        assert writer.append(metrics(1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [metrics(2), metrics(1)] == read(writer.path)[2:]


def test_text_that_is_no_unicode_leaves_the_file_alone(writer: JournalWriter) -> None:
    """Half of a surrogate pair raises before a byte is written."""
    before = writer.path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        writer.append(Tags(1, {"a": "\udc00"}))
    assert before == writer.path.read_bytes()


def test_deleted_file_is_noticed(writer: JournalWriter) -> None:
    """A file without a name keeps nothing for anybody."""
    assert writer.exists()
    writer.path.unlink()
    assert not writer.exists()


FULL_DISK = """
import resource, sys, threading
from pathlib import Path
from mlops_integrations.journal import identity
from mlops_integrations.journal.records import FORMAT, Header, Params, RunSpec
from mlops_integrations.journal.writer import JournalWriter

directory = Path(sys.argv[1])
if int(sys.argv[2]):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
uid = "mlops-1"
writer = JournalWriter(directory, Header(FORMAT, uid, identity.me(), 1, "0"), RunSpec(uid, "full", 1))
limit = writer.path.stat().st_size + 500
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
print(writer.append(Params(1, {"fits": "x" * 100})))
print(writer.append(Params(2, {"torn": "x" * 1000})))
print(writer.append(Params(3, {"failed": "x"})), type(writer.error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(writer.append(Params(4, {"space": "again"})))
print(writer.append(Params(5, {"and": "more"})))
"""


@posix
def test_full_disk(tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]], others: int) -> None:
    """A short write and a failed one are told; the next record that is kept begins on a line of its own."""
    done = python(FULL_DISK, str(tmp_path), str(others))
    assert (done.stderr, done.stdout.splitlines()) == ("", ["True", "False", "False OSError", "True", "True"])
    reader = JournalReader(tmp_path / file_name(1))
    kept = [record.values for record in reader if isinstance(record, Params)]
    reader.close()
    assert kept == [{"fits": "x" * 100}, {"space": "again"}, {"and": "more"}]
    assert reader.bad_lines == 1


def test_failed_write_is_told(writer: JournalWriter, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space left: the record counts as not kept, ``error`` says why, and a later one is kept."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        disk.setattr(writer, "_lock_keeping_write", lambda *_: -1)
        assert not writer.append(metrics(1))
    assert writer.error is not None
    assert writer.error.strerror == "No space left on device"
    assert writer.append(metrics(2))
    assert [metrics(2)] == read(writer.path)[2:]


@pytest.fixture
def theirs(writer: JournalWriter, tmp_path: Path) -> Iterator[Path]:
    """A file of the host program's, which has closed all it found, and was given the number that was ours."""
    path = tmp_path / "theirs"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    number = writer._fd
    os.dup2(fd, number)
    os.close(fd)
    os.write(number, b"before ")
    yield path
    os.write(number, b"after")  # it is open still
    os.close(number)
    assert path.read_bytes() == b"before after"


@posix
def test_a_number_that_is_another_files(writer: JournalWriter, read: Read, theirs: Path) -> None:
    """That file is left alone, and stays open; the records go into ours, opened again by its name."""
    assert writer.append(metrics(1))
    assert writer.append(metrics(2))
    assert writer.exists()
    assert writer.finish(End(3, "FINISHED"))
    assert [metrics(1), metrics(2), End(3, "FINISHED")] == read(writer.path)[2:]
    assert theirs.read_bytes() == b"before "


@posix
@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("end", [lambda writer: writer.close(), lambda writer: writer.finish(End(1, "FINISHED"))])
def test_a_number_that_is_another_files_at_the_end(writer: JournalWriter, end: Callable[[JournalWriter], None]) -> None:
    """A forked child closes its copy, and whoever has logged nothing since ends the run: what is theirs stays open."""
    end(writer)
    assert writer.closed


@posix
@pytest.mark.usefixtures("theirs")
def test_a_number_that_is_another_files_and_ours_is_gone(writer: JournalWriter, tmp_path: Path) -> None:
    """Nothing is made anew: the record counts as not kept."""
    writer.path.rename(tmp_path / "elsewhere")
    assert not writer.append(metrics(1))
    assert writer.error is not None
    assert writer.error.errno == errno.ENOENT
    assert not writer.exists()
    writer.path.write_bytes(b"another")
    assert not writer.append(metrics(1))
    assert writer.path.read_bytes() == b"another"


@posix
def test_a_number_that_is_nobodys(writer: JournalWriter, read: Read) -> None:
    """All was closed, and nothing opened since."""
    os.close(writer._fd)
    assert writer.exists()
    assert writer.append(metrics(1))
    assert [metrics(1)] == read(writer.path)[2:]


@posix
def test_our_number_is_out_of_the_way(writer: JournalWriter) -> None:
    """Files that a program opens after it has closed all do not get it."""
    assert writer._fd >= 256


@posix
def test_a_descriptor_that_stands_elsewhere(writer: JournalWriter, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a signal handler that has logged in between: it is asked once whose it is, and is ours."""
    asked: list[int] = []
    is_of = descriptors.is_of

    def asking(fd: int, identity: descriptors.FileIdentity) -> bool:
        asked.append(fd)
        return is_of(fd, identity)

    monkeypatch.setattr(descriptors, "is_of", asking)
    os.lseek(writer._fd, 0, os.SEEK_SET)
    assert writer.append(metrics(1))
    assert writer.append(metrics(2))
    assert [writer._fd] == asked
    assert [metrics(1), metrics(2)] == read(writer.path)[2:]


CREATION = """
import resource, sys
from pathlib import Path
from mlops_integrations.journal import identity
from mlops_integrations.journal.records import FORMAT, Header, RunSpec
from mlops_integrations.journal.writer import JournalWriter

resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
try:
    JournalWriter(Path(sys.argv[1]), Header(FORMAT, "u", identity.me(), 1, "0"), RunSpec("u", "n", 1))
except OSError:
    print(list(Path(sys.argv[1]).glob("journal-*")))
"""


@posix
def test_file_whose_first_lines_do_not_fit(
    tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Without its first lines a journal is of no use: the error is raised, and no file is left."""
    assert python(CREATION, str(tmp_path)).stdout == "[]\n"


def test_first_lines_that_are_no_unicode(tmp_path: Path, header: Header) -> None:
    """Text that can't be written raises before there is a file."""
    with pytest.raises(UnicodeEncodeError):
        JournalWriter(tmp_path, header, RunSpec("u", "\ud800", 1))
    assert list(tmp_path.glob("journal-*")) == []
