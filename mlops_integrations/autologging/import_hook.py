"""Calls a function as soon as a module has been imported; at once, if it is already.

For changes to a framework that need it imported, but must not import it. While modules are awaited, ``sys.meta_path``
has a finder that finds nothing itself: it asks the other finders, and has the module's own loader call us when it is
done. The finder is removed when the last awaited module has been imported.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

logger: Final = logging.getLogger("mlops_integrations")

_awaited: Final[dict[str, Callable[[], None]]] = {}
_lock: Final = threading.RLock()


def when_imported(name: str, then: Callable[[], None]) -> None:
    """Call ``then`` once the module of that name has been imported, in the thread that imports it.

    Args:
        name: the module's full name.
        then: the function. An exception that it raises is reported; the import succeeds all the same.
    """
    with _lock:
        if sys.modules.get(name) is None:
            _awaited[name] = then
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
            return
    _do(name, then)


def forget(name: str) -> None:
    """Stop waiting for this module."""
    with _lock:
        _awaited.pop(name, None)
        if not _awaited and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)


def _imported(name: str) -> None:
    with _lock:
        then = _awaited.get(name)
        forget(name)
    if then is not None:
        _do(name, then)


def _do(name: str, then: Callable[[], None]) -> None:
    try:
        then()
    except Exception as error:  # at the border to an import: whatever it is, it must not make that fail
        logger.warning("mlops: %s is not recorded: %s: %s", name, type(error).__name__, error)


class _Finder:
    """Finder at the front of ``sys.meta_path``, while modules are awaited."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return an awaited module's spec from the other finders, and have its loader call us; else None."""
        if name not in _awaited:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = None if find is None else find(name, path, target)
            if spec is not None:
                _tell(name, spec.loader)
                return spec  # type: ignore[no-any-return]  # what finders find
        return None


def _tell(name: str, loader: Any) -> None:
    """Have the loader call us after it has executed this module."""
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module: ModuleType) -> None:
        vars(loader).pop("exec_module", None)  # restored: a loader may be used again, to reload
        execute(module)
        _imported(name)

    try:
        loader.exec_module = exec_module
    except AttributeError:  # a loader that takes no attributes: such a module is not awaited
        logger.warning("mlops: %s is not recorded: call autolog() after it is imported", name)


_finder: Final[Any] = _Finder()
