"""Tells how a run ended (status and reason), in pure functions.

Precedence: the status given to ``finish``, or the exception that left the ``with`` block or the training; then the
process's exit status from the kernel; then the provisional end that interpreter exit recorded; then the bare fact
that the process is gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Final

import msgspec

from mlops_integrations.journal.records import End, Identity

RUNNING: Final = "RUNNING"
FINISHED: Final = "FINISHED"
FAILED: Final = "FAILED"
KILLED: Final = "KILLED"
STATUSES: Final = (RUNNING, "SCHEDULED", FINISHED, FAILED, KILLED)

NOT_ENDED: Final = "the training did not end"
DISAPPEARED: Final = "process disappeared"
OUT_OF_MEMORY: Final = "SIGKILL (out of memory)"

_OWN_FAULT: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP", "SIGPIPE")
    if hasattr(signal, name)
)
"""Signals that a process causes itself; any other fatal signal came from outside."""

_UNTOLD: Final = (NOT_ENDED, "exit code ")
"""How reasons begin that do not tell the cause of a failure."""

_REASON_LENGTH: Final = 2_000


class Ending(msgspec.Struct, frozen=True):
    """A status, its reason and its time (ms since 1970)."""

    status: str
    reason: str | None
    time: int


class Exit(msgspec.Struct, frozen=True):
    """The end of a writer's process, as found after it was gone: with its wait status, if the kernel told it."""

    time: int
    wait_status: int | None = None
    out_of_memory: bool = False


def of_exception(error: BaseException) -> tuple[str, str | None]:
    """Status and reason for an exception that left a ``with`` block or a training."""
    if isinstance(error, KeyboardInterrupt):
        return KILLED, "SIGINT"
    if isinstance(error, SystemExit):
        return of_exit_argument(error.code)
    try:
        text = f"{type(error).__qualname__}: {error}".strip().removesuffix(":")
    except Exception:  # foreign code: even its error message may fail
        text = type(error).__qualname__
    return FAILED, _kept(text)


def of_exit_argument(code: object) -> tuple[str, str | None]:
    """Status and reason for the argument of ``sys.exit``."""
    if code is None or code == 0:
        return FINISHED, None
    if isinstance(code, int):
        return FAILED, f"exit code {code:d}"
    try:
        return FAILED, _kept(f"exit code 1: {code}")
    except Exception:  # foreign code, as above
        return FAILED, "exit code 1"


def _kept(text: str) -> str:
    """Cut a reason to the length kept, in well-formed Unicode: it may name a file, and file names are bytes."""
    return text[:_REASON_LENGTH].encode(errors="backslashreplace").decode()


def of_wait_status(wait_status: int, *, out_of_memory: bool = False) -> tuple[str, str | None]:
    """Status and reason for a process's wait status, as ``waitpid`` gives it."""
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return of_exit_argument(code)
    number = -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGKILL and out_of_memory:
        return FAILED, OUT_OF_MEMORY
    return FAILED if number in _OWN_FAULT else KILLED, name


class Writer(msgspec.Struct, frozen=True):
    """One journal file's writer: its rank, when the file began, its end record, and its process's end if known."""

    identity: Identity | None
    rank: int
    begin: int
    end: End | None
    gone: Exit | None


def of_run(writers: Sequence[Writer]) -> Ending | None:
    """How a run ended; None while one of its writers may still write.

    The last end of any writer wins; a writer without an end record counts by the begin of its file. Ignored:

    * a writer that vanished without an end record, if its file began before another writer's explicit end;
    * a rank above 0 that finished well or goes on (FINISHED, RUNNING).

    But unless the run finished well, the first failure that a rank above 0 recorded is its cause and so its ending; if
    the run failed itself, only a failure counts whose reason tells more than that it failed.
    """
    known = []
    for number, writer in enumerate(writers):
        ended = _of_writer(writers, number)
        if ended is None:
            return None
        known.append((writer, ended))
    if not known:
        return None
    # A run may end and be re-opened within one ms: then the later file counts as later.
    ends = ((each.end, number) for number, each in enumerate(writers))
    told = max(
        ((end.time, number) for end, number in ends if end is not None and not end.provisional), default=(-1, -1)
    )
    last: tuple[int, int] = (-2, -1)
    for number, (writer, found) in enumerate(known):
        said = writer.begin if writer.end is None else writer.end.time
        silent = writer.end is None and (said, number) <= told
        bystander = silent or (writer.rank > 0 and found.status in {FINISHED, RUNNING})
        last = max(last, (-1 if bystander else said, number))
    _, ended = known[last[1]]
    causes = [found for writer, found in known if writer.rank > 0 and found.status == FAILED and writer.end is not None]
    if ended.status == FAILED:
        causes = [cause for cause in causes if cause.reason is not None and not cause.reason.startswith(_UNTOLD)]
    return min(causes, key=lambda cause: cause.time) if causes and ended.status != FINISHED else ended


def _of_writer(writers: Sequence[Writer], number: int) -> Ending | None:
    writer = writers[number]
    found = resolve(writer.end, writer.gone)
    ends = [other.end for other in writers[:number] if other.identity == writer.identity and other.end is not None]
    before = ends[-1] if ends else None
    if found is not None and writer.end is None and before is not None and before.provisional:
        # A thread went on logging during interpreter exit, into a new file: the end before that still counts.
        return resolve(before, writer.gone)
    requeued = before is not None and before.status == RUNNING
    if found is not None and requeued and found.status == KILLED:
        # Its job went back into the queue: neither later log calls nor the kill change that.
        return Ending(RUNNING, None, found.time)
    return found


def resolve(end: End | None, gone: Exit | None) -> Ending | None:
    """Return how a writer ended, from its end record and its process's exit; None while it has not."""
    if end is not None and not end.provisional:
        return Ending(end.status, end.reason, end.time)
    if gone is None:
        return None if end is None else Ending(end.status, end.reason, end.time)
    if gone.wait_status is None:
        return Ending(FAILED, DISAPPEARED, gone.time) if end is None else Ending(end.status, end.reason, end.time)
    status, reason = of_wait_status(gone.wait_status, out_of_memory=gone.out_of_memory)
    if end is None:
        return Ending(status, reason, gone.time)
    # Interpreter exit recorded more than an exit code tells; a code above 0 only refutes a success.
    exited = os.WIFEXITED(gone.wait_status)
    says_more = end.status != FINISHED and end.reason != NOT_ENDED
    keeps = (exited and (status == FINISHED or says_more)) or status == end.status == KILLED
    return Ending(end.status, end.reason, end.time) if keeps else Ending(status, reason, end.time)
