"""The run behind an integration: passed in, and never closed by us, or created from keywords when it is needed.

Integrations translate a framework's hooks into calls of a run; this is the part that is the same in all of them.
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
    """The arguments of a constructor (its ``locals()``) that are keywords of ``start_run``."""
    return {name: arguments[name] for name in start.start_run.__kwdefaults__ or ()}


class RunHandle:
    """An integration's run. Can be pickled and made anywhere: it opens nothing before its run is asked for.

    Args:
        run: an open run, which is left open.
        options: keywords of ``start_run``, for a run of the integration's own.

    Raises:
        TypeError: ``run`` is none.
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
        """Of an own run: copies of the integration in other processes have the same."""
        self._run = run
        self._is_own = run is None
        self._borrows = False
        self._options = given
        self._begun = run is not None
        self._in_training = False
        self._pid = os.getpid()

    @property
    def prepared(self) -> Run:
        """The run with its name, ids and directory; of an own one nothing is recorded by asking for it.

        Who writes to it has begun it.
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
        """The run; its own one is opened now if it was not yet."""
        if self._pid != os.getpid() and not self._is_in_worker:
            self._adopt()
        run = self.prepared
        if not self._begun and not self._is_in_worker:
            lenient_start.begin(run)
            self._greet()
        return run

    @property
    def is_own(self) -> bool:
        """Whether the run was created here, to be ended by us."""
        return self._is_own

    def borrow(self) -> None:
        """Record into a run that the user has opened by ``start_run``, if one is open when an own one would begin.

        It is left open. Used by autolog, which nobody has asked for by name.
        """
        self._borrows = self._is_own

    def _borrow(self) -> None:
        if self._borrows and self._run is None:
            self._run = active_runs.users_run()
            self._is_own = self._run is None
            self._begun = not self._is_own

    def keep(self, **options: object) -> None:
        """Keywords of ``start_run`` for an own run, where its maker gave none and it has not begun."""
        if self._is_own and self._run is None:
            fresh = {name: value for name, value in options.items() if value is not None}
            self._options = fresh | self._options

    def resume(self, uid: str, run_id: str | None = None) -> None:
        """Go on with the run that a checkpoint names, unless an own one has begun or its maker said otherwise."""
        self._borrow()
        if self._is_own and not self._begun and "resume" not in self._options and uid != self.prepared.uid:
            self._run, self._options = lenient_start.prepared_again(self.prepared, self._options, uid, run_id)

    def share(self, rank: int, broadcast: Callable[[Any], Any]) -> None:
        """Record into the run of rank 0, in each of the processes that train together. All of them make this call.

        Args:
            rank: this process's number.
            broadcast: gives, in each process, what it was given in that of rank 0; called once.
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
        """The framework has begun to train (or to evaluate)."""
        if self._pid != os.getpid():
            self._adopt()
        if not self._in_training:
            self._in_training = True
            recorder_of(self.run).training_began()

    def ended(self, status: str = ending.FINISHED, reason: str | None = None) -> None:
        """It has come to its end. Ends an own run, without waiting; what is logged later re-opens it."""
        self._in_training = False
        recorder_of(self.run).training_ended(status, reason)
        if self._is_own:
            recorder_of(self.run).close(status, reason, timeout=0.0)

    def failed(self, error: BaseException) -> None:
        """This exception has ended the training, and the framework says so."""
        self.ended(*ending.of_exception(error))

    def left(self, error: BaseException) -> None:
        """This exception has left the training, of which the framework says nothing.

        An interrupt or an exit need not be the end: users catch Ctrl-C to stop early and go on. So the run stays open;
        how the process ends, or a notebook's cell, tells.
        """
        if isinstance(error, Exception):
            self.failed(error)
        elif self._in_training:
            self._in_training = False
            # An interpreter that exits does not tell whether ``sys.exit`` ended it, and with which code.
            exits = isinstance(error, SystemExit)
            recorder_of(self.run).training_ended(*(ending.of_exception(error) if exits else ()))

    def requeued(self) -> None:
        """The job goes back into its queue, to go on later: the run stays RUNNING, however this process ends."""
        self._in_training = False
        recorder_of(self.run).training_ended()
        self.run.set_tag("mlops.requeued", "true")
        recorder_of(self.run).close(ending.RUNNING, None, timeout=0.0)

    def swallow(self, error: Exception) -> None:
        """Our own failure in a hook: counted and said, the training goes on."""
        try:
            recorder_of(self.prepared).swallow(error)
        except Exception:  # it is the opening of the run that fails
            patching.say_failure(error)

    @property
    def _is_in_worker(self) -> bool:
        """Whether this is a copy in a process that only loads data."""
        return self._pid != os.getpid() and multiprocessing.current_process().daemon

    def _greet(self) -> None:
        """The run begins: once."""
        if not self._begun:
            self._begun = True
            lenient_start.greet(self.prepared, self._options)

    def _adopt(self) -> None:
        """In a forked or spawned process that trains: the same run, through a journal file of this process."""
        self._pid = os.getpid()
        if self._run is not None and recorder_of(self._run).is_forked:
            self._run = adopted(self._run)

    def __deepcopy__(self, memo: dict[int, Any]) -> RunHandle:
        """In this process, before it has begun: a handle of another run (a tuner copies callbacks for each trial)."""
        copied = RunHandle.__new__(RunHandle)
        vars(copied).update(self.__getstate__())
        if self._is_own and not self._begun:
            copied._uid, copied._run = run_setup.new_uid(), None
        return copied

    def __getstate__(self) -> dict[str, Any]:
        self._borrow()  # where the copy goes, the user's run may not be found
        return vars(self) | {"_pid": 0, "_in_training": False}


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """The unpickled attributes of an integration, by the names of today."""
    earlier = {"_door": "_handle", "keeps_model": "_keeps_model"}
    return {earlier.get(name, name): value for name, value in state.items()}
