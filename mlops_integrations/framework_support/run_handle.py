"""The run behind an integration: passed in, and never closed by us, or created from keywords when it is needed.

Integrations translate a framework's hooks into calls of a run; this is the part that all of them share.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlops_integrations.framework_support import lenient_start, patching
from mlops_integrations.journal import ending
from mlops_integrations.recording import active_runs, run_setup, start
from mlops_integrations.recording.recorder import DISABLED, FORKED
from mlops_integrations.recording.run import Run, adopted, recorder_of


def keywords_of_start_run(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor (its ``locals()``) that are keywords of ``start_run``."""
    return {name: arguments[name] for name in start.start_run.__kwdefaults__ or ()}


class RunHandle:
    """An integration's run. Can be pickled and made anywhere: it opens nothing before its run is asked for.

    Args:
        run: an open run, which is left open.
        options: keywords of ``start_run``, for a run of the integration's own.

    Raises:
        TypeError: ``run`` is not a Run.
        ValueError: both are given, or a keyword makes no sense.
    """

    def __init__(self, run: Run | None, options: Mapping[str, Any]) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        if run is not None and not isinstance(run, Run):
            # Users have no type checker.
            hint = f": did you mean experiment_name={run!r}?" if isinstance(run, str) else ""  # type: ignore[unreachable]
            raise TypeError(f"run= takes a Run, as start_run returns it, not {type(run).__name__}{hint}")
        if run is not None and given:
            raise ValueError(f"give run= or keywords of start_run, not both: {', '.join(sorted(given))}")
        if run is None:
            start.check(given)
        self._uid = run_setup.new_uid()
        """The uid for a run of our own: copies of the integration in other processes have the same."""
        self._run = run
        self._is_own = run is None
        self._borrows = False
        self._options = given
        self._begun = run is not None
        self._in_training = False
        self._pid = os.getpid()

    @property
    def prepared(self) -> Run:
        """The run without opening it: name, uid and directory are known, but nothing is recorded in it yet.

        The first log call opens it.
        """
        if self._is_in_worker:
            return lenient_start.absent(self._uid, FORKED)
        self._borrow()
        if self._run is None:
            self._run = lenient_start.prepare(self._options, self._uid)
        if not self._begun:
            recorder_of(self._run).when_opened = self._greet
        return self._run

    @property
    def run(self) -> Run:
        """The run; one of our own is opened now if it was not yet."""
        if self._pid != os.getpid() and not self._is_in_worker:
            self._adopt()
        run = self.prepared
        if not self._begun and not self._is_in_worker:
            lenient_start.begin(run)
            self._greet()
        return run

    @property
    def is_own(self) -> bool:
        """True if the run was created here, to be ended by us."""
        return self._is_own

    def borrow(self) -> None:
        """Used by autolog: prefer the user's open run (``start_run``), if there is one, over a run of our own.

        Decided when the run is first needed. The user has not asked for the integration by name; the run is left open.
        """
        self._borrows = self._is_own

    def _borrow(self) -> None:
        if self._borrows and self._run is None:
            self._run = active_runs.users_run()
            self._is_own = self._run is None
            self._begun = not self._is_own

    def keep(self, **options: object) -> None:
        """Add default keywords of ``start_run`` for a run of our own; no effect once that is prepared."""
        if self._is_own and self._run is None:
            fresh = {name: value for name, value in options.items() if value is not None}
            self._options = fresh | self._options

    def resume(self, uid: str, run_id: str | None = None) -> None:
        """Resume the run that a checkpoint names, unless the present run has begun or ``resume`` was given."""
        self._borrow()
        if self._is_own and not self._begun and "resume" not in self._options and uid != self.prepared.uid:
            self._run, self._options = lenient_start.prepared_again(self.prepared, self._options, uid, run_id)

    def share(self, rank: int, broadcast: Callable[[Any], Any]) -> None:
        """Record into the run of rank 0 in all processes that train together; each of them must make this call.

        Args:
            rank: this process's number.
            broadcast: returns, in each process, the value that rank 0 has passed to it; called once.
        """
        run = self.run if rank == 0 else None
        uid, directory, is_open = broadcast(None if run is None else (run.uid, str(run.directory), run.is_open))
        if run is None:
            joined = (
                lenient_start.join(self._options, uid, Path(directory), rank)
                if is_open
                else lenient_start.absent(uid, DISABLED)
            )
            self._run, self._is_own, self._begun = joined, True, True

    def began(self) -> None:
        """Called when the framework has begun to train (or to evaluate)."""
        if self._pid != os.getpid():
            self._adopt()
        if not self._in_training:
            self._in_training = True
            recorder_of(self.run).training_began()

    def ended(self, status: str = ending.FINISHED, reason: str | None = None) -> None:
        """Called when the training has ended. Ends a run of our own, without waiting; later log calls re-open it."""
        self._in_training = False
        recorder_of(self.run).training_ended(status, reason)
        if self._is_own:
            recorder_of(self.run).close(status, reason, timeout=0.0)

    def failed(self, error: BaseException) -> None:
        """Called when an exception has ended the training, as the framework reports."""
        self.ended(*ending.of_exception(error))

    def left(self, error: BaseException) -> None:
        """Called when the training has raised an exception, which the framework does not report.

        An interrupt or an exit need not be the end: users catch Ctrl-C to stop early and go on. So the run stays open;
        the end of the process, or of a notebook's cell, decides.
        """
        if isinstance(error, Exception):
            self.failed(error)
        elif self._in_training:
            self._in_training = False
            # At interpreter exit it is not known whether ``sys.exit`` ended it, and with which code.
            exits = isinstance(error, SystemExit)
            recorder_of(self.run).training_ended(*(ending.of_exception(error) if exits else ()))

    def requeued(self) -> None:
        """Called when the job is requeued, to go on later: the run stays RUNNING, however this process ends."""
        self._in_training = False
        recorder_of(self.run).training_ended()
        self.run.set_tag("mlops.requeued", "true")
        recorder_of(self.run).close(ending.RUNNING, None, timeout=0.0)

    def swallow(self, error: Exception) -> None:
        """Count and report an internal error in a hook; the training goes on."""
        try:
            recorder_of(self.prepared).swallow(error)
        except Exception:  # opening the run has failed
            patching.say_failure(error)

    @property
    def _is_in_worker(self) -> bool:
        """True for a copy in a process that only loads data."""
        return self._pid != os.getpid() and multiprocessing.current_process().daemon

    def _greet(self) -> None:
        """Announce the run when it begins, once."""
        if not self._begun:
            self._begun = True
            lenient_start.greet(self.prepared, self._options)

    def _adopt(self) -> None:
        """In a forked or spawned process that trains: record into the same run, by a journal file of this process."""
        self._pid = os.getpid()
        if self._run is not None and recorder_of(self._run).is_forked:
            self._run = adopted(self._run)

    def __deepcopy__(self, memo: dict[int, Any]) -> RunHandle:
        """Return a copy; before the run has begun, one for another run (a tuner copies callbacks for each trial)."""
        copied = RunHandle.__new__(RunHandle)
        vars(copied).update(self.__getstate__())
        if self._is_own and not self._begun:
            copied._uid, copied._run = run_setup.new_uid(), None
        return copied

    def __getstate__(self) -> dict[str, Any]:
        self._borrow()  # the user's run may not be found where the copy goes
        return vars(self) | {"_pid": 0, "_in_training": False}


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the unpickled attributes of an integration, by their current names."""
    earlier = {"_door": "_handle", "keeps_model": "_keeps_model"}
    return {earlier.get(name, name): value for name, value in state.items()}
