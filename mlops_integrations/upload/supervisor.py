"""Starts the uploader of a live run: a side process by default, else a thread of the training process.

The side process takes no share of the trainer's interpreter lock, goes on after the trainer has exited, and closes the
run of a trainer that died. The thread is for systems where no process can be started, and for users who ask for it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

from mlops_integrations.config.settings import Settings, access, side_process_environment
from mlops_integrations.journal import cursor, files, identity, lease
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.untrusted import escaped
from mlops_integrations.upload import detached_process
from mlops_integrations.upload.detached_process import DetachedProcess

logger: Final = logging.getLogger("mlops_integrations")

_READY_SECONDS: Final = 10.0
_MOST_FAILURES: Final = 3
_SCRIPT: Final = Path(__file__).with_name("side_process.py")


class Supervisor:
    """Makes sure that one run directory is delivered (or at least watched) while this process lives."""

    def __init__(self, directory: RunDirectory, settings: Settings) -> None:
        self._directory = directory
        self._settings = settings
        self._process: DetachedProcess | None = None
        self._thread: threading.Thread | None = None
        self._started_at = 0.0
        self._failures = 0
        self._said = False

    def start(self) -> None:
        """Start the side process or thread, unless one is at work."""
        if self._at_work():
            return
        if self._settings.uploader == "thread":
            self._start_thread()
        elif (why_not := _no_process_because()) is not None:
            self._fall_back(why_not)
        else:
            self._start_process()

    def check(self) -> None:
        """Check the side process, and replace one that has failed; to be called now and then."""
        process = self._process
        if process is None:
            return
        if not process.ended():
            late = time.monotonic() - self._started_at > _READY_SECONDS
            if late and self._directory.word_of(process.pid) is None and not self._has_thread():
                self._fall_back(f"not ready within {_READY_SECONDS:g} s")
            return
        self._process = None
        self._failures += self._directory.word_of(process.pid) != -process.pid  # one that exits in order says so before
        if self._work_is_left() and not self._has_thread():
            if self._failures < _MOST_FAILURES:
                self.start()
            else:
                self._fall_back(f"it failed {self._failures} times, {self._directory.log} may tell why")

    def wait_for_end(self, seconds: float) -> None:
        """Give a finished side process a moment to exit, so that no process is left behind after ``finish()``."""
        if self._process is not None and self._process.wait(seconds):
            self._process = None

    def _at_work(self) -> bool:
        if self._process is not None and not self._process.ended():
            return self._directory.word_of(self._process.pid) != -self._process.pid
        return self._has_thread() or lease.live_holder(self._directory.path) is not None

    def _has_thread(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _work_is_left(self) -> bool:
        ended = self._directory.ending()
        destination = self._settings.destination
        if destination is None or ended is None:
            return ended is None
        state = cursor.load(cursor.cursor_path(self._directory.path, destination))
        return state is None or not (state.stopped or state.covers(self._directory.sizes(), ended))

    def _start_process(self) -> None:
        self._started_at = time.monotonic()
        # The directory of the user's script comes last: it may hold a file named like a library.
        # Not every entry is text: users put a Path there, which the import system ignores.
        entries = [entry for entry in (*sys.path[1:], *sys.path[:1]) if isinstance(entry, str)]
        search_path = os.pathsep.join(entry for entry in entries if Path(entry).is_absolute())
        pidfd = _own_pidfd()
        try:
            log = files.open_private(self._directory.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                self._process = detached_process.start(
                    [
                        sys.executable,
                        "-I",
                        str(_SCRIPT),
                        str(self._directory.path),
                        _parent(pidfd),
                        self._settings.destination or "",
                    ],
                    log=log,
                    directory=self._directory.path,
                    environment=side_process_environment(self._settings, search_path),
                    descriptors=() if pidfd is None else (pidfd,),
                )
            finally:
                os.close(log)
        except (OSError, ValueError, RuntimeError) as error:
            self._fall_back(escaped(str(error)))
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _fall_back(self, reason: str) -> None:
        if self._settings.destination is None:
            if self._said:
                return
            self._said = True
            logger.warning(
                "mlops: the side process could not be started (%s): if this process is killed, "
                "its run will show that it disappeared, not how",
                reason,
            )
            return
        if self._start_thread():
            logger.warning("mlops: the side process could not be started (%s): a thread uploads instead", reason)

    def _start_thread(self) -> bool:
        if self._settings.destination is None:
            return False
        from mlops_integrations.upload.worker import UploadWorker

        worker = UploadWorker(
            self._directory, "thread", lambda: False, self._settings.destination, access(self._settings)
        )
        thread = threading.Thread(target=_run_thread, args=(worker,), name="mlops-uploader", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            logger.warning("mlops: no uploader could be started (%s): the run is recorded, `sync` delivers it", error)
            return False
        self._thread = thread
        return True


def _run_thread(worker: object) -> None:
    from mlops_integrations.upload.worker import UploadWorker

    assert isinstance(worker, UploadWorker)
    try:
        worker.run()
    except Exception:  # the top of a thread: a traceback out of it would land in the user's terminal
        logger.warning("mlops: the uploader thread failed; what is left waits for `sync`", exc_info=True)


def _no_process_because() -> str | None:
    return "this is a frozen program" if getattr(sys, "frozen", False) else detached_process.why_not(sys.executable)


def _own_pidfd() -> int | None:
    try:
        return os.pidfd_open(os.getpid()) if sys.platform == "linux" else None
    except OSError:
        return None


def _parent(pidfd: int | None) -> str:
    # With its start time: the run directory may hold journals of earlier processes with the same pid.
    return str(os.getpid()) if pidfd is None else f"{os.getpid()}:{pidfd}:{identity.me().start_time or ''}"
