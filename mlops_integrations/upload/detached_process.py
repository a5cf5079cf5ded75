"""Starts a process that is not our child, and watches it without being its parent.

A child of ours would disturb the host program: one that waits for *any* child (``os.wait()``) would be told of a
process that it does not know, one that waits until no child is left would wait for ever, and one that ends all its
children would end ours. So a shell starts it in the background, reports its pid and exits, within a millisecond.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from mlops_integrations.journal import identity
from mlops_integrations.journal.identity import Life

_SHELL: Final = Path("/bin/sh")
_BY_SHELL: Final = '"$@" >&2 & echo $!'
_BY_PYTHON: Final = """
import os, sys
pid = os.fork()
if pid:
    print(pid)
else:
    os.dup2(2, 1)
    os.execv(sys.argv[1], sys.argv[1:])
"""
"""Ten times as slow; used where there is no shell, as in some containers."""

_GLANCE_SECONDS: Final = 0.01
_STARTER_SECONDS: Final = 10.0


class DetachedProcess:
    """A process that was started in this way."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._identity = identity.of(pid)

    def ended(self) -> bool:
        """True once it has ended."""
        fields = identity.stat_fields(self.pid)
        if fields and fields[:2] == ["Z", str(os.getpid())] and self._is(fields):
            # The first process of a container adopts its orphans: if that is this one, reap the zombie.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            return True
        return identity.life_of(self._identity) is Life.DEAD

    def wait(self, seconds: float) -> bool:
        """Wait for its end; True if it has ended."""
        deadline = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_GLANCE_SECONDS)
        return True

    def _is(self, fields: Sequence[str]) -> bool:
        return fields[identity.START_TIME_FIELD] == self._identity.start_time


def start(
    command: Sequence[str], *, log: int, directory: Path, environment: Mapping[str, str], descriptors: Sequence[int]
) -> DetachedProcess:
    """Start a program in a session other than ours, with empty standard input.

    Args:
        command: the program and its arguments.
        log: a descriptor for its output.
        directory: its working directory.
        environment: all its variables.
        descriptors: other descriptors that it inherits.

    Raises:
        OSError: it can't be started.
    """
    by = [str(_SHELL), "-c", _BY_SHELL, "sh"] if os.access(_SHELL, os.X_OK) else [command[0], "-ISc", _BY_PYTHON]
    try:
        starter = subprocess.run(
            [*by, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=directory,
            env=environment,
            start_new_session=True,
            pass_fds=descriptors,
            timeout=_STARTER_SECONDS,
            check=False,
        )
        return DetachedProcess(int(starter.stdout))
    except subprocess.TimeoutExpired as late:
        if late.stdout:  # it runs: a process forked at that moment keeps the pipe open
            return DetachedProcess(int(late.stdout))
        raise OSError(f"{by[0]} does not start it within {_STARTER_SECONDS:g} s") from None
    except ValueError:
        raise OSError(f"{by[0]} could not start it") from None


def why_not(program: str) -> str | None:
    """Return why this program can't be started, if that is known beforehand."""
    if sys.platform == "win32":
        return "side processes are not supported on Windows"
    if not program:
        return "sys.executable is empty"
    return None if os.access(program, os.X_OK) else f"{program} can't be executed"
