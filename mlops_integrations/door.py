"""What every door has in its hand: a run given to it, which it leaves open, or one of its own, opened when needed.

Doors translate a framework's hooks into calls of a run; this is the part that is the same in all of them.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from mlops_integrations import start
from mlops_integrations.journal import ending
from mlops_integrations.run import Run

logger: Final = logging.getLogger("mlops_integrations")

Hook = TypeVar("Hook", bound=Callable[..., None])


def guarded(hook: Hook) -> Hook:
    """A framework's hook whose own failure is counted and said, and does not reach the training.

    For methods of classes that keep their door in ``_door``.
    """

    @functools.wraps(hook)
    def wrapper(self: Any, *args: object, **kwargs: object) -> None:
        try:
            hook(self, *args, **kwargs)
        except Exception as error:  # whatever it is, it must not end a training
            self._door.swallow(error)

    return cast("Hook", wrapper)


def keywords_of_start_run(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a door's arguments (its ``locals()``) that are keywords of ``start_run``."""
    return {name: arguments[name] for name in start.start_run.__kwdefaults__ or ()}


class Door:
    """Holds a door's run. Can be pickled and made anywhere: it opens nothing before its run is asked for.

    Args:
        run: an open run, which the door leaves open.
        options: keywords of ``start_run``, for a run of the door's own.

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
        self._run = run
        self._is_own = run is None
        self._options = given
        self._in_training = False

    @property
    def run(self) -> Run:
        """The run; its own one is opened now if it was not yet."""
        if self._run is None:
            self._run = start.start_inside_training(self._options)
        return self._run

    def began(self) -> None:
        """The framework has begun to train (or to evaluate)."""
        if not self._in_training:
            self._in_training = True
            self.run.training_began()

    def ended(self, status: str = ending.FINISHED, reason: str | None = None) -> None:
        """It has come to its end. Ends the door's own run, without waiting; what is logged later re-opens it."""
        self._in_training = False
        self.run.training_ended(status, reason)
        if self._is_own:
            self.run.close(status, reason, timeout=0.0)

    def failed(self, error: BaseException) -> None:
        """This exception left the training."""
        self.ended(*ending.of_exception(error))

    def swallow(self, error: Exception) -> None:
        """Our own failure in a hook: counted and said, the training goes on."""
        try:
            self.run.swallow(error)
        except Exception:  # it is the opening of the run that fails
            logger.warning("mlops: not recorded, training goes on; please report %r", error)
