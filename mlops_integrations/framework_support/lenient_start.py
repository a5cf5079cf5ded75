"""Starts runs inside a framework's training: a failure becomes a warning, as an exception would end the training."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from mlops_integrations.clock import now_ms
from mlops_integrations.config.settings import from_arguments
from mlops_integrations.journal.records import RunSpec
from mlops_integrations.journal.root import find_by_uid, make_run_directory, remove_if_empty
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import active_runs
from mlops_integrations.recording.recorder import NO_DIRECTORY
from mlops_integrations.recording.run import Run, recorder_of
from mlops_integrations.recording.run_setup import announce, make_run, make_spec, new_uid
from mlops_integrations.recording.start import check

logger: Final = logging.getLogger("mlops_integrations")


def prepare(options: Mapping[str, Any], uid: str) -> Run:
    """Return a run with its directory, for integrations: nothing is recorded or started before the run begins.

    Never raises. If nothing can be recorded, the run only counts its losses.
    """
    try:
        return make_run(check(options), options, uid, lenient=True, opened=False)
    except Exception as error:  # at the border to a training: whatever it is, it must not end that
        logger.warning("mlops: nothing is recorded, training goes on: %s: %s", type(error).__name__, error)
        return absent(uid, NO_DIRECTORY)


def absent(uid: str, reason: str) -> Run:
    """Return a run without a directory: it only counts its losses, by this reason."""
    root = Path(tempfile.gettempdir())
    chosen = from_arguments(directory=root, mode="disabled", environ={})
    return Run(RunSpec(uid=uid, name="run", start_time=now_ms()), RunDirectory(root), chosen, reason)


def begin(run: Run) -> None:
    """Begin to record a run that was prepared. Never raises."""
    try:
        recorder_of(run).begin()
    except Exception as error:  # at the border to a training, as above
        recorder_of(run).swallow(error)


def greet(run: Run, options: Mapping[str, Any]) -> None:
    """Report where a run that has begun is recorded, and record its first parameters and tags. Never raises."""
    try:
        announce(run, options)
    except Exception as error:  # as above
        recorder_of(run).swallow(error)


def prepared_again(run: Run, options: Mapping[str, Any], uid: str, run_id: str | None) -> tuple[Run, dict[str, Any]]:
    """Replace a prepared run that has recorded nothing by an earlier run, to resume that.

    Args:
        run: the prepared run.
        options: its keywords of ``start_run``.
        uid: the earlier run's uid.
        run_id: the earlier run's id on the server, in case its directory is not found.

    Returns:
        The run and its keywords; the prepared run with its own keywords, if they name another experiment.
    """
    found = find_by_uid(check(options).root, uid)
    named = options.get("experiment_name")
    if found is not None and named is not None and found.spec().experiment_name != named:
        logger.warning("mlops: experiment_name=%r is another one than the checkpoint's: a new run is recorded", named)
        return run, dict(options)
    remove_if_empty(run.directory)
    chosen = dict(options) | {"resume": uid if found is not None or run_id is None else run_id}
    return prepare(chosen, new_uid()), chosen


def join(options: Mapping[str, Any], uid: str, directory: Path, rank: int) -> Run:
    """Return the run of rank 0 for a process of a higher rank. Never raises.

    It is recorded in the same directory, if this machine has it, else in a new one with the same uid.
    """
    try:
        chosen = check(options)
        run_directory = RunDirectory(directory)
        if directory.is_dir() and run_directory.spec().uid == uid:
            spec = run_directory.spec()
        else:
            spec = make_spec(chosen, uid, options.get("run_name"), options.get("parent"))
            run_directory = make_run_directory(chosen.root, spec.name, uid)
        joined = Run(structs.replace(spec, rank=rank), run_directory, chosen)
        recorder_of(joined).begin()
        active_runs.started(joined)
    except Exception as error:  # at the border to a training, as above
        logger.warning("mlops: nothing is recorded, training goes on: %s: %s", type(error).__name__, error)
        return absent(uid, NO_DIRECTORY)
    return joined
