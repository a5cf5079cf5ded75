"""Entry points that Lightning calls whenever it makes a Trainer or a Fabric, wherever this package is installed.

They are in the groups ``callbacks_factory`` (see pyproject.toml), and return no callbacks unless autologging is on, by
``autolog()`` or by ``MLOPS_AUTOLOG=1``. A mere installation must change nothing: nothing but the standard library is
imported before that is known, and nothing is ever raised.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

logger: Final = logging.getLogger("mlops_integrations")


def trainer_callbacks() -> list[Any]:
    """Return the callback that records a Trainer, if autologging is on."""
    return _made("trainer_callback")


def fabric_callbacks() -> list[Any]:
    """Return the callback that records a Fabric, if autologging is on."""
    return _made("fabric_callback")


def _made(maker: str) -> list[Any]:
    try:
        if not _is_wanted():
            return []
        from mlops_integrations.autologging import switch

        options = switch.lightning_options()
        if options is None:
            return []
        from mlops_integrations.lightning import _autolog

        return [getattr(_autolog, maker)(options)]
    except Exception as error:  # at the border to a training: whatever it is, it must not end that
        logger.warning("mlops: this training is not recorded: %s: %s", type(error).__name__, error)
        return []


def _is_wanted() -> bool:
    if "mlops_integrations.autologging.switch" in sys.modules:  # it decides: ``autolog()`` may have switched it off
        return True
    from mlops_integrations.config import settings

    return settings.is_true("MLOPS_AUTOLOG")
