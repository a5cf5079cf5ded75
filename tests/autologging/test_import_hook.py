"""Awaiting a module: told once it is there, and nothing else about imports changes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_integrations.autologging import import_hook

NAME = "a_module_to_await"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes the module that is awaited."""
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)

    def write_module(text: str) -> None:
        (tmp_path / f"{NAME}.py").write_text(text)
        importlib.invalidate_caches()

    yield write_module
    sys.modules.pop(NAME, None)
    import_hook.forget(NAME)
    assert before == sys.meta_path


def test_told_when_the_module_is_complete(write: Callable[[str], None]) -> None:
    """After its last line, once, and not when it is imported or reloaded again."""
    write("first = 1\nlast = 2\n")
    told: list[int] = []
    import_hook.when_imported(NAME, lambda: told.append(sys.modules[NAME].last))
    assert told == []
    module = importlib.import_module(NAME)
    assert told == [2]
    assert module.__spec__ is not None
    assert "exec_module" not in vars(module.__spec__.loader)
    importlib.reload(module)
    assert told == [2]


def test_told_at_once_of_what_is_there() -> None:
    """A module that was imported before."""
    told: list[str] = []
    import_hook.when_imported("json", lambda: told.append("json"))
    assert told == ["json"]


def test_a_module_that_fails_is_awaited_on(write: Callable[[str], None]) -> None:
    """Its error goes on to who imports it; the import that succeeds is the one we are told of."""
    write("raise OSError('no such file')\n")
    told: list[str] = []
    import_hook.when_imported(NAME, lambda: told.append(NAME))
    with pytest.raises(OSError, match="no such file"):
        importlib.import_module(NAME)
    assert told == []
    write("fine = True  # and longer than before\n")
    importlib.import_module(NAME)
    assert told == [NAME]


def test_what_we_do_then_may_fail(write: Callable[[str], None], caplog: pytest.LogCaptureFixture) -> None:
    """The import succeeds, and it is said."""
    write("fine = True\n")

    def fail() -> None:
        raise RuntimeError("our bug")

    import_hook.when_imported(NAME, fail)
    assert importlib.import_module(NAME).fine
    assert "a_module_to_await is not recorded: RuntimeError: our bug" in caplog.text


def test_a_module_that_there_is_not(write: Callable[[str], None]) -> None:
    """Its absence is as it would be without us."""
    import_hook.when_imported(NAME, lambda: None)
    with pytest.raises(ModuleNotFoundError, match=NAME):
        importlib.import_module(NAME)


def test_forgotten(write: Callable[[str], None]) -> None:
    """What is awaited no more is not told; forgetting twice is fine."""
    write("fine = True\n")
    told: list[str] = []
    import_hook.when_imported(NAME, lambda: told.append(NAME))
    import_hook.forget(NAME)
    import_hook.forget(NAME)
    importlib.import_module(NAME)
    assert told == []
