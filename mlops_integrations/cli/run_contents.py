"""Reads all of one run's journal in little memory: parameters, tags, and each metric's curve, thinned out."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import (
    Artifact,
    End,
    Header,
    Losses,
    Metrics,
    Params,
    Record,
    RunSpec,
    Tags,
    Value,
    not_handled,
)
from mlops_integrations.journal.rundir import RunDirectory

_MOST_KEPT: Final = 1_000


@dataclass(slots=True)
class Curve:
    """One metric: statistics of all its points, and up to 1,000 points, evenly chosen in the order of logging."""

    count: int = 0
    least: float | None = None
    greatest: float | None = None
    last: Value | None = None
    last_step: int = 0
    not_finite: dict[str, int] = field(default_factory=dict)
    """Counts of NaN, Infinity and -Infinity."""
    _steps: array[int] = field(default_factory=lambda: array("q"))
    _values: array[float] = field(default_factory=lambda: array("d"))
    _stride: int = 1

    def add(self, step: int, value: Value) -> None:
        """Add a point."""
        if isinstance(value, str):
            self.not_finite[value] = self.not_finite.get(value, 0) + 1
        elif self.least is None or self.greatest is None:
            self.least = self.greatest = value
        elif value < self.least:
            self.least = value
        elif value > self.greatest:
            self.greatest = value
        if self.count % self._stride == 0:
            self._keep(step, value)
        self.count += 1
        self.last, self.last_step = value, step

    def points(self) -> tuple[list[int], list[float]]:
        """Return steps and values of the kept points and the last one. NaN stands for values that are not finite."""
        steps, values = self._steps.tolist(), self._values.tolist()
        if self.last is not None and (self.count - 1) % self._stride:
            steps.append(self.last_step)
            values.append(_as_float(self.last))
        return steps, values

    def _keep(self, step: int, value: Value) -> None:
        if len(self._steps) >= _MOST_KEPT:
            self._steps, self._values = self._steps[::2], self._values[::2]
            self._stride *= 2
            if self.count % self._stride:
                return
        self._steps.append(step)
        self._values.append(_as_float(value))


@dataclass(slots=True)
class Contents:
    """The recorded contents of a run."""

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    artifacts: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    bad_lines: int = 0


def read(directory: RunDirectory) -> Contents:
    """Read all journal files of a run.

    Raises:
        OSError: a file can't be read.
    """
    contents = Contents()
    for path in directory.journals():
        journal = JournalReader(path)
        try:
            losses = _take_in(journal, contents)
        finally:
            journal.close()
        contents.bad_lines += journal.bad_lines
        for reason, count in losses.items():
            contents.losses[reason] = contents.losses.get(reason, 0) + count
    return contents


def _as_float(value: Value) -> float:
    return math.nan if isinstance(value, str) else value


def _take_in(records: Iterator[Record] | JournalReader, contents: Contents) -> dict[str, int]:
    """Add one file's records; return the number of items that its writer could not keep, by reason."""
    losses: dict[str, int] = {}
    curves = contents.curves
    for record in records:
        match record:
            case Metrics():
                for key, value, step in record.values:
                    curve = curves.get(key)
                    if curve is None:
                        curve = curves[key] = Curve()
                    curve.add(step, value)
            case Params():
                for key, text in record.values.items():
                    contents.params.setdefault(key, text)  # as on the server: the first value stands
            case Tags():
                contents.tags.update(record.values)
            case Artifact():
                contents.artifacts += 1
            case Losses():
                losses = record.counts
            case Header() | RunSpec() | End():  # see run_summary
                pass
            case _:
                not_handled(record)
    return losses
