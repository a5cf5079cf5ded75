"""Exit codes of the commands, which are one module each: they print through a ``Terminal`` and return such a code."""

from __future__ import annotations

from typing import Final

ALL_DELIVERED: Final = 0
SOME_LEFT: Final = 1
USAGE: Final = 2
NO_SERVER: Final = 3
INTERRUPTED: Final = 130


class UsageError(Exception):
    """The typed arguments make no sense here; the message says what to type instead."""
