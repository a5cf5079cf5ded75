"""Numbers, times, names and commands as a terminal shows them. Pure."""

from __future__ import annotations

import shlex
import sys
import time
import unicodedata
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from mlops_integrations.config.credential_owner import Withheld
from mlops_integrations.journal.records import RunSpec, Value

PROGRAM: Final = "mlops-integrations"
_MODULE: Final = "mlops_integrations"


def printable(text: str, length: int | None = None) -> str:
    """A foreign text on one line, without control characters, cut to a length: fit for a terminal."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if length is None or columns(shown) <= length else shown[: length - 1] + "…"


def columns(text: str) -> int:
    """Return the number of terminal columns that a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(c) for c in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def label(spec: RunSpec) -> str:
    """Return a run's label as printed when the run begins: short, and hardly ever the same for two runs."""
    return f"{spec.name}-{spec.uid[-4:]}"


def number(value: Value) -> str:
    """A metric's value in few digits."""
    return value if isinstance(value, str) else f"{value:.5g}"


def counted(count: int, noun: str) -> str:
    """``1 point``, ``2,000 points``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def by_reason(counts: dict[str, int]) -> str:
    """Counts with their reasons."""
    return "; ".join(f"{count:,} x {reason}" for reason, count in sorted(counts.items()))


def moment(milliseconds: int) -> str:
    """Format a time in ms since 1970 as local time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(milliseconds / 1000))
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms since 1970"


def iso_8601(milliseconds: int | None) -> str | None:
    """Format a time in ms since 1970 in ISO 8601, for programs; None if there is none, or it is out of range."""
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return None


def duration(seconds: float) -> str:
    """``8.2 s``, ``3:20 min``, ``1:02:03 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def withheld(found: Withheld, destination: str, command: str) -> str:
    """Return the message about credentials that a run directory's server does not get, and how it gets them.

    Args:
        found: the credentials.
        destination: the server.
        command: the shell command that sends them.
    """
    what = ", ".join(found.what)
    theirs = f"not sent to {destination}, which the run directory names. If that server is to have them: {command}"
    if found.owner is None:
        return f"the credentials of {what} are for no server, as MLFLOW_TRACKING_URI is not set, and are {theirs}"
    return f"the credentials of {what} are for {found.owner} and are {theirs}"


def shell_command(*words: str | Path) -> str:
    """Return the shell command that calls this program with these arguments."""
    by_name = Path(sys.argv[0]).name.startswith(PROGRAM) if sys.argv else False
    program = [PROGRAM] if by_name or not sys.executable else [sys.executable, "-m", _MODULE]
    return shlex.join([*program, *map(str, words)])
