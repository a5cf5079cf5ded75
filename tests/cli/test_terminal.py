"""What reaches a terminal: clean lines, tables, progress."""

from __future__ import annotations

import io

import pytest

from mlops_integrations.cli import formatting
from mlops_integrations.cli.progress import Progress
from mlops_integrations.cli.terminal import Terminal


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FullDisk(io.StringIO):
    """A stream that can't be written."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_line_is_one_line() -> None:
    """Whatever a text holds, it neither breaks the line nor commands the terminal."""
    out = io.StringIO()
    Terminal(out, None).line("a\x1b[2Jb\nc\x9bd\u202ee")
    assert "a [2Jb c d e\n" == out.getvalue()


def test_table_columns_are_aligned() -> None:
    """Columns begin below each other, wide characters counted as such."""
    out = io.StringIO()
    Terminal(out, None).table(("A", "B"), [("漢字", "1"), ("abc", "2"), ("é", "3")])
    assert ["A     B", "漢字  1", "abc   2", "é     3"] == out.getvalue().splitlines()


def test_output_that_fails_is_remembered() -> None:
    """Output that could not be written does not stop the work, but is not hidden from the exit code."""
    terminal = Terminal(FullDisk(), None)
    terminal.line("a")
    terminal.line("b")
    assert terminal.failed


def test_closed_streams() -> None:
    """With no streams at all nothing fails."""
    terminal = Terminal(None, None)
    terminal.line("a")
    terminal.note("b")
    terminal.progress("c")
    terminal.close()
    assert not terminal.failed


def test_progress_in_a_file() -> None:
    """Where nothing can be rewritten, there is a line every few seconds: points, total, rate, time left."""
    err, clock = io.StringIO(), Clock()
    progress = Progress(Terminal(None, err), 2_000, 1, clock)
    progress.begin("baseline-3f2a")
    for now, points in ((1.0, 100), (4.9, 490), (5.0, 500), (6.0, 600), (10.0, 1_000)):
        clock.now = now
        progress.at(points)
    assert [
        "baseline-3f2a: 500 of 2,000 points, 100 points/s, 15 s left",
        "baseline-3f2a: 1,000 of 2,000 points, 100 points/s, 10 s left",
    ] == err.getvalue().splitlines()
    assert ". 1,000 points in 10 s (100 points/s)" == progress.summary()


def test_progress_on_a_terminal() -> None:
    """One line is written anew, and is gone before anything else is said."""
    err, clock = Screen(), Clock()
    terminal = Terminal(None, err)
    progress = Progress(terminal, 10, 2, clock)
    progress.begin("first")
    clock.now = 1.0
    progress.at(5)
    terminal.note("done")
    assert [
        "",
        "run 1 of 2, first; of all 0 of 10 points",
        "run 1 of 2, first; of all 5 of 10 points, 5 points/s, 1.0 s left",
        "done\n",
    ] == err.getvalue().split("\r\x1b[K")


def test_progress_counts_over_runs() -> None:
    """Points of the runs before count on, and more than was expected is no more than all."""
    err, clock = Screen(), Clock()
    progress = Progress(Terminal(None, err), 10, 2, clock)
    progress.begin("first")
    progress.at(5)
    progress.begin("second")
    clock.now = 10.0
    progress.at(7)
    assert err.getvalue().endswith("run 2 of 2, second; of all 12 of 12 points, 1 points/s, 0.0 s left")


def test_progress_says_the_trouble() -> None:
    """While nothing moves, the reason is told instead of a rate."""
    err, clock = io.StringIO(), Clock()
    progress = Progress(Terminal(None, err), 10, 1, clock)
    progress.begin("run")
    clock.now = 5.0
    progress.tick("HTTP 503")
    assert ["run: 0 of 10 points, waiting: HTTP 503"] == err.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.4, "12 s"), (200.0, "3:20 min"), (3_723.0, "1:02:03 h")]
)
def test_duration(seconds: float, text: str) -> None:
    """Durations are told in the unit that fits."""
    assert text == formatting.duration(seconds)


def test_times_out_of_the_calendar() -> None:
    """A time that no calendar has is told as a number, or not at all."""
    assert (f"{2**80} ms since 1970", None) == (formatting.moment(2**80), formatting.iso_8601(2**80))
