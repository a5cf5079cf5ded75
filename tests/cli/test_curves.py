"""Reading a run in little memory, and drawing its curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import pytest

from mlops_integrations.cli.plot import block_plot, plot
from mlops_integrations.cli.run_contents import Curve
from mlops_integrations.journal.records import Value


def curve_of(values: Iterable[Value], first_step: int = 0) -> Curve:
    """A curve with a point for each value."""
    curve = Curve()
    for step, value in enumerate(values, first_step):
        curve.add(step, value)
    return curve


def test_a_long_curve_is_thinned_out() -> None:
    """However many points there are, about 1,000 are kept, evenly; the numbers are those of all."""
    curve = curve_of(float(number) for number in range(100_000))
    steps, values = curve.points()
    assert (100_000, 0.0, 99_999.0, 99_999.0) == (curve.count, curve.least, curve.greatest, curve.last)
    assert 500 <= len(steps) <= 1_001
    assert values == [float(step) for step in steps]
    assert (0, 99_999) == (steps[0], steps[-1])
    assert 1 == len({after - before for before, after in itertools.pairwise(steps[:-1])})


def test_a_short_curve_is_kept_whole() -> None:
    """Up to 1,000 points nothing is left out, the last one stands once."""
    assert (list(range(1_000)), [0.5] * 1_000) == curve_of([0.5] * 1_000).points()


def test_what_is_not_finite_is_counted() -> None:
    """NaN and infinities don't touch the bounds, and are counted by kind."""
    curve = curve_of(["NaN", 2.0, "Infinity", 1.0, "NaN"])
    assert (1.0, 2.0, "NaN") == (curve.least, curve.greatest, curve.last)
    assert {"NaN": 2, "Infinity": 1} == curve.not_finite


def test_plot_has_bounds_and_steps() -> None:
    """The highest and lowest value stand at the sides, the first and last step below."""
    lines = block_plot(curve_of([float(number) for number in range(60)], first_step=-3))
    assert 9 == len(lines)
    assert lines[0].startswith("59 │")
    assert lines[0].endswith("█")
    assert lines[7].startswith(" 0 │▁")
    assert ["-3", "56"] == lines[8].split()


def test_plot_rises_with_the_values() -> None:
    """A rising line is drawn as a rising area."""
    *rows, _ = block_plot(curve_of([float(number) for number in range(60)]))
    areas = [row.partition("│")[2].ljust(60) for row in rows]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(row[column]) for row in areas) for column in range(60)]
    assert heights == sorted(heights)
    assert (1, 64) == (heights[0], heights[-1])


def test_plot_shows_gaps() -> None:
    """Where there is nothing finite, nothing is drawn."""
    *_, lowest, _ = block_plot(curve_of([*[1.0] * 20, *["NaN"] * 20, *[1.0] * 20]))
    assert "█" * 20 + " " * 20 + "█" * 20 == lowest.partition("│")[2]


def test_few_points_are_drawn_as_steps() -> None:
    """Between points a column goes on as the one before it."""
    *_, lowest, _ = block_plot(curve_of([2.0, 1.0]))
    assert "█" * 59 + "▁" == lowest.partition("│")[2]


@pytest.mark.parametrize(
    "curve",
    [
        curve_of([1.7e308, -1.7e308, 1.7e308] * 30),
        curve_of([5e-324, 0.0]),
        curve_of([1.0, 1.0], first_step=-(2**63)),
        curve_of([1.0, 2.0], first_step=2**63 - 2),
    ],
    ids=["huge", "tiny", "lowest steps", "highest steps"],
)
def test_plot_of_extremes(curve: Curve) -> None:
    """Any numbers that the journal keeps can be drawn."""
    assert 9 == len(block_plot(curve))


def test_plot_of_the_widest_steps() -> None:
    """Steps may span all 64 bits."""
    curve = Curve()
    curve.add(-(2**63), 0.0)
    curve.add(2**63 - 1, 1.0)
    assert 9 == len(block_plot(curve))


def test_plot_in_letters() -> None:
    """Where block characters can't be shown, the plot is ASCII."""
    lines = block_plot(curve_of([float(number) for number in range(60)]), blocks=False)
    assert all(line.isascii() for line in lines)
    assert "#" in lines[0]


@pytest.mark.parametrize("values", [[], [1.0], ["NaN", "NaN"]], ids=["nothing", "one point", "nothing finite"])
def test_nothing_to_draw(values: list[Value]) -> None:
    """A curve that is none has no plot."""
    assert [] == plot(curve_of(values), pretty=False, blocks=True)


def test_plotext_draws_the_same_points() -> None:
    """With plotext installed a plot has its axes and no escape sequences; gaps split the line."""
    pytest.importorskip("plotext", minversion="6")
    lines = plot(curve_of([1.0, 0.5, "NaN", 0.25, math.pi]), pretty=True, blocks=True)
    assert len(lines) > 9
    assert all(line.isprintable() for line in lines)
    assert "3.1" in "".join(lines)
