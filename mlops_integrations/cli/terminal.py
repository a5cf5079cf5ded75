"""The output of the commands: results on stdout, progress and complaints on stderr.

No foreign text reaches a terminal with control characters, since every line is cleaned here. A closed pipe ends the
output, not the work. Characters that the locale can't show are escaped.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import os
import shutil
from collections.abc import Sequence
from typing import Final, TextIO

from mlops_integrations.cli.formatting import columns, printable

_NAME_COLUMNS: Final = 20
_COLORS: Final = {"FINISHED": "green", "RUNNING": "cyan", "RUNNING?": "yellow", "FAILED": "red", "KILLED": "red"}


class Terminal:
    """Two streams, either of which may be closed, a pipe, a file, or a terminal."""

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self._out = out
        self._err = err
        self.failed = False
        """True if some output could not be written, for another reason than a closed pipe."""
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self.shows_blocks = _can_show("█▁─│…", out)
        self.is_pretty = self.shows_blocks and _is_tty(out)
        self.rewrites = _is_tty(err)
        """True if progress is one line that is rewritten each time."""
        self._progress_is_shown = False

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return shutil.get_terminal_size().columns

    def line(self, text: str = "") -> None:
        """Print one line of the result."""
        self._clear_progress()
        self._out = self._write(self._out, printable(text) + "\n")

    def note(self, text: str) -> None:
        """Print one line beside the result: a complaint, a hint."""
        self._clear_progress()
        self._err = self._write(self._err, printable(text) + "\n")

    def progress(self, text: str) -> None:
        """Print the progress of the work; on a terminal it replaces the last such line."""
        if self.rewrites:
            shown = printable(text, max(20, self.width - 1))
            self._err = self._write(self._err, f"\r\x1b[K{shown}")
            self._progress_is_shown = True
        else:
            self._err = self._write(self._err, printable(text) + "\n")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under a header, as a pretty table if ``rich`` is installed and stdout is a terminal."""
        cells = [[printable(cell) for cell in row] for row in rows]
        self._clear_progress()
        if self.is_pretty and importlib.util.find_spec("rich") is not None:
            self._out = self._write(self._out, _rich_table(header, cells, self.width))
        else:
            for line in _plain_table(header, cells):
                self.line(line)

    def close(self) -> None:
        """Clear the progress line and flush both streams."""
        self._clear_progress()
        self._out = self._write(self._out, "")
        self._err = self._write(self._err, "")

    def _clear_progress(self) -> None:
        if self._progress_is_shown:
            self._progress_is_shown = False
            self._err = self._write(self._err, "\r\x1b[K")

    def _write(self, stream: TextIO | None, text: str) -> TextIO | None:
        """Write and flush; return the stream, or None if it can't be written any more."""
        if stream is None:
            return None
        try:
            stream.write(text)
            stream.flush()
        except (OSError, ValueError) as error:
            self.failed |= getattr(error, "errno", None) != errno.EPIPE
            _silence(stream)
            return None
        return stream


def _silence(stream: TextIO) -> None:
    # Text that is left in the stream's buffer must not raise again when the interpreter flushes it at exit.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_tty(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _can_show(text: str, stream: TextIO | None) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, *rows]
    widths = [max(columns(line[i]) for line in lines) for i in range(len(header))]
    return [
        "  ".join(cell + " " * (widths[i] - columns(cell)) for i, cell in enumerate(line)).rstrip() for line in lines
    ]


def _rich_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    name_width = min(_NAME_COLUMNS, max(columns(line[0]) for line in (header, *rows)))
    for name in header:
        table.add_column(Text(name), overflow="fold", min_width=name_width if name is header[0] else None)
    for row in rows:
        table.add_row(*(Text(cell, style=_COLORS.get(cell.partition(" ")[0], "")) for cell in row))
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with console.capture() as captured:
        console.print(table)
    text: str = captured.get()
    return text
