"""The basis of the Lightning integration: base classes of either package, the rank, the status of an end.

Lightning exists twice, as ``lightning`` and as ``pytorch_lightning``, with classes of their own that only
a LightningCLI tells apart. Our bases are those of the packages that are imported when this module is; if neither is,
those of ``lightning`` if it is installed, else of ``pytorch_lightning``.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

from mlops_integrations.journal import ending

_PACKAGES: Final = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}


def _packages() -> list[Any]:
    imported = [name for name in _PACKAGES.values() if sys.modules.get(name) is not None]
    if imported:
        return [importlib.import_module(name) for name in imported]
    for package, name in _PACKAGES.items():
        try:
            return [importlib.import_module(name)]
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != package:  # it is installed: its own error says what is missing
                raise
    raise ImportError("Lightning is not installed: pip install lightning")


_found: Final = _packages()
_rank_zero_only: Final[Any] = _found[0].utilities.rank_zero.rank_zero_only  # both packages have the same one

Logger: Final[Any] = type("Logger", tuple(package.loggers.logger.Logger for package in _found), {})
Callback: Final[Any] = type("Callback", tuple(package.Callback for package in _found), {})


def rank() -> int:
    """This process's number among those that train together, as Lightning knows it."""
    return getattr(_rank_zero_only, "rank", 0)


def ending_of(status: str, error: BaseException | None) -> tuple[str, str | None]:
    """Return status and reason, from the status that a logger gets at the end and the exception being handled then."""
    if status == "success":
        return ending.FINISHED, None
    if error is None:
        return ending.FAILED, None
    kind, code = type(error).__name__, getattr(error, "exit_code", None)
    if kind == "SIGTERMException":  # of either package; the process will exit with code 0
        return ending.KILLED, "SIGTERM"
    if kind == "ProcessRaisedException":  # in a process that Lightning had started; the last line is its error
        return ending.FAILED, str(error).strip().rpartition("\n")[2] or kind
    if kind == "ProcessExitedException" and isinstance(code, int) and code < 0:  # a signal has ended such a process
        return ending.of_wait_status(-code)
    return ending.of_exception(error)
