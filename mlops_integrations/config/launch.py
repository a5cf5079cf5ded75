"""How this process was launched: its rank, job, user and script, for the tags of its runs."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from typing import Final

_JOB_VARIABLES: Final = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "TORCHELASTIC_RUN_ID")


def rank(environ: Mapping[str, str] | None = None) -> int:
    """Return this process's number among those that train together, as their launcher sets it; 0 without one."""
    env = os.environ if environ is None else environ
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        if env.get(name, "").isdecimal():
            return int(env[name])
    return 0


def job_tags(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the job that this process belongs to, as tags of its runs."""
    env = os.environ if environ is None else environ
    return {name: env[name] for name in _JOB_VARIABLES if env.get(name)}


def user_name() -> str | None:
    """Return the user's name, as MLflow's own client gives it; None if there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in a container with a foreign user id
        return None


def source() -> tuple[str, str]:
    """Return the running program and its kind (LOCAL or NOTEBOOK), as MLflow's own client names them."""
    notebook = os.environ.get("JPY_SESSION_NAME") or os.environ.get("VSCODE_NOTEBOOK")
    if "ipykernel" in sys.modules:
        return notebook or "notebook", "NOTEBOOK"
    return (sys.argv[0] if sys.argv and sys.argv[0] else "<console>"), "LOCAL"
