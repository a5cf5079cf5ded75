"""One log call on the training thread: ours in every situation, the peers, the floor, and what lies between.

``nox -s bench -- log_call`` runs all of it; every measurement is in a process of its own.
"""

from __future__ import annotations

import collections
import json
import mmap
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import alone, each_call, in_turns, per_call, save, some_work
from benchmarks.trackers import TRACKERS, quietly, some_metrics
from mlops_integrations.journal import records
from mlops_integrations.journal.records import Metrics
from mlops_integrations.journal.writer import lock_keeping_write

KEYS: Final = (1, 10, 100)
SITUATIONS: Final = {
    "alone": ("here, no server", ""),
    "beside a busy thread": ("here, no server", ""),
    "while the side process uploads": ("here", "server"),
    "while a thread uploads": ("here, thread", "server"),
    "server down": ("here", "http://127.0.0.1:9"),
    "from 4 threads": ("here, no server", ""),
}
BATCH_SECONDS: Final = 0.02
REPEATS: Final = 31


def line_of(keys: int) -> bytes:
    """What one of our log calls writes."""
    now = time.time_ns() // 1_000_000
    return records.frame(Metrics(now, [(key, value, 100) for key, value in some_metrics(keys).items()]))


def floors(directory: Path, keys: int) -> dict[str, Callable[[int], object]]:
    """What any logger could hope for: an append in memory, and one unbuffered write of the same bytes."""
    line, memory = line_of(keys), collections.deque[bytes](maxlen=10_000)
    fd = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return {"deque.append": lambda _: memory.append(line), "os.write": lambda _: os.write(fd, line)}


def suitable(call: Callable[[int], object]) -> int:
    """How many calls make a batch."""
    calls = 1
    while True:
        began = time.perf_counter()
        for number in range(calls):
            call(number)
        if time.perf_counter() - began > BATCH_SECONDS or calls >= 5_000:
            return calls
        calls *= 2


def one(name: str, keys: int, situation: str, uri: str) -> dict[str, Any]:
    """One tracker in this process: its call in turns with the floor's, then its distribution."""
    metrics = some_metrics(keys)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        directory = Path(temporary)
        os.chdir(directory)
        with quietly():
            tracker = TRACKERS[name](directory, uri)

            def call(step: int) -> object:
                return tracker.log(metrics, step)

            call(0)
            compared = {"tracker": call, **floors(directory, keys)}
            stop = beside(situation, call)
            batches = {key: per_call(what, suitable(what)) for key, what in compared.items()}
            found: dict[str, Any] = in_turns(batches, REPEATS if batches["tracker"]() < 1e-4 else 5)
            found["single calls"] = each_call(call, 20_000 if found["tracker"] < 1e-4 else 200, some_work)
            stop.set()
            tracker.close()
    return found


def beside(situation: str, call: Callable[[int], object]) -> threading.Event:
    """What else goes on in the process."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            sum(range(1_000))

    def logging() -> None:
        step = 0
        while not stop.is_set():
            call(step := step + 1)
            some_work()

    work = {"beside a busy thread": [busy], "from 4 threads": [logging] * 3}.get(situation, [])
    for target in work:
        threading.Thread(target=target, daemon=True).start()
    return stop


def ladder(keys: int) -> dict[str, float]:
    """What the distance to the floor is made of: each row does one thing more than the row before."""
    line, metrics = line_of(keys), some_metrics(keys)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        directory = Path(temporary)
        fd = os.open(directory / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        keeping = lock_keeping_write(directory)
        mapped = mapping(directory / "mapped")
        lock, write, clock = threading.RLock(), os.write, time.time_ns

        def record(step: int) -> Metrics:
            return Metrics(clock() // 1_000_000, [(key, value, step) for key, value in metrics.items()])

        def encoded(step: int) -> object:
            records.encode(record(step))
            return write(fd, line)

        def locked(step: int) -> object:
            framed = records.frame(record(step))
            with lock:
                return write(fd, framed)

        run = TRACKERS["here, no server"](directory, "")
        rows: dict[str, Callable[[int], object]] = {
            "mapped store": lambda _: mapped(line),
            "os.write": lambda _: write(fd, line),
            "lock-keeping write": lambda _: keeping and keeping(fd, line, len(line)),
            "os.write, and the clock": lambda _: (clock(), write(fd, line)),
            "and the record": lambda step: (record(step), write(fd, line)),
            "and JSON": encoded,
            "and the checksum": lambda step: write(fd, records.frame(record(step))),
            "and a lock": locked,
            "log_metrics": lambda step: run.log(metrics, step),
        }
        found = in_turns({name: per_call(row, 1_000 if keys < 100 else 200) for name, row in rows.items()}, REPEATS)
        run.close()
        return found


def mapping(path: Path) -> Callable[[bytes], None]:
    """Stores into a mapped file, over and over within a megabyte: what a log call would cost without a system call."""
    size = 1 << 20
    with path.open("wb+") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        memory = mmap.mmap(file.fileno(), size)
    place = 0

    def store(line: bytes) -> None:
        nonlocal place
        end = place + len(line)
        if end > size:
            place, end = 0, len(line)
        memory[place:end] = line
        place = end

    return store


def main() -> None:
    """Everything."""
    from real_mlflow import MlflowServer

    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        server = MlflowServer(Path(temporary), "--workers", "4")
        server.start()
        found: dict[str, Any] = {"ladder": {}, "here": {}, "peers": {}}
        try:
            for keys in KEYS:
                found["ladder"][keys] = alone("benchmarks.log_call", "ladder", str(keys))
                found["here"][keys] = {}
                for situation, (name, uri) in SITUATIONS.items():
                    uri = server.uri if uri == "server" else uri
                    found["here"][keys][situation] = alone("benchmarks.log_call", name, str(keys), situation, uri)
            for name in TRACKERS:
                found["peers"][name] = {
                    keys: alone("benchmarks.log_call", name, str(keys), "alone", server.uri) for keys in (1, 10)
                }
        finally:
            server.stop()
    save("log_call", found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ladder"]:
        print(json.dumps(ladder(int(sys.argv[2]))))
    elif len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])))
    else:
        main()
