"""Makes untrusted input harmless: texts for a terminal or a log, and paths. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath


def escaped(text: str, *, keep: str = "") -> str:
    """The text with control and other non-printable characters escaped as in Python, except those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """The text on one line, without control characters, cut to ``limit`` characters."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 2 * limit])
    return " ".join(shown.split())[:limit]


def stays_within(path: str) -> bool:
    """True if the path is relative and stays below its starting directory, on every operating system."""
    inner = PurePosixPath(path)
    outward = inner.is_absolute() or not inner.parts or ".." in inner.parts or bool(PureWindowsPath(path).anchor)
    return not outward and "\\" not in path and "\0" not in path
