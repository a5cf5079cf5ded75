"""The side process: watches a training process, delivers its run, closes the run when the training process is gone.

Started by the absolute path of this file, isolated (``-I``): with ``-m`` the working directory would come first on
the search path, and a user's ``requests.py`` would win. The parent's search path comes last instead.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

_PACKAGE: Final = "mlops_integrations"
_GRACE_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 1.0
_OVERTIME_SECONDS: Final = 2.0


class TimeIsOverError(BaseException):
    """Raised in the middle of a request that does not end: like a kill, it loses nothing that is in the journal."""


def load_package() -> None:
    """Import the package that this file belongs to, and no other, whatever is on the search path."""
    package = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = module
    spec.loader.exec_module(module)
    handed_over = os.environ.pop("MLOPS_SEARCH_PATH", "").split(os.pathsep)
    sys.path += [entry for entry in handed_over if entry and entry not in sys.path]


def main(directory: str, parent: str, destination: str = "") -> None:
    """Run while there is something to do in a run directory, and time left to do it.

    Args:
        directory: the run directory.
        parent: pid of the training process and, after colons, our descriptor of it, if there is one, and its start
            time.
        destination: the server. Default: none, the run is only watched.
    """
    from mlops_integrations.config import settings
    from mlops_integrations.journal.rundir import RunDirectory
    from mlops_integrations.upload.worker import UploadWorker

    _begin_log()
    run_directory = RunDirectory(Path(directory))
    hours = _Hours(settings.linger())
    pid, _, rest = parent.partition(":")
    pidfd, _, start_time = rest.partition(":")
    delivery = UploadWorker(
        run_directory,
        "side process",
        lambda: hours.over(training_is_gone=delivery.writers.over),
        destination or None,
        settings.access(),
        {(int(pid), start_time or None): int(pidfd)} if pidfd else {},
        lambda leaving: run_directory.say_ready(leaving=leaving),
    )
    with contextlib.suppress(OSError):  # a disk that fails for a moment: the worker reports it and tries again
        delivery.writers.poll()
    run_directory.say_ready()
    hours.watch(lambda: delivery.writers.nobody_to_wait_for_now)
    try:
        delivery.run()
    except TimeIsOverError:
        logging.getLogger(_PACKAGE).info("time is over, in the middle of a request")
    except Exception:  # logged, which escapes it: its text may quote a server
        logging.getLogger(_PACKAGE).exception("failed")
        sys.exit(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # interpreter exit removes handlers: a signal would kill us
    run_directory.say_ready(leaving=True)
    logging.getLogger(_PACKAGE).info("done")


def _begin_log() -> None:
    logging.basicConfig(level=logging.INFO)
    logging.getLogger().handlers[0].setFormatter(_Plain("%(asctime)s %(process)d %(message)s"))
    logging.getLogger("urllib3").setLevel(logging.WARNING)


class _Plain(logging.Formatter):
    """Escapes control characters of terminals: the log will be read on one."""

    def format(self, record: logging.LogRecord) -> str:
        from mlops_integrations.untrusted import escaped

        return escaped(super().format(record), keep="\n")


class _Hours:
    """Time limit of a side process: while the training lives; then ``linger`` seconds, at most 5 after SIGTERM."""

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self._gone_at: float | None = None
        self._terminated = False
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._terminated = True

    def watch(self, is_gone: Callable[[], bool]) -> None:
        """Interrupt a request at the time limit: a server may take minutes, or send a byte now and then for ever."""

        def tick(_number: int, _frame: FrameType | None) -> None:
            try:
                gone = is_gone()
            except OSError:  # the directory can't be read now: checked again in a second
                return
            if self.over(training_is_gone=gone, overtime=_OVERTIME_SECONDS):
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise TimeIsOverError

        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, _TICK_SECONDS, _TICK_SECONDS)

    def over(self, *, training_is_gone: bool, overtime: float = 0.0) -> bool:
        now = time.monotonic()
        if not training_is_gone:
            self._gone_at = None
            return False
        self._gone_at = self._gone_at or now
        linger = min(_GRACE_SECONDS, self._linger) if self._terminated else self._linger
        return now - self._gone_at > linger + overtime


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):  # a session leader has its own session already
        os.setsid()
    load_package()
    from mlops_integrations.upload import side_process

    side_process.main(*sys.argv[1:])
