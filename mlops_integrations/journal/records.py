"""The record types of the journal, and how a line is framed.

A line is eight hexadecimal digits of CRC-32, a space, a JSON object, a newline: ``cut -c10- FILE | jq .`` reads it.
The object's ``type`` names the record. A format once released stays readable for ever (``tests/data``);
a record of a type that this version does not know is skipped and counted.
"""

from __future__ import annotations

from typing import Final, NoReturn, TypeAlias
from zlib import crc32

import msgspec

FORMAT: Final = 1

LONGEST_LINE_BYTES: Final = 64 * 1024 * 1024
"""No record is longer: a longer line means damaged storage, and need not be held in memory."""

UID_PREFIX: Final = "mlops-"
"""Prefix of our own run ids, so that they are not mistaken for a server's."""

Value: TypeAlias = float | str
"""A metric's value: a finite float, or one of the three words for values that JSON has no number for."""

NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")


def spell(value: float) -> Value:
    """The float itself, or the word for NaN or an infinity."""
    if value - value == 0.0:
        return value
    if value != value:
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


class Identity(msgspec.Struct, frozen=True):
    """Identity of a process, distinct from every other on this machine, after a reboot and in other containers."""

    host: str
    boot_id: str | None
    pid_namespace: int | None
    pid: int
    start_time: str | None
    """When the process started, in the operating system's own format (Linux: clock ticks since boot)."""


class Header(msgspec.Struct, frozen=True, tag="header"):
    """First line of every journal file: the format and the file's only writer."""

    format: int
    uid: str
    writer: Identity
    time: int
    version: str


class RunSpec(msgspec.Struct, frozen=True, tag="run"):
    """Second line of every journal file: the run and its destination. Holds no secret."""

    uid: str
    name: str
    start_time: int
    tracking_uri: str | None = None
    experiment_name: str | None = None
    experiment_id: str | None = None
    resume_run_id: str | None = None
    """The server's id of a run to resume, instead of creating one."""
    parent: str | None = None
    """The parent's uid, or its id on the server."""
    parent_directory: str | None = None
    user: str | None = None
    source_name: str | None = None
    source_type: str = "LOCAL"
    rank: int = 0
    """This process's number among those that record into one run. Number 0 creates and finishes the run."""


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """One ``log_metric(s)`` call: its time in ms since 1970, and ``(key, value, step)`` for each key."""

    time: int
    values: list[tuple[str, Value, int]]


class Points(msgspec.Struct, frozen=True, tag="points"):
    """``Metrics`` whose values are all finite and of one step, as in nearly every call: the fastest to write.

    Readers never get it: :func:`parse` returns it as ``Metrics``.
    """

    time: int
    step: int
    values: dict[str, float]


class Params(msgspec.Struct, frozen=True, tag="params"):
    """One ``log_param(s)`` call."""

    time: int
    values: dict[str, str]


class Tags(msgspec.Struct, frozen=True, tag="tags"):
    """One ``set_tag(s)`` call."""

    time: int
    values: dict[str, str]


class Artifact(msgspec.Struct, frozen=True, tag="artifact"):
    """One file copied into the run directory: its path there, and its path among the artifacts."""

    time: int
    file: str
    path: str
    size: int


class Losses(msgspec.Struct, frozen=True, tag="losses"):
    """Data that this writer could not keep so far, counted by reason. The last one in a file has the totals."""

    time: int
    counts: dict[str, int]


class End(msgspec.Struct, frozen=True, tag="end"):
    """How the run ended, as the writer saw it. The last record of its file.

    ``provisional`` marks an end written by interpreter exit, without the exit code: the kernel's may correct it.
    """

    time: int
    status: str
    reason: str | None = None
    provisional: bool = False
    points: int = 0


Record: TypeAlias = Header | RunSpec | Metrics | Params | Tags | Artifact | Losses | End

encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Record | Points).decode


def not_handled(record: NoReturn) -> NoReturn:
    """The last case of a reader that must handle every record type: the type check fails if one was forgotten."""
    raise AssertionError(f"a reader that does not know {type(record).__name__}")


class BadLineError(ValueError):
    """A line that is not a whole record of this format."""


def frame(record: Record | Points) -> bytes:
    """Return the journal line of ``record``.

    Raises:
        UnicodeEncodeError: some text holds half of a surrogate pair.
    """
    body = encode(record)
    return b"%08x %b\n" % (crc32(body), body)


def parse(line: bytes) -> Record:
    """Return the record of a line (without its newline).

    Raises:
        BadLineError: the line is damaged, or of a type unknown here.
    """
    body = line[9:]
    try:
        if int(line[:8], 16) != crc32(body) or line[8:9] != b" ":
            raise BadLineError("checksum does not match")
        record: Record | Points = _decode(body)
    except (ValueError, RecursionError) as error:
        raise BadLineError(str(error)) from None
    if isinstance(record, Points):
        step = record.step
        return Metrics(record.time, [(key, value, step) for key, value in record.values.items()])
    return record
