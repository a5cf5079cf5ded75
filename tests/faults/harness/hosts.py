"""What a training process leaves behind, told from its journal, its server and what it said; and bad servers."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path

from fake_mlflow import FakeMlflow
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Losses, Metrics
from mlops_integrations.journal.rundir import RunDirectory
from real_mlflow import eventually

Point = tuple[str, float | str, int]


def points(directory: Path) -> list[Point]:
    """Every metric value in a run directory, in the order of its journal files."""
    return [item for record in records(directory) if isinstance(record, Metrics) for item in record.values]


def losses(directory: Path) -> dict[str, int]:
    """What the journal files say was lost, by reason."""
    last: dict[str, Losses] = {}
    for path in RunDirectory(directory).journals():
        reader = JournalReader(path)
        for record in reader:
            if isinstance(record, Losses):
                last[path.name] = record
        reader.close()
    counted: dict[str, int] = {}
    for record in last.values():
        for reason, count in record.counts.items():
            counted[reason] = counted.get(reason, 0) + count
    return counted


def records(directory: Path) -> list[object]:
    """Every record of a run directory."""
    found: list[object] = []
    for path in RunDirectory(directory).journals():
        reader = JournalReader(path)
        found += reader
        reader.close()
    return found


def said_lost(stderr: str) -> int:
    """How many losses the last word of a run tells of, all reasons together."""
    totals = re.findall(r"^mlops: not kept in all: (.*)$", stderr, re.MULTILINE)
    if not totals:
        return len(re.findall(r"^mlops: not kept: ", stderr, re.MULTILINE))
    return sum(int(number.replace(",", "")) for number in re.findall(r"([\d,]+) x ", totals[-1]))


def delivered(server: FakeMlflow, directory: Path, status: str) -> None:
    """Wait until a run is closed on the server, then see that the server holds what the journal holds, once."""
    run = RunDirectory(directory)

    def closed() -> bool:
        mine = [one for one in server.runs.values() if one.tags.get("mlops.uid") == run.spec().uid]
        # A thread that logs to the very end re-opens the run: the rest may come after the first FINISHED.
        return bool(mine) and (mine[0].metrics, mine[0].status) == (logged(directory), status)

    eventually(closed)
    check(server, directory, status)


def check(server: FakeMlflow, directory: Path, status: str) -> None:
    """The server holds one run with the status, and the journal's points."""
    uid = RunDirectory(directory).spec().uid
    (found,) = [one for one in server.runs.values() if one.tags.get("mlops.uid") == uid and not one.deleted]
    assert (logged(directory), status) == (found.metrics, found.status)


def logged(directory: Path) -> set[tuple[str, float | str, int, int]]:
    """The journal's points, as the server keeps them."""
    return {
        (key, value, record.time, step)
        for record in records(directory)
        if isinstance(record, Metrics)
        for key, value, step in record.values
    }


class SilentServer:
    """Accepts every connection and never answers; with ``drips``, begins to, a byte now and then. A context."""

    def __init__(self, *, drips: bool = False) -> None:
        self._drips = drips
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.asked = threading.Event()
        """Somebody has sent something."""
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> SilentServer:
        self._begin(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join()

    def _begin(self, target: object, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._begin(self._hold, connection)

    def _hold(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30.0)
            try:
                if connection.recv(1):
                    self.asked.set()
                if self._drips:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not self._over.wait(0.2):
                    connection.sendall(b" " if self._drips else b"")
            except OSError:
                return
