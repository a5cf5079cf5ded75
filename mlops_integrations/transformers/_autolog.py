"""Autologging of the Hugging Face Trainer: wraps ``Trainer.__init__`` to add a callback, as there is no other way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from transformers.trainer import Trainer  # the package itself may be in the middle of its import

from mlops_integrations.framework_support import patching
from mlops_integrations.transformers._callback import MLOpsCallback

_options: Final[dict[str, Any]] = {}
"""Keywords of ``start_run``."""


def switch_on(options: Mapping[str, Any]) -> None:
    """Record each Trainer that is made from now on, with these keywords of ``start_run``."""
    _options.clear()
    _options.update(options)
    patching.wrap_method(Trainer, "__init__", before=_before_init)


def switch_off() -> None:
    """Restore ``Trainer.__init__``."""
    patching.unwrap_method(Trainer, "__init__", before=_before_init)


def _before_init(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Add a callback to those of a Trainer that is being made."""
    given = patching.bound_arguments(Trainer.__init__, trainer, args, kwargs)
    if given is None:
        return args, kwargs
    callbacks = given.arguments.get("callbacks") or []
    reports = getattr(given.arguments.get("args"), "report_to", None) or []
    if "mlops" in reports or any(_is_ours(callback) for callback in callbacks):
        return args, kwargs
    given.arguments["callbacks"] = [*callbacks, MLOpsCallback._implicit(**_options)]
    return given.args[1:], given.kwargs


def _is_ours(callback: Any) -> bool:
    """True for a callback of ours, or its class: Trainers take both."""
    is_class = isinstance(callback, type) and issubclass(callback, MLOpsCallback)
    return is_class or isinstance(callback, MLOpsCallback)
