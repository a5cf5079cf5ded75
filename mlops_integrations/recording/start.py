"""``start_run``: from arguments and environment to an open run, in a directory that can be written."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from mlops_integrations.config.settings import Settings, from_arguments
from mlops_integrations.recording.run import Run
from mlops_integrations.recording.run_setup import announce, make_run, new_uid

logger: Final = logging.getLogger("mlops_integrations")


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
    mode: Literal["online", "offline", "disabled"] | None = None,
    uploader: Literal["process", "thread"] | None = None,
) -> Run:
    """Begin a run, recorded on disk from this moment and delivered in the background.

    Args:
        experiment_name: created if the server does not have it. Default: ``MLFLOW_EXPERIMENT_NAME``, then "Default".
        experiment_id: the server's id, instead of the name. Default: ``MLFLOW_EXPERIMENT_ID``.
        run_name: Default: the script's name.
        tracking_uri: ``http(s)://host[:port][/prefix]``. Default: ``MLFLOW_TRACKING_URI``. Without either, the run is
            recorded locally, and ``mlops-integrations sync`` delivers it.
        resume: the run to continue: a Run, its ``uid``, or its id on the server. Default: ``MLFLOW_RUN_ID``.
        parent: the run that this one belongs to, given in the same ways.
        params: recorded at once, as by ``log_params``.
        tags: recorded at once, as by ``set_tags``.
        directory: where run directories are made. Default: ``MLOPS_DIR``, then ``./mlops_runs``.
        mode: "online", "offline" (record only) or "disabled" (do nothing). Default: ``MLOPS_MODE``, then "online".
        uploader: delivers from a "process" of its own or a "thread". Default: ``MLOPS_UPLOADER``, then "process".

    Raises:
        ValueError: an argument makes no sense.
        RunDirectoryError: ``directory`` or ``MLOPS_DIR`` can't be written, or there is no run to resume.

    Example:
        with start_run(experiment_name="digits", params={"lr": 0.1}) as run:
            for step in range(100):
                run.log_metric("loss", 1 / (step + 1), step)
    """
    options = dict(locals())
    run = make_run(check(options), options, new_uid(), lenient=False, opened=True)
    announce(run, options, by_user=True)
    return run


def check(options: Mapping[str, Any]) -> Settings:
    """Return the settings from these keywords of ``start_run`` and the environment.

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
    return from_arguments(
        experiment_name=options.get("experiment_name"),
        experiment_id=options.get("experiment_id"),
        tracking_uri=options.get("tracking_uri"),
        resume=resume.uid if isinstance(resume, Run) else resume,
        directory=options.get("directory"),
        mode=options.get("mode"),
        uploader=options.get("uploader"),
    )
