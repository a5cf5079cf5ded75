"""``start_run``: from arguments and environment to an open run, in a directory that can be written."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from mlops_integrations.config import settings as settings_module
from mlops_integrations.config.settings import Settings
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import rundir
from mlops_integrations.journal.records import UID_PREFIX, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import active_runs, values
from mlops_integrations.recording.recorder import DISABLED, NO_DIRECTORY, now_ms
from mlops_integrations.recording.run import Run

logger: Final = logging.getLogger("mlops_integrations")

_ids_taken: Final[set[str]] = set()
"""Run ids of the environment that a run of this process goes on with already."""


def start_run(
    *,
    experiment_name: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    tracking_uri: str | None = None,
    resume: Run | str | None = None,
    parent: Run | str | None = None,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    directory: str | os.PathLike[str] | None = None,
    mode: str | None = None,
    uploader: str | None = None,
) -> Run:
    """Begin a run, recorded on disk from this moment and delivered in the background.

    Args:
        experiment_name: left out, ``MLFLOW_EXPERIMENT_NAME``, then "Default". Created if the server has none.
        experiment_id: instead of the name; left out, ``MLFLOW_EXPERIMENT_ID``.
        run_name: left out, the script's name.
        tracking_uri: ``http(s)://host[:port][/prefix]``; left out, ``MLFLOW_TRACKING_URI``; without it, the run is
            recorded locally, and ``mlops-integrations sync`` delivers it.
        resume: a run to go on with: a Run, its ``uid``, or its id on the server; left out, ``MLFLOW_RUN_ID``.
        parent: the run that this one belongs to, named likewise.
        params: recorded at once, as by ``log_params``.
        tags: recorded at once, as by ``set_tags``.
        directory: where run directories are made; left out, ``MLOPS_DIR``, then ``./mlops_runs``.
        mode: "online", "offline" (record only) or "disabled"; left out, ``MLOPS_MODE``.
        uploader: "process" or "thread"; left out, ``MLOPS_UPLOADER``.

    Raises:
        ValueError: an argument makes no sense.
        RunDirectoryError: ``directory`` or ``MLOPS_DIR`` can't be written, or there is no run to resume.
    """
    options = dict(locals())
    run = _made(check(options), options, new_uid(), lenient=False, opened=True)
    _greet(run, options, by_user=True)
    return run


def users_run() -> Run | None:
    """The run that ``start_run`` opened last and that is still open, or None: no door's own."""
    return active_runs.users_run()


def new_uid() -> str:
    """Our own id for a new run."""
    return UID_PREFIX + uuid.uuid4().hex


def check(options: Mapping[str, Any]) -> Settings:
    """The settings that these keywords of ``start_run`` and the environment make.

    Raises:
        ValueError: a keyword is unknown, or a value makes no sense.
    """
    known = set(start_run.__kwdefaults__ or ())
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"unknown keyword {unknown[0]!r}: start_run takes {', '.join(sorted(known))}")
    for name in ("params", "tags"):
        if options.get(name) is not None and not hasattr(options[name], "items"):
            raise ValueError(f"{name}= takes a mapping of names to values, not {type(options[name]).__name__}")
    uri = options.get("tracking_uri")
    if uri is not None and not hasattr(uri, "strip"):
        raise ValueError(f"tracking_uri= takes a text, not {type(uri).__name__}")
    for name in ("resume", "parent"):
        if not isinstance(options.get(name), (Run, str, type(None))):
            kind = type(options[name]).__name__
            raise ValueError(f"{name}= takes a Run, its uid or a server's run id as a text, not {kind}")  # noqa: TRY004
    resume = options.get("resume")
    return settings_module.from_arguments(
        experiment_name=options.get("experiment_name"),
        experiment_id=options.get("experiment_id"),
        tracking_uri=options.get("tracking_uri"),
        resume=resume.uid if isinstance(resume, Run) else resume,
        directory=options.get("directory"),
        mode=options.get("mode"),
        uploader=options.get("uploader"),
    )


def prepare(options: Mapping[str, Any], uid: str) -> Run:
    """A run with its directory, for doors: nothing is recorded in it, and nothing started, before it is begun.

    Never raises. Where nothing can be recorded, the run only counts what it loses.
    """
    try:
        return _made(check(options), options, uid, lenient=True, opened=False)
    except Exception as error:  # at the border to a training: whatever it is, it must not end that
        logger.warning("mlops: nothing is recorded, training goes on: %s: %s", type(error).__name__, error)
        return absent(uid, NO_DIRECTORY)


def absent(uid: str, reason: str) -> Run:
    """A run that is nowhere: it only counts what it loses, for this reason."""
    root = Path(tempfile.gettempdir())
    chosen = settings_module.from_arguments(directory=root, mode="disabled", environ={})
    return Run(RunSpec(uid=uid, name="run", start_time=now_ms()), RunDirectory(root), chosen, reason)


def begin(run: Run) -> None:
    """Begin to record a run that was prepared. Never raises."""
    try:
        run.recording.begin()
    except Exception as error:  # at the border to a training, as above
        run.swallow(error)


def greet(run: Run, options: Mapping[str, Any]) -> None:
    """Say where a run that has begun is recorded, and record what its maker gave. Never raises."""
    try:
        _greet(run, options)
    except Exception as error:  # as above
        run.swallow(error)


