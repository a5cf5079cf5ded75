"""The command line: parses what was typed, calls a command, returns its exit code."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from mlops_integrations.cli import formatting, run_lookup
from mlops_integrations.cli.exit_codes import INTERRUPTED, SOME_LEFT, USAGE, UsageError
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import settings
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.version import VERSION

_ABOUT: Final = "Recorded runs: deliver them to a tracking server, look at them."
_EPILOG: Final = """\
exit codes of sync and status: 0 all is delivered, 1 something is left, 2 wrong usage, 3 no server is named, or none
can be reached, 130 interrupted
"""

_SYNC: Final = """\
Deliver what is not delivered, and how each run ended.
Safe to call at any time and any number of times, beside running trainings too.
"""
_TO: Final = """\
the server, as http(s)://[user:password@]host[:port][/prefix], databricks[://PROFILE] or oracle-aidp://…
(default: the one that a run was recorded for, then MLFLOW_TRACKING_URI). Credentials go only to what this or
MLFLOW_TRACKING_URI names
"""
_CLOSE: Final = """\
also close runs of other machines and containers, of which can't be told from here whether they still run: to be used
when you know that they don't
"""
_AS_NEW: Final = """\
where the server has deleted a run or says that it never had it, make another one there: all that is recorded is
delivered once more
"""
_EXPERIMENT: Final = "make runs that the server does not have yet in this experiment, whatever was recorded"
_STATUS: Final = "What is undelivered of each run, which uploader is at work, its last error, and what to type."
_CLEAN: Final = """\
Remove the directories of runs that have ended and of which a server has everything; it is asked whether it has the run.
What is not delivered, was refused, or may still be written to stays, and it is said why.
"""
_CLEAN_CODES: Final = "exit codes: 0 done, 1 something could not be removed, 2 wrong usage, 130 interrupted\n"
_CLEANED: Final = "a run directory, or one that holds run directories (default: MLOPS_DIR, then ./mlops_runs)"
_OLDER_THAN: Final = "only runs that ended longer ago than so many days (default: 0)"
_RUNS: Final = "The table of runs, oldest first."
_SHOW: Final = "One run: parameters, tags, metrics with their curves. Several runs: compared side by side."
_DOCTOR: Final = "Ask a tracking server what it is. Nothing is written there without --write."
_URI: Final = "the server (default: MLFLOW_TRACKING_URI)"
_DIRECTORIES: Final = """\
a run directory, one that holds run directories, or a run as \"show\" takes it (default: MLOPS_DIR, then
./mlops_runs)
"""
_ROOT: Final = "the directory that holds the runs (default: MLOPS_DIR, then ./mlops_runs)"
_RUN: Final = """\
a run's directory or the beginning of that directory's name, or a run's name, uid or id on the server (default: the
latest run)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that was typed.

    Args:
        arguments: Default: the process's own.

    Returns:
        The exit code.
    """
    terminal = Terminal(sys.stdout, sys.stderr)
    code = _call(terminal, arguments)
    terminal.close()
    return code or (SOME_LEFT if terminal.failed else code)


def _call(terminal: Terminal, arguments: Sequence[str] | None) -> int:
    try:
        typed = _parser().parse_args(arguments)
        command: Callable[[Terminal, argparse.Namespace], int] = typed.command
        return command(terminal, typed)
    except SystemExit as error:  # help, version and wrong usage, which the parser has printed
        return error.code if isinstance(error.code, int) else 0
    except UsageError as error:
        terminal.note(f"{formatting.PROGRAM}: {error}")
        return USAGE
    except OSError as error:
        terminal.note(f"{formatting.PROGRAM}: {error}")
        return SOME_LEFT
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Parser that ends each error message with a hint to ``--help``."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\nMore: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=formatting.PROGRAM, description=_ABOUT, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    sync = commands.add_parser("sync", help="deliver runs to their server", description=_SYNC, epilog=_EPILOG)
    sync.add_argument("directories", metavar="DIR", nargs="*", help=_DIRECTORIES)
    sync.add_argument("--to", metavar="URI", help=_TO)
    sync.add_argument("--close", action="store_true", help=_CLOSE)
    sync.add_argument("--as-new", action="store_true", help=_AS_NEW)
    sync.add_argument("--experiment", metavar="NAME", help=_EXPERIMENT)
    sync.set_defaults(command=_sync)

    status = commands.add_parser("status", help="what is left, and why", description=_STATUS, epilog=_EPILOG)
    status.add_argument("directories", metavar="DIR", nargs="*", help=_DIRECTORIES)
    status.set_defaults(command=_status)

    runs = commands.add_parser("runs", help="the table of runs", description=_RUNS)
    runs.add_argument("--dir", metavar="DIR", help=_ROOT)
    runs.add_argument("--json", action="store_true", help="a JSON array with an object for each run")
    runs.set_defaults(command=_runs)

    show = commands.add_parser("show", help="a run and its curves, or several compared", description=_SHOW)
    show.add_argument("runs", metavar="RUN", nargs="*", help=_RUN)
    show.add_argument("--dir", metavar="DIR", help=_ROOT)
    show.set_defaults(command=_show)

    clean = commands.add_parser("clean", help="remove what a server has", description=_CLEAN, epilog=_CLEAN_CODES)
    clean.add_argument("directories", metavar="DIR", nargs="*", help=_CLEANED)
    clean.add_argument("--older-than", metavar="DAYS", type=_days, default=0.0, help=_OLDER_THAN)
    clean.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    clean.set_defaults(command=_clean)

    doctor = commands.add_parser("doctor", help="what a server speaks, takes and keeps", description=_DOCTOR)
    doctor.add_argument("uri", metavar="URI", nargs="?", help=_URI)
    doctor.add_argument("--write", action="store_true", help="try writing, too: makes an experiment and a run")
    doctor.set_defaults(command=_doctor)
    return parser


def _doctor(terminal: Terminal, typed: argparse.Namespace) -> int:
    from mlops_integrations.cli.doctor import Doctor

    return Doctor(terminal, typed.uri).run(write=typed.write)


def _sync(terminal: Terminal, typed: argparse.Namespace) -> int:
    from mlops_integrations.cli.sync import Sync

    runs = _found(terminal, typed.directories)
    return Sync(terminal, typed.to, typed.close, typed.as_new, typed.experiment).run(runs)


def _status(terminal: Terminal, typed: argparse.Namespace) -> int:
    from mlops_integrations.cli.status import status

    runs = _found(terminal, typed.directories)
    return status(terminal, runs)


def _clean(terminal: Terminal, typed: argparse.Namespace) -> int:
    from mlops_integrations.cli.clean import Clean
    from mlops_integrations.journal import removal

    for name in typed.directories:
        if not name or not Path(name).expanduser().is_dir():
            raise UsageError(f"{name!r} is not a directory: what is removed is named by its directory")
    if not typed.dry_run:
        for name in typed.directories or [settings.default_root()]:
            removal.settle_leftovers(Path(name).expanduser())
    return Clean(terminal, typed.older_than, typed.dry_run).run(_found(terminal, typed.directories))


def _runs(terminal: Terminal, typed: argparse.Namespace) -> int:
    from mlops_integrations.cli.runs import runs

    return runs(terminal, _root(typed.dir), as_json=typed.json)


def _show(terminal: Terminal, typed: argparse.Namespace) -> int:
    from mlops_integrations.cli.show import show

    root = _root(typed.dir)
    found = [run_lookup.one_run(root, name) for name in typed.runs] or [run_lookup.latest_run(root)]
    return show(terminal, found)


def _found(terminal: Terminal, directories: list[str]) -> list[RunDirectory]:
    """Return the runs to work on. Finding none is an error only if directories were named."""
    runs = run_lookup.all_runs(directories)
    if not runs and directories:
        raise UsageError(_no_runs(directories))
    if not runs:
        terminal.line(_no_runs(directories))
    return runs


def _days(text: str) -> float:
    with contextlib.suppress(ValueError):
        days = float(text)
        if 0.0 <= days < float("inf"):
            return days
    raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 0 on")


def _root(name: str | None) -> Path:
    root = settings.default_root() if name is None else Path(name).expanduser().absolute()
    if name is not None and not root.is_dir():
        raise UsageError(f"--dir: {root} is not a directory")
    return root


def _no_runs(directories: list[str]) -> str:
    return f"no runs in {run_lookup.where(directories)}: name the directory that holds them, or set MLOPS_DIR"
