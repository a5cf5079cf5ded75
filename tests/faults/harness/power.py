"""What a machine's storage may hold after a power failure, worked out from what a process did before it.

A file's content is surely there up to its last fsync. Of what was written since, each page may be there or not, in any
order, and the file may be as long as it was at any moment in between; where a page is missing it is zeros. A new name,
or one that was replaced, is surely there after an fsync of its directory; before, each may be there or not. Content
that was put in place without an fsync may be cut, empty or zeros.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_watching: list[Trace] = []
_hooked: list[bool] = []


@dataclass
class Moment:
    """The state of things right after one system call."""

    sizes: dict[str, int]
    """Of the journal files."""
    durable: dict[str, int]
    """How much of each was surely on the device."""
    names: list[str]
    """Journal files whose names surely were."""
    small: dict[str, tuple[bytes, bool]]
    """Small files whose names surely were there, with their content, and whether that surely was."""
    recent: list[tuple[str, bytes, bool]]
    """The same of those put in place since the last fsync of the directory."""
    logged: int
    promised: int
    """How many records were logged, and how many of them surely survive, by what is promised."""
    server: Any


@dataclass
class Trace:
    """What was done in a run directory, call by call.

    Args:
        directory: the run directory.
        server: its state is kept along with every moment.
    """

    directory: Path
    server: Any
    moments: list[Moment] = field(default_factory=list)
    logged: int = 0
    promised: int = 0
    begun: int = 0
    """How many had been logged when the present writer began."""
    _durable: dict[str, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _small: dict[str, tuple[bytes, bool]] = field(default_factory=dict)
    _recent: list[tuple[str, bytes, bool]] = field(default_factory=list)
    _synced: set[str] = field(default_factory=set)
    _pending: tuple[str, bytes, bool] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[Trace]:
        """Note every fsync and every file put in place during this block."""
        if not _hooked:
            sys.addaudithook(_on_event)  # for ever: there is no way to take it back
            _hooked.append(True)
        fsync = os.fsync

        def noted_fsync(fd: int) -> None:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            fsync(fd)
            self._on_fsync(path)

        _watching.append(self)
        os.fsync = noted_fsync  # type: ignore[assignment]
        try:
            yield self
        finally:
            os.fsync = fsync
            _watching.remove(self)

    def content(self) -> dict[str, bytes]:
        """The journal files as they are now, which is how they began at every moment before."""
        return {path.name: path.read_bytes() for path in self.directory.glob("journal-*.jsonl")}

    def note(self) -> None:
        """A moment at which power may fail."""
        if self._pending is not None:
            self._recent.append(self._pending)
            self._pending = None
        sizes = {path.name: path.stat().st_size for path in self.directory.glob("journal-*.jsonl")}
        kept = copy.deepcopy((self.server.experiments, self.server.runs))
        self.moments.append(
            Moment(
                sizes,
                dict(self._durable),
                sorted(self._names),
                dict(self._small),
                list(self._recent),
                self.logged,
                self.promised,
                kept,
            )
        )

    def _on_fsync(self, path: Path) -> None:
        if path == self.directory:
            self.note()
            self._names |= {name.name for name in path.glob("journal-*.jsonl")}
            # Without an fsync of its own, content in place may still be missing: the name alone is sure.
            self._small |= {name: (content, sure) for name, content, sure in self._recent}
            self._recent = []
        elif path.parent == self.directory and path.suffix == ".jsonl":
            self._durable[path.name] = path.stat().st_size
        elif path.parent == self.directory:
            self._synced.add(path.name)
        self.note()

    def put_in_place(self, fresh: Path, path: Path) -> None:
        """A file is about to take this place."""
        if path.parent == self.directory and path.name.startswith(("cursor-", "journal-")):
            self.note()
            self._pending = path.name, fresh.read_bytes(), fresh.name in self._synced


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"os.rename", "os.link"} and _watching:
        _watching[-1].put_in_place(Path(os.fsdecode(arguments[0])), Path(os.fsdecode(arguments[1])))


def image(moment: Moment, content: dict[str, bytes], directory: Path, chance: random.Random) -> None:
    """Make the directory as power failing at this moment may leave it."""
    page = chance.choice([512, 4_096])
    for name, size in moment.sizes.items():
        if name not in moment.names and chance.random() < 0.5:
            continue
        sure = moment.durable.get(name, 0)
        end = chance.choice([sure, size, chance.randint(sure, size)])
        (directory / name).write_bytes(_pages(content[name], sure, end, page, chance))
    put = [(name, fresh, sure) for name, (fresh, sure) in moment.small.items()]
    put += [recent for recent in moment.recent if chance.random() < 0.5]
    for name, fresh, sure in put:
        (directory / name).write_bytes(fresh if sure else _unsure(fresh, chance))


def _pages(content: bytes, sure: int, end: int, page: int, chance: random.Random) -> bytes:
    made = bytearray(content[:sure] + bytes(end - sure))
    for begin in range(sure - sure % page, end, page):
        if chance.random() < 0.6:
            made[begin : begin + page] = content[begin : min(begin + page, end)]
    return bytes(made)


def _unsure(fresh: bytes, chance: random.Random) -> bytes:
    return chance.choice([fresh, fresh, b"", bytes(len(fresh)), fresh[: chance.randrange(len(fresh))]])
