"""``status``: the undelivered part of each run, its uploader, its last error, and the command to type."""

from __future__ import annotations

from collections.abc import Iterator

from mlops_integrations.cli import formatting, run_summary
from mlops_integrations.cli.exit_codes import ALL_DELIVERED, SOME_LEFT
from mlops_integrations.cli.run_summary import MAYBE_RUNNING, Summary
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import settings
from mlops_integrations.journal.rundir import RunDirectory


def status(terminal: Terminal, runs: list[RunDirectory]) -> int:
    """Print the status of each run; the exit code says whether something is left."""
    default = settings.default_tracking_uri()
    left = 0
    for directory in runs:
        try:
            one = run_summary.read(directory, default)
        except OSError as error:
            terminal.line(f"{directory.path.name}: {error}")
            left += 1
            continue
        left += not one.complete
        _print(terminal, one)
    if runs:
        waiting = f"{left:,} with something left" if left else "all delivered"
        terminal.line(f"{formatting.counted(len(runs), 'run')}, {waiting}")
    return SOME_LEFT if left else ALL_DELIVERED


def _print(terminal: Terminal, one: Summary) -> None:
    where = one.destination or "no server known"
    terminal.line(f"{one.label}  {one.status_text}  {one.delivery_text}  -> {where}")
    for name, text in _details(one):
        terminal.line(f"    {name + ':':<13}{text}")


def _details(one: Summary) -> Iterator[tuple[str, str]]:
    if one.refused:
        yield "refused", f"{formatting.by_reason(one.refused)}, see {one.directory.refused}"
    if one.losses:
        yield "not kept", formatting.by_reason(one.losses)
    if one.complete:
        return
    yield "undelivered", f"{one.waiting:,} of {formatting.counted(one.points, 'point')}"
    uploader, at_work = run_summary.uploader(one.directory.path)
    yield "uploader", uploader
    trouble = one.state.trouble if one.state is not None else None
    if trouble is not None:
        since = formatting.moment(trouble.since)
        yield ("stopped" if trouble.stopped else "last error"), f"{trouble.message} (since {since})"
    if not at_work:
        yield "deliver it", _command(one)


def _command(one: Summary) -> str:
    """Return the shell command that delivers the run."""
    words = ["sync", str(one.directory.path)]
    if one.destination is None:
        words += ["--to", "http://host:5000"]
    if one.status != MAYBE_RUNNING:
        return formatting.shell_command(*words)
    return f"{formatting.shell_command(*words, '--close')}  (if it does not run any more)"