def prepared_again(run: Run, options: Mapping[str, Any], uid: str, run_id: str | None) -> tuple[Run, dict[str, Any]]:
    """Another run in place of one that was prepared and has recorded nothing: an earlier one, to go on with.

    Args:
        run: what was prepared.
        options: its keywords of ``start_run``.
        uid: the earlier run's.
        run_id: its id on the server, for where its directory is not at hand.

    Returns:
        The run, and its keywords. The prepared one with its own, if they name another experiment.
    """
    found = rundir.find_by_uid(check(options).root, uid)
    named = options.get("experiment_name")
    if found is not None and named is not None and found.spec().experiment_name != named:
        logger.warning("mlops: experiment_name=%r is another one than the checkpoint's: a new run is recorded", named)
        return run, dict(options)
    rundir.remove_if_empty(run.directory)
    chosen = dict(options) | {"resume": uid if found is not None or run_id is None else run_id}
    return prepare(chosen, new_uid()), chosen


def join(options: Mapping[str, Any], uid: str, directory: Path, rank: int) -> Run:
    """The run of the process of rank 0, in a process of a higher one. Never raises.

    Recorded in the same directory, if this machine has it, else in one of its own with the same uid.
    """
    try:
        chosen = check(options)
        run = RunDirectory(directory)
        if directory.is_dir() and run.spec().uid == uid:
            spec = run.spec()
        else:
            spec = _spec(chosen, uid, options.get("run_name"), options.get("parent"))
            run = rundir.make(chosen.root, spec.name, uid)
        joined = Run(structs.replace(spec, rank=rank), run, chosen)
        joined.recording.begin()
        active_runs.started(joined)
    except Exception as error:  # at the border to a training, as above
        logger.warning("mlops: nothing is recorded, training goes on: %s: %s", type(error).__name__, error)
        return absent(uid, NO_DIRECTORY)
    return joined


def _made(chosen: Settings, options: Mapping[str, Any], uid: str, *, lenient: bool, opened: bool) -> Run:
    resume = options.get("resume")
    spec = _spec(chosen, uid, options.get("run_name"), options.get("parent"))
    if chosen.mode == "disabled":
        return Run(spec, RunDirectory(chosen.root / spec.name), chosen, DISABLED)
    known = _find(chosen, resume, lenient=lenient)
    if known is None and not opened:
        known = rundir.find_by_label(chosen.root, uid)  # another copy of the door, in another process, has begun it
    try:
        if known is not None:
            run = _known(known, chosen)
        else:
            spec = structs.replace(spec, resume_run_id=_server_run(chosen, resume))
            run = Run(spec, rundir.make(chosen.root, spec.name, spec.uid), chosen)
        if opened:
            run.recording.open()
    except OSError as error:
        if chosen.root_is_explicit and not lenient:
            raise RunDirectoryError(f"{chosen.root} can't be used for runs: {error.strerror or error}") from None
        run = _made_elsewhere(spec, chosen, error, opened=opened)
    if chosen.resume:
        _ids_taken.add(chosen.resume)
    return run


def _greet(run: Run, options: Mapping[str, Any], *, by_user: bool = False) -> None:
    active_runs.started(run, by_user=by_user)
    run.recording.say_where()
    run.set_tags(settings_module.job_tags() | dict(options.get("tags") or {}))
    run.log_params(options.get("params") or {})


def _spec(chosen: Settings, uid: str, name: str | None, parent: Run | str | None) -> RunSpec:
    source_name, source_type = settings_module.source()
    spec = RunSpec(
        uid=uid,
        name=str(name) if name else _script_name(),
        start_time=now_ms(),
        tracking_uri=chosen.tracking_uri,
        experiment_name=chosen.experiment_name or settings_module.DEFAULT_EXPERIMENT,
        experiment_id=chosen.experiment_id,
        parent=parent.uid if isinstance(parent, Run) else parent,
        parent_directory=str(parent.directory) if isinstance(parent, Run) else None,
        user=settings_module.user_name(),
        source_name=source_name,
        source_type=source_type,
    )
    return values.well_formed_spec(spec)


def _find(chosen: Settings, resume: Run | str | None, *, lenient: bool) -> RunDirectory | None:
    """The run directory to go on in, if this machine has it."""
    if isinstance(resume, Run):
        return RunDirectory(resume.directory)
    if chosen.resume is None or (resume is None and chosen.resume in _ids_taken):
        return None
    if not chosen.resume.startswith(UID_PREFIX):
        return rundir.find_by_run_id(chosen.root, chosen.resume)
    found = rundir.find_by_uid(chosen.root, chosen.resume)
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
    """The server's run to go on with; the environment's only once in a process."""
    wanted = chosen.resume
    taken = resume is None and wanted in _ids_taken
    return None if not wanted or taken or wanted.startswith(UID_PREFIX) else wanted


def _known(known: RunDirectory, chosen: Settings) -> Run:
    first = known.spec()
    if chosen.tracking_uri is None and first.tracking_uri is not None and chosen.mode == "offline":
        # Nothing was said of a server this time: the run goes where it went before.
        chosen = replace(chosen, tracking_uri=first.tracking_uri)
    run = Run(structs.replace(first, tracking_uri=chosen.tracking_uri), known, chosen)
    known.reserve()
    run.goes_on_after(known.journals())
    return run


def _made_elsewhere(spec: RunSpec, chosen: Settings, error: OSError, *, opened: bool) -> Run:
    """A private directory for temporary files, where the default one can't be written; failing that, none."""
    try:
        root = Path(tempfile.mkdtemp(prefix="mlops_runs-"))
        root.chmod(0o700)  # a strange umask would keep even its owner out
        run = Run(spec, rundir.make(root, spec.name, spec.uid), replace(chosen, root=root))
        if opened:
            run.recording.open()
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
