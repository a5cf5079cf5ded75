"""What the command line does, one module a command. They print through a ``Terminal`` and return an exit code."""

from __future__ import annotations

from typing import Final

ALL_DELIVERED: Final = 0
SOME_LEFT: Final = 1
USAGE: Final = 2
NO_SERVER: Final = 3
INTERRUPTED: Final = 130


class UsageError(Exception):
    """What was typed makes no sense here; the message says what would."""
