"""How a run ended: the table of statuses, row by row."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from mlops_integrations.journal import ending
from mlops_integrations.journal.ending import Ending, Exit, Writer
from mlops_integrations.journal.records import End, Identity

posix = pytest.mark.skipif(sys.platform == "win32", reason="wait statuses are POSIX")


def exited(code: int) -> int:
    """The wait status of an exit with this code."""
    return code << 8


def killed(number: int) -> int:
    """The wait status of a death by this signal."""
    return int(number)


class OddError(Exception):
    """An exception of a user."""

    class InnerError(Exception):
        """With a qualified name."""


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("bad loss"), "FAILED", "ValueError: bad loss"),
        (OddError.InnerError("потеря"), "FAILED", "OddError.InnerError: потеря"),
        (RuntimeError(), "FAILED", "RuntimeError"),
        (MemoryError(), "FAILED", "MemoryError"),
        (ValueError("x" * 10_000), "FAILED", "ValueError: " + "x" * 1_988),
        (KeyboardInterrupt(), "KILLED", "SIGINT"),
        (GeneratorExit(), "FAILED", "GeneratorExit"),
        (SystemExit(), "FINISHED", None),
        (SystemExit(0), "FINISHED", None),
        (SystemExit(False), "FINISHED", None),
        (SystemExit(3), "FAILED", "exit code 3"),
        (SystemExit("no data"), "FAILED", "exit code 1: no data"),
        # Names of files may hold bytes that are no text.
        (OSError("no file \udcff"), "FAILED", "OSError: no file \\udcff"),
        (SystemExit("no file \udcff"), "FAILED", "exit code 1: no file \\udcff"),
    ],
)
def test_exceptions(error: BaseException, status: str, reason: str | None) -> None:
    """What left a ``with`` block or a training gives the status, and says why."""
    assert (status, reason) == ending.of_exception(error)


class UnprintableError(Exception):
    """Foreign code may fail even at saying what failed."""

    def __str__(self) -> str:
        raise ValueError


def test_exception_that_can_not_be_printed() -> None:
    """It is named all the same."""
    status, reason = ending.of_exception(UnprintableError())
    assert status == "FAILED"
    assert reason is not None
    assert "UnprintableError" in reason
    assert ending.of_exception(SystemExit(UnprintableError())) == ("FAILED", "exit code 1")


@posix
@pytest.mark.parametrize(
    ("wait_status", "out_of_memory", "status", "reason"),
    [
        (exited(0), False, "FINISHED", None),
        (exited(1), False, "FAILED", "exit code 1"),
        (exited(3), False, "FAILED", "exit code 3"),
        (exited(137), False, "FAILED", "exit code 137"),
        (exited(1), True, "FAILED", "exit code 1"),
        *[
            (killed(getattr(signal, name)), False, "KILLED", name)
            for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGKILL")
        ],
        *[
            (killed(getattr(signal, name)), False, "FAILED", name)
            for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE")
        ],
        (killed(signal.SIGSEGV) | 0x80, False, "FAILED", "SIGSEGV"),
        (killed(signal.SIGKILL), True, "FAILED", "SIGKILL (out of memory)"),
        (killed(signal.SIGTERM), True, "KILLED", "SIGTERM"),
        (killed(50), False, "KILLED", "signal 50"),
    ],
)
def test_wait_statuses(wait_status: int, out_of_memory: bool, status: str, reason: str | None) -> None:
    """What the kernel says of an exit: signals from outside kill, those that a process brings upon itself fail."""
    assert (status, reason) == ending.of_wait_status(wait_status, out_of_memory=out_of_memory)


TOLD = End(10, "KILLED", "told", provisional=False)
FINISHED = End(10, "FINISHED", None, provisional=True)
FAILED = End(10, "FAILED", "ValueError: x", provisional=True)
INTERRUPTED = End(10, "KILLED", "SIGINT", provisional=True)
AS_FINISHED, AS_FAILED, AS_INTERRUPTED = (Ending(end.status, end.reason, 10) for end in (FINISHED, FAILED, INTERRUPTED))


@posix
@pytest.mark.parametrize(
    ("end", "gone", "expected"),
    [
        pytest.param(None, None, None, id="still running"),
        pytest.param(TOLD, None, Ending("KILLED", "told", 10), id="told"),
        pytest.param(TOLD, Exit(20, exited(0)), Ending("KILLED", "told", 10), id="told, whatever the exit code"),
        pytest.param(TOLD, Exit(20, killed(9)), Ending("KILLED", "told", 10), id="told, whatever killed it later"),
        pytest.param(TOLD, Exit(20), Ending("KILLED", "told", 10), id="told, then disappeared"),
        pytest.param(FINISHED, None, AS_FINISHED, id="exiting, nothing more known yet"),
        pytest.param(FINISHED, Exit(20), AS_FINISHED, id="exited, nothing tells how"),
        pytest.param(FINISHED, Exit(20, exited(0)), AS_FINISHED, id="exit code 0"),
        pytest.param(FINISHED, Exit(20, exited(3)), Ending("FAILED", "exit code 3", 10), id="exit code 3 after atexit"),
        pytest.param(FINISHED, Exit(20, killed(15)), Ending("KILLED", "SIGTERM", 10), id="SIGTERM during exit"),
        pytest.param(FINISHED, Exit(20, killed(11)), Ending("FAILED", "SIGSEGV", 10), id="SIGSEGV during exit"),
        pytest.param(FAILED, Exit(20, exited(1)), AS_FAILED, id="exception, says more than exit code 1"),
        pytest.param(FAILED, Exit(20, exited(0)), AS_FAILED, id="training that did not end, exit code 0"),
        pytest.param(FAILED, Exit(20), AS_FAILED, id="exception, then disappeared"),
        pytest.param(INTERRUPTED, Exit(20, killed(2)), AS_INTERRUPTED, id="Ctrl-C"),
        pytest.param(INTERRUPTED, Exit(20, exited(130)), AS_INTERRUPTED, id="Ctrl-C, exit code 130"),
        pytest.param(None, Exit(20), Ending("FAILED", "process disappeared", 20), id="disappeared"),
        pytest.param(None, Exit(20, exited(0)), Ending("FINISHED", None, 20), id="os._exit(0)"),
        pytest.param(None, Exit(20, exited(7)), Ending("FAILED", "exit code 7", 20), id="os._exit(7)"),
        pytest.param(None, Exit(20, killed(9)), Ending("KILLED", "SIGKILL", 20), id="SIGKILL"),
        pytest.param(None, Exit(20, killed(15)), Ending("KILLED", "SIGTERM", 20), id="SIGTERM"),
        pytest.param(None, Exit(20, killed(1)), Ending("KILLED", "SIGHUP", 20), id="SIGHUP"),
        pytest.param(None, Exit(20, killed(6)), Ending("FAILED", "SIGABRT", 20), id="abort"),
        pytest.param(
            None, Exit(20, killed(9), True), Ending("FAILED", "SIGKILL (out of memory)", 20), id="out of memory"
        ),
    ],
)
def test_resolve(end: End | None, gone: Exit | None, expected: Ending | None) -> None:
    """What was told counts first, then what the kernel says, then what exit wrote down, then the disappearance."""
    assert expected == ending.resolve(end, gone)


@posix
def test_wait_statuses_are_the_systems() -> None:
    """The forms used here are those that the system gives."""
    assert (os.waitstatus_to_exitcode(exited(3)), os.waitstatus_to_exitcode(killed(15))) == (3, -15)


TRAINER, NEXT, WORKER = (Identity("host", "boot", 1, pid, "1") for pid in (1, 2, 3))


def wrote(
    who: Identity, status: str | None, time: int, *, rank: int = 0, provisional: bool = False, gone: Exit | None = None
) -> Writer:
    """A writer that said so at this time, or went away without a word."""
    end = None if status is None else End(time, status, provisional=provisional)
    return Writer(who, rank, time if end is None else 0, end, gone)


TERMINATED = Exit(99, signal.SIGTERM if sys.platform != "win32" else 15)

RUNS = {
    "no writer": ([], None),
    "one that may still write": ([wrote(TRAINER, "FINISHED", 1), wrote(NEXT, None, 2)], None),
    "the last word": ([wrote(TRAINER, "FAILED", 1), wrote(NEXT, "FINISHED", 2)], "FINISHED"),
    "a bystander that died": (
        [wrote(TRAINER, "FINISHED", 5), wrote(WORKER, None, 2, gone=TERMINATED)],
        "FINISHED",
    ),
    "re-opened in the ms of its end, then killed": (
        [wrote(TRAINER, "FINISHED", 2), wrote(TRAINER, None, 2, gone=TERMINATED)],
        "KILLED",
    ),
    "requeued": ([wrote(TRAINER, "RUNNING", 1)], "RUNNING"),
    "requeued, then logged on and terminated": (
        [wrote(TRAINER, "RUNNING", 1), wrote(TRAINER, None, 2, gone=TERMINATED)],
        "RUNNING",
    ),
    "requeued, then terminated, and told": ([wrote(TRAINER, "RUNNING", 1), wrote(TRAINER, "KILLED", 2)], "RUNNING"),
    "requeued, then failed by itself": ([wrote(TRAINER, "RUNNING", 1), wrote(TRAINER, "FAILED", 2)], "FAILED"),
    "requeued, finished by the next job": ([wrote(TRAINER, "RUNNING", 1), wrote(NEXT, "FINISHED", 2)], "FINISHED"),
    "requeued, and the next job killed": ([wrote(TRAINER, "RUNNING", 1), wrote(NEXT, "KILLED", 2)], "KILLED"),
    "a higher rank finished later": ([wrote(TRAINER, "FAILED", 1), wrote(WORKER, "FINISHED", 2, rank=1)], "FAILED"),
    "a higher rank died when all was well": (
        [wrote(TRAINER, "FINISHED", 5), wrote(WORKER, None, 2, rank=1, gone=TERMINATED)],
        "FINISHED",
    ),
    "a higher rank failed, and took rank 0 with it": (
        [wrote(TRAINER, "KILLED", 5), wrote(WORKER, "FAILED", 2, rank=1)],
        "FAILED",
    ),
    "a higher rank failed, rank 0 went on": (
        [wrote(TRAINER, "FINISHED", 5), wrote(WORKER, "FAILED", 2, rank=1)],
        "FINISHED",
    ),
    "only a higher rank's": ([wrote(WORKER, "FINISHED", 2, rank=1)], "FINISHED"),
}


@posix
@pytest.mark.parametrize(
    ("end", "gone", "reason"),
    [
        (End(2, "FAILED", "ValueError: no such digit"), None, "ValueError: no such digit"),
        (End(2, "FAILED", ending.NOT_ENDED, provisional=True), None, "OSError: rank 1 is gone"),
        (End(2, "FAILED", ending.NOT_ENDED, provisional=True), Exit(3, exited(1)), "OSError: rank 1 is gone"),
    ],
    ids=["told", "not told", "told by its exit code alone"],
)
def test_why_several_failed(end: End, gone: Exit | None, reason: str) -> None:
    """As the higher rank says that began it, if it does; else as rank 0 says, which may have been told."""
    first = Writer(TRAINER, 0, 0, End(5, "FAILED", "OSError: rank 1 is gone"), None)
    ended = ending.of_run([first, Writer(WORKER, 1, 0, end, gone)])
    assert ended is not None
    assert reason == ended.reason


@posix
@pytest.mark.parametrize(("writers", "status"), RUNS.values(), ids=RUNS)
def test_runs_of_several_writers(writers: list[Writer], status: str | None) -> None:
    """What becomes of a run that several processes wrote, one after the other or side by side."""
    ended = ending.of_run(writers)
    assert status == (None if ended is None else ended.status)
