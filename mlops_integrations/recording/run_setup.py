"""The setup of a run: its spec, directory and first records, from settings and the keywords of ``start_run``."""

from __future__ import annotations

import logging
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from mlops_integrations.clock import now_ms
from mlops_integrations.config import launch
from mlops_integrations.config.settings import DEFAULT_EXPERIMENT, Settings
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal.records import UID_PREFIX, RunSpec
from mlops_integrations.journal.root import find_by_label, find_by_run_id, find_by_uid, make_run_directory
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import active_runs, values
from mlops_integrations.recording.recorder import DISABLED, NO_DIRECTORY
from mlops_integrations.recording.run import Run, recorder_of

logger: Final = logging.getLogger("mlops_integrations")


_ids_taken: Final[set[str]] = set()
"""Ids that runs of this process resume already: one from the environment is used once."""


def new_uid() -> str:
    """Our own id for a new run."""
    return UID_PREFIX + uuid.uuid4().hex


def make_run(chosen: Settings, options: Mapping[str, Any], uid: str, *, lenient: bool, opened: bool) -> Run:
    """Make a run with its directory, or find the directory of the run to resume.

    Args:
        chosen: the settings.
        options: keywords of ``start_run``.
        uid: the run's uid, if it is a new one.
        lenient: fall back to another directory, or to a new run, if the named one can't be used.
        opened: open a journal file at once.

    Raises:
        RunDirectoryError: unless lenient: the directory can't be written, or there is no run to resume.
    """
    resume = options.get("resume")
    spec = make_spec(chosen, uid, options.get("run_name"), options.get("parent"))
    if chosen.mode == "disabled":
        return Run(spec, RunDirectory(chosen.root / spec.name), chosen, DISABLED)
    known = _find(chosen, resume, lenient=lenient)
    if known is None and not opened:
        known = find_by_label(chosen.root, uid)  # another copy of the integration, in another process, has begun it
    try:
        if known is not None:
            run = _known(known, chosen)
        else:
            spec = structs.replace(spec, resume_run_id=_server_run(chosen, resume))
            run = Run(spec, make_run_directory(chosen.root, spec.name, spec.uid), chosen)
        if opened:
            recorder_of(run).open()
    except OSError as error:
        if chosen.root_is_explicit and not lenient:
            raise RunDirectoryError(f"{chosen.root} can't be used for runs: {error.strerror or error}") from None
        run = _made_elsewhere(spec, chosen, error, opened=opened)
    if chosen.resume:
        _ids_taken.add(chosen.resume)
    return run


def announce(run: Run, options: Mapping[str, Any], *, by_user: bool = False) -> None:
    """Make a run the active one, report where it is recorded, and record its first parameters and tags."""
    active_runs.started(run, by_user=by_user)
    recorder_of(run).say_where()
    run.set_tags(launch.job_tags() | dict(options.get("tags") or {}))
    run.log_params(options.get("params") or {})


def make_spec(chosen: Settings, uid: str, name: str | None, parent: Run | str | None) -> RunSpec:
    """Return the run's description for the first lines of its journal."""
    source_name, source_type = launch.source()
    spec = RunSpec(
        uid=uid,
        name=str(name) if name else _script_name(),
        start_time=now_ms(),
        tracking_uri=chosen.tracking_uri,
        experiment_name=chosen.experiment_name or DEFAULT_EXPERIMENT,
        experiment_id=chosen.experiment_id,
        parent=parent.uid if isinstance(parent, Run) else parent,
        parent_directory=str(parent.directory) if isinstance(parent, Run) else None,
        user=launch.user_name(),
        source_name=source_name,
        source_type=source_type,
    )
    return values.well_formed_spec(spec)


def _find(chosen: Settings, resume: Run | str | None, *, lenient: bool) -> RunDirectory | None:
    """Return the directory of the run to resume, if this machine has it."""
    if isinstance(resume, Run):
        return RunDirectory(resume.directory)
    if chosen.resume is None or (resume is None and chosen.resume in _ids_taken):
        return None
    if not chosen.resume.startswith(UID_PREFIX):
        return find_by_run_id(chosen.root, chosen.resume)
    found = find_by_uid(chosen.root, chosen.resume)
    if found is None:
        text = (
            f"there is no run {chosen.resume} in {chosen.root} to resume: is the directory right (MLOPS_DIR)? "
            "One that `clean` has removed is resumed by its id on the server"
        )
        if not lenient:
            raise RunDirectoryError(text)
        logger.warning("mlops: %s. A new run is recorded", text)
    return found


def _server_run(chosen: Settings, resume: Run | str | None) -> str | None:
    """Return the server's id of the run to resume; the one of the environment only once in a process."""
    wanted = chosen.resume
    taken = resume is None and wanted in _ids_taken
    return None if not wanted or taken or wanted.startswith(UID_PREFIX) else wanted


def _known(known: RunDirectory, chosen: Settings) -> Run:
    first = known.spec()
    if chosen.tracking_uri is None and first.tracking_uri is not None and chosen.mode == "offline":
        # No server was named this time: the run goes to the one of before.
        chosen = replace(chosen, tracking_uri=first.tracking_uri)
    known.reserve()
    return Run(structs.replace(first, tracking_uri=chosen.tracking_uri), known, chosen, earlier=known.journals())


def _made_elsewhere(spec: RunSpec, chosen: Settings, error: OSError, *, opened: bool) -> Run:
    """Make the run in a private temporary directory, as the chosen one can't be written; failing that, in none."""
    try:
        root = Path(tempfile.mkdtemp(prefix="mlops_runs-"))
        root.chmod(0o700)  # a strange umask would keep even its owner out
        run = Run(spec, make_run_directory(root, spec.name, spec.uid), replace(chosen, root=root))
        if opened:
            recorder_of(run).open()
    except OSError:
        logger.warning(
            "mlops: %s can't be used for runs (%s), nor can temporary files: nothing is recorded", chosen.root, error
        )
        return Run(spec, RunDirectory(chosen.root / spec.name), chosen, NO_DIRECTORY)
    logger.warning(
        "mlops: %s can't be used for runs (%s): this run is recorded in %s", chosen.root, error, run.directory
    )
    return run


def _script_name() -> str:
    script = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in {"", "-", "-c", "-m"} else ""
    return script.strip("_") or "run"
