"""``runs``: the table of runs, for people or as JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from mlops_integrations.cli import formatting, run_summary
from mlops_integrations.cli.exit_codes import ALL_DELIVERED
from mlops_integrations.cli.run_summary import Summary
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import settings
from mlops_integrations.journal.root import run_directories

_HEADER: Final = ("RUN", "STATUS", "STARTED", "STEP", "LAST VALUES", "POINTS", "SERVER", "LINK")
_VALUES_SHOWN: Final = 3
_NAME_LENGTH: Final = 40
_KEY_LENGTH: Final = 24
_STATUS_LENGTH: Final = 40


def runs(terminal: Terminal, root: Path, *, as_json: bool = False) -> int:
    """Print the runs of a root, oldest first."""
    default = settings.default_tracking_uri()
    found: list[Summary] = []
    unreadable = []
    for directory in run_directories(root):
        try:
            found.append(run_summary.read(directory, default))
        except OSError as error:
            unreadable.append(f"{directory.path.name}: {error}")
    found.sort(key=lambda one: one.spec.start_time)
    if as_json:
        terminal.line("[")
        for index, one in enumerate(found):
            terminal.line(json.dumps(_fields(one)) + ("," if index + 1 < len(found) else ""))
        terminal.line("]")
    elif found:
        _print_table(terminal, found)
    else:
        terminal.line(f"No runs in {root}. Where others are: --dir DIR, or MLOPS_DIR.")
    for text in unreadable:
        terminal.note(text)
    return ALL_DELIVERED


def _print_table(terminal: Terminal, found: list[Summary]) -> None:
    """Print one table for programs; for people, the links, which are long, are below the table."""
    rows = [_row(one) for one in found]
    if not terminal.is_pretty:
        terminal.table(_HEADER, rows)
        return
    terminal.table(_HEADER[:-1], [row[:-1] for row in rows])
    linked = [(row[0], row[-1]) for row in rows if row[-1]]
    if linked:
        terminal.line()
        width = max(formatting.columns(name) for name, _ in linked)
        for name, link in linked:
            terminal.line(f"{name}{' ' * (width - formatting.columns(name))}  {link}")


def _row(one: Summary) -> tuple[str, ...]:
    latest = list(one.last_values.items())[-_VALUES_SHOWN:]
    values = " ".join(f"{formatting.printable(key, _KEY_LENGTH)}={formatting.number(value)}" for key, value in latest)
    more = len(one.last_values) - len(latest)
    return (
        formatting.printable(one.label, _NAME_LENGTH),
        formatting.printable(one.status_text, _STATUS_LENGTH),
        formatting.moment(one.spec.start_time),
        "" if one.last_step is None else str(one.last_step),
        f"{values} +{more}" if more else values,
        f"{one.points:,}",
        one.delivery_text,
        (one.state.url if one.state is not None else None) or "",
    )


def _fields(one: Summary) -> dict[str, Any]:
    state = one.state
    return {
        "directory": str(one.directory.path),
        "uid": one.spec.uid,
        "name": one.spec.name,
        "status": one.status,
        "reason": one.reason,
        "started": formatting.iso_8601(one.spec.start_time),
        "ended": formatting.iso_8601(one.ended),
        "last_step": one.last_step,
        "last_values": one.last_values,
        "points": one.points,
        "delivered": one.delivered,
        "waiting": one.waiting,
        "complete": one.complete,
        "refused": one.refused,
        "losses": one.losses,
        "trouble": state.trouble.message if state is not None and state.trouble is not None else None,
        "run_id": state.run_id if state is not None else None,
        "url": state.url if state is not None else None,
        "tracking_uri": one.destination,
    }
