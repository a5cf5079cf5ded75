"""Wraps the Trainer's methods, since no hook notifies callbacks of an exception, or of the begin of an evaluation.

The wrappers do nothing for a Trainer that has no callback of ours. Imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final

from mlops_integrations.framework_support import patching


class TrainerListener:
    """Callback that is notified when a wrapped Trainer method starts or raises."""

    _is_bare = False
    """True if made without arguments, as by ``report_to``, or by autolog."""
    _is_extra = False
    """True if another callback records already."""
    _training = False
    _searching = False

    def _records(self, *, main: bool) -> bool:
        """True if it records in this process; ``main``: whether that is the main one."""
        raise NotImplementedError

    def _entering_train(self, trainer: Any, trial: Any) -> None:
        raise NotImplementedError

    def _entering_evaluation(self, trainer: Any, prefix: str) -> None:
        raise NotImplementedError

    def _left(self, error: BaseException) -> None:
        raise NotImplementedError

    def _search_done(self, best: Any) -> None:
        raise NotImplementedError

    def _search_left(self, error: BaseException) -> None:
        raise NotImplementedError


_entered: Final[ContextVar[Sequence[TrainerListener]]] = ContextVar("_entered", default=())
"""The callbacks of the Trainer that began to train last."""


def watch(trainer: type) -> None:
    """Wrap the methods of the Trainer's class, unless that is done."""
    patching.wrap_method(trainer, "train", before=_train_begins, failed=_train_failed)
    patching.wrap_method(trainer, "evaluate", before=_evaluation_begins, failed=_evaluation_failed)
    patching.wrap_method(trainer, "predict", before=_prediction_begins, failed=_evaluation_failed)
    patching.wrap_method(
        trainer, "hyperparameter_search", before=_search_begins, failed=_search_failed, done=_search_done
    )


def replaced(callback: TrainerListener) -> TrainerListener | None:
    """Return the Trainer's callback that this new one replaces, or None; each is returned once."""
    found = next((other for other in _entered.get() if type(other) is type(callback)), None)
    _entered.set([other for other in _entered.get() if other is not found])
    return found


def _callbacks(trainer: Any) -> list[TrainerListener]:
    """Return our callbacks of a Trainer. Beside one with arguments, a bare one records nothing."""
    handler = getattr(trainer, "callback_handler", None)
    found = [callback for callback in getattr(handler, "callbacks", ()) if isinstance(callback, TrainerListener)]
    chosen = next((callback for callback in found if not callback._is_bare), found[0] if found else None)
    for callback in found:
        callback._is_extra = callback._is_bare and callback is not chosen
    return found


def _recorder(trainer: Any) -> list[TrainerListener]:
    main = trainer.is_world_process_zero()
    return [callback for callback in _callbacks(trainer) if callback._records(main=main)]


def _train_begins(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _entered.set(_callbacks(trainer))
    for callback in _recorder(trainer):
        callback._entering_train(trainer, kwargs.get("trial", args[1] if len(args) > 1 else None))
    return args, kwargs


def _evaluation_begins(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], prefix: str = "eval") -> Any:
    for callback in _recorder(trainer):
        callback._entering_evaluation(trainer, kwargs.get("metric_key_prefix", args[2] if len(args) > 2 else prefix))
    return args, kwargs


def _prediction_begins(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _evaluation_begins(trainer, args, kwargs, "test")


def _train_failed(trainer: Any, error: BaseException) -> None:
    for callback in _recorder(trainer):
        callback._training = True  # also if it was told of the end before
        callback._left(error)


def _evaluation_failed(trainer: Any, error: BaseException) -> None:
    for callback in _recorder(trainer):
        if not callback._training:  # else the training reports it
            callback._left(error)


def _search_begins(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for callback in _recorder(trainer):
        callback._searching = True
    return args, kwargs


def _search_done(trainer: Any, best: Any) -> None:
    for callback in _recorder(trainer):
        callback._search_done(best)


def _search_failed(trainer: Any, error: BaseException) -> None:
    for callback in _recorder(trainer):
        callback._search_left(error)
