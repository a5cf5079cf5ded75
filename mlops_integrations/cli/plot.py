"""Curves as text: by ``plotext`` if it is installed and stdout is a terminal, else drawn here in block characters."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, Final

from mlops_integrations.cli.formatting import number
from mlops_integrations.cli.run_contents import Curve

_WIDTH: Final = 60
_ROWS: Final = 8
_PLOTEXT_WIDTH: Final = 78
_PLOTEXT_ROWS: Final = 13
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"


def plot(curve: Curve, *, pretty: bool, blocks: bool) -> list[str]:
    """The lines of a metric's plot; none for a single point, or where nothing is finite.

    Args:
        curve: the metric's points.
        pretty: use ``plotext`` if it is installed.
        blocks: block characters can be shown; else ASCII characters are used.
    """
    if curve.least is None or curve.count < 2:
        return []
    if pretty and (drawn := _with_plotext(curve)) is not None:
        return drawn
    return block_plot(curve, blocks=blocks)


def block_plot(curve: Curve, *, blocks: bool = True) -> list[str]:
    """Draw the area under the curve, with its bounds beside and below it. Gaps stand for values that are not finite."""
    if curve.least is None or curve.greatest is None:
        return []
    steps, values = curve.points()
    low, high = curve.least, curve.greatest
    heights = _columns(steps, values)
    levels = [None if height is None else _level(height, low, high) for height in heights]
    labels = [number(high), *[""] * (_ROWS - 2), number(low)]
    margin = max(map(len, labels))
    bar = "│" if blocks else "|"
    lines = []
    for row in range(_ROWS):
        base = 8 * (_ROWS - 1 - row)
        area = "".join(" " if level is None else _cell(level - base, blocks) for level in levels)
        lines.append(f"{labels[row]:>{margin}} {bar}{area}".rstrip())
    first, last = str(min(steps)), str(max(steps))
    between = max(1, _WIDTH - len(first) - len(last))
    lines.append(f"{'':>{margin}}  {first}{' ' * between}{last if last != first else ''}".rstrip())
    return lines


def _columns(steps: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """Return the mean of the finite points in each column; a column without points repeats the one before it."""
    first, last = min(steps), max(steps)
    span = max(1, last - first)
    points: list[list[float]] = [[] for _ in range(_WIDTH)]
    for step, value in zip(steps, values, strict=True):
        points[(step - first) * (_WIDTH - 1) // span].append(value)
    heights: list[float | None] = []
    for column in points:
        finite = [value for value in column if math.isfinite(value)]
        if finite:
            # Each divided before adding: the sum of two huge numbers may be infinite.
            heights.append(sum(value / len(finite) for value in finite))
        else:
            heights.append(heights[-1] if heights and not column else None)
    return heights


def _level(value: float, low: float, high: float) -> int:
    """Return a height in eighths of a row: from 1, so that the lowest value is visible, to 8 times the rows."""
    top = 8 * _ROWS
    span = high / 2 - low / 2
    share = (value / 2 - low / 2) / span if span > 0 else 0.5
    return 1 + round(share * (top - 1))


def _cell(eighths: int, blocks: bool) -> str:
    inside = min(8, max(0, eighths))
    if blocks:
        return _EIGHTHS[inside]
    return "#" if inside > 4 else "." if inside else " "


def _with_plotext(curve: Curve) -> list[str] | None:
    """Draw with plotext 6; None if that is not installed, or fails: a plot is no reason to fail."""
    if importlib.util.find_spec("plotext") is None:
        return None
    try:
        import plotext

        figure: Any = plotext.figure
        figure.clear()
        figure.plot_size(_PLOTEXT_WIDTH, _PLOTEXT_ROWS)
        for steps, values in _finite_parts(curve):
            figure.draw(figure.signal(steps, values, marker="hd").lines())
        drawn: str = figure.build().string(colorless=True)
    except Exception:  # foreign code of several incompatible versions
        return None
    return drawn.splitlines()


def _finite_parts(curve: Curve) -> list[tuple[list[int], list[float]]]:
    parts: list[tuple[list[int], list[float]]] = []
    broken = True
    for step, value in zip(*curve.points(), strict=True):
        if not math.isfinite(value):
            broken = True
            continue
        if broken:
            parts.append(([], []))
            broken = False
        parts[-1][0].append(step)
        parts[-1][1].append(value)
    return parts
