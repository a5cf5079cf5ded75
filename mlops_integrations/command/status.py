"""``status``: what is undelivered, who is at it, what went wrong, what to type."""

from __future__ import annotations

from mlops_integrations import settings
from mlops_integrations.command import ALL_DELIVERED, SOME_LEFT, summary, texts
from mlops_integrations.command.summary import MAYBE_RUNNING, Summary
from mlops_integrations.command.terminal import Terminal
from mlops_integrations.journal.rundir import RunDirectory


def status(terminal: Terminal, runs: list[RunDirectory]) -> int:
    """Print it for each run; the exit code says whether something is left."""
    default = settings.default_tracking_uri()
    left = 0
    for run in runs:
        try:
            one = summary.read(run, default)
        except OSError as error:
            terminal.line(f"{run.path.name}: {error}")
            left += 1
            continue
        left += not one.complete
        _print(terminal, one)
    if runs:
        waiting = f"{left:,} with something left" if left else "all delivered"
        terminal.line(f"{texts.counted(len(runs), 'run')}, {waiting}")
    return SOME_LEFT if left else ALL_DELIVERED


def _print(terminal: Terminal, one: Summary) -> None:
    where = one.destination or "no server known"
    terminal.line(f"{one.label}  {one.status_text}  {one.delivery_text}  -> {where}")
    if one.refused:
        terminal.line(f"    refused:    {texts.by_reason(one.refused)}, see {one.run.refused}")
    if one.losses:
        terminal.line(f"    not kept:   {texts.by_reason(one.losses)}")
    if one.complete:
        return
    terminal.line(f"    undelivered: {texts.counted(one.waiting, 'point')} of {one.points:,}")
    terminal.line(f"    uploader:    {summary.holder_text(one.run.path) or 'none at work'}")
    trouble = one.state.trouble if one.state is not None else None
    if trouble is not None:
        kind = "stopped" if trouble.stopped else "last error"
        terminal.line(f"    {kind + ':':<12} {trouble.message} (since {texts.moment(trouble.since)})")
    terminal.line(f"    deliver it:  {_command(one)}")


def _command(one: Summary) -> str:
    words = ["sync", str(one.run.path)]
    if one.status == MAYBE_RUNNING:
        words.append("--close")
    if one.destination is None:
        words += ["--to", "http://host:5000"]
    command = texts.shell_command(*words)
    return f"{command}  (if it does not run any more)" if one.status == MAYBE_RUNNING else command
