"""``show``: one run in full, or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from mlops_integrations.cli import formatting, plot, run_contents, run_summary
from mlops_integrations.cli.exit_codes import ALL_DELIVERED
from mlops_integrations.cli.run_contents import Contents, Curve
from mlops_integrations.cli.run_summary import Summary
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import settings
from mlops_integrations.journal.rundir import RunDirectory

_TEXT_LENGTH: Final = 300
_CELL_LENGTH: Final = 40


def show(terminal: Terminal, runs: list[RunDirectory]) -> int:
    """Print one run, or compare several.

    Raises:
        OSError: a run can't be read.
    """
    default = settings.default_tracking_uri()
    told = [run_summary.read(directory, default) for directory in runs]
    recorded = [run_contents.read(directory) for directory in runs]
    if len(runs) == 1:
        _print_one(terminal, told[0], recorded[0])
    else:
        _compare(terminal, told, recorded)
    return ALL_DELIVERED


def _print_one(terminal: Terminal, one: Summary, recorded: Contents) -> None:
    for name, text in _header(one, recorded):
        if text:
            terminal.line(f"{name:<10} {text}")
    _print_texts(terminal, "PARAMETERS", recorded.params)
    _print_texts(terminal, "TAGS", recorded.tags)
    if recorded.curves:
        terminal.line()
        header = ("METRIC", "COUNT", "MIN", "MAX", "LAST", "NOT FINITE")
        terminal.table(header, [_metric_row(key, curve) for key, curve in recorded.curves.items()])
    for key, curve in recorded.curves.items():
        lines = plot.plot(curve, pretty=terminal.is_pretty, blocks=terminal.shows_blocks)
        if lines:
            terminal.line()
            gaps = f"  (gaps: {formatting.by_reason(curve.not_finite)})" if curve.not_finite else ""
            terminal.line(f"{key}{gaps}")
            for line in lines:
                terminal.line(line)


def _header(one: Summary, recorded: Contents) -> Iterable[tuple[str, str]]:
    spec, state = one.spec, one.state
    yield "run", f"{one.label}  ({spec.uid})"
    yield "status", one.status_text
    yield "started", formatting.moment(spec.start_time) + (f" by {spec.user}" if spec.user else "")
    if one.ended is not None:
        took = formatting.duration(max(0, one.ended - spec.start_time) / 1000)
        yield "ended", f"{formatting.moment(one.ended)}, after {took}"
    yield "source", spec.source_name or ""
    yield "directory", str(one.directory.path)
    yield (
        "server",
        f"{one.destination or 'none known'}: {one.delivered:,} of {one.points:,} points, {one.delivery_text}",
    )
    if state is not None:
        yield "link", state.url or ""
        yield "run id", state.run_id or ""
        yield "trouble", state.trouble.message if state.trouble is not None else ""
    yield (
        "artifacts",
        f"{formatting.counted(recorded.artifacts, 'file')} in {one.directory.artifacts}" if recorded.artifacts else "",
    )
    yield "not kept", formatting.by_reason(recorded.losses)
    yield "damaged", f"{formatting.counted(recorded.bad_lines, 'line')} of the journal" if recorded.bad_lines else ""
    yield "refused", f"{formatting.by_reason(one.refused)}, see {one.directory.refused}" if one.refused else ""


def _print_texts(terminal: Terminal, title: str, values: dict[str, str]) -> None:
    if values:
        terminal.line()
        rows = [(key, formatting.printable(value, _TEXT_LENGTH)) for key, value in sorted(values.items())]
        terminal.table((title, ""), rows)


def _metric_row(key: str, curve: Curve) -> tuple[str, ...]:
    return (
        key,
        f"{curve.count:,}",
        _number(curve.least),
        _number(curve.greatest),
        _number(curve.last),
        formatting.by_reason(curve.not_finite),
    )


def _number(value: float | str | None) -> str:
    return "" if value is None else formatting.number(value)


def _compare(terminal: Terminal, told: list[Summary], recorded: list[Contents]) -> None:
    labels = [one.label for one in told]
    about = [
        ("status", [one.status_text for one in told]),
        ("started", [formatting.moment(one.spec.start_time) for one in told]),
        ("points", [f"{one.points:,}" for one in told]),
        ("server", [one.delivery_text for one in told]),
    ]
    _print_side_by_side(terminal, "RUN", labels, about)
    _print_differences(terminal, labels, [one.params for one in recorded])
    for title, text in (("LAST", _last), ("MIN", _least), ("MAX", _greatest)):
        rows = _metric_rows(recorded, text)
        if rows:
            terminal.line()
            _print_side_by_side(terminal, title, labels, rows)


def _print_differences(terminal: Terminal, labels: list[str], params: list[dict[str, str]]) -> None:
    keys = sorted({key for one in params for key in one})
    rows = [(key, [one.get(key, "") for one in params]) for key in keys if len({one.get(key) for one in params}) > 1]
    if keys:
        terminal.line()
    if rows:
        _print_side_by_side(terminal, "PARAMETER", labels, rows)
    if len(rows) < len(keys):
        terminal.line(f"{formatting.counted(len(keys) - len(rows), 'parameter')} with the same value in all runs")


def _metric_rows(recorded: list[Contents], text: Callable[[Curve], str]) -> list[tuple[str, list[str]]]:
    keys = dict.fromkeys(key for one in recorded for key in one.curves)
    return [(key, [text(one.curves[key]) if key in one.curves else "" for one in recorded]) for key in keys]


def _last(curve: Curve) -> str:
    return _number(curve.last)


def _least(curve: Curve) -> str:
    return _number(curve.least)


def _greatest(curve: Curve) -> str:
    return _number(curve.greatest)


def _print_side_by_side(terminal: Terminal, title: str, labels: list[str], rows: list[tuple[str, list[str]]]) -> None:
    cells = [(key, *(formatting.printable(value, _CELL_LENGTH) for value in values)) for key, values in rows]
    terminal.table((title, *(formatting.printable(label, _CELL_LENGTH) for label in labels)), cells)
