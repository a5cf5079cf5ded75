"""A training, its uploaders and a faulty server in one process, on a clock that only they move.

Journal, uploader, transport and server are the real ones. The trainer's process is a stand-in that is really killed;
an uploader is killed by an exception at any of its lines, which nothing of ours catches.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from msgspec import structs
from requests.adapters import HTTPAdapter

import mlops_integrations
from conservation import BAD_NAME, POISON, START, Content, LogCall, differences, held_by, log_calls
from fault_plan import SLOW, Plan
from faulty_server import FaultyServer, Request
from mlops_integrations.backends.registry import open_backend
from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access
from mlops_integrations.journal import cursor, identity
from mlops_integrations.journal.records import FORMAT, End, Header, Metrics, RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.server_calls import GaveUpError, InterruptedUploadError, UploadContext
from mlops_integrations.upload.uploader import Result, Uploader
from mlops_integrations.upload.writer_processes import WriterProcesses
from strict_store import Store

_PACKAGE = Path(mlops_integrations.__file__).parent
_MORTAL = tuple(str(_PACKAGE / name) for name in ("upload/", "backends/", "journal/cursor.py", "journal/files.py"))
"""The uploader's code."""
_WAITING = tuple(
    str(_PACKAGE / "upload" / name) for name in ("server_calls.py", "writer_processes.py", "fsync.py", "exit_status.py")
)
"""Its code that runs while it waits, which is most of the time: elsewhere death is more interesting."""
_IN_VAIN_SECONDS = 0.03

# What is imported only when it is needed is imported now: else the first seed would count other lines than the rest.
open_backend("http://127.0.0.1:1", Access())


class Killed(BaseException):
    """The uploader's process is no more."""


@contextlib.contextmanager
def killed_at_line(number: int | None) -> Iterator[None]:
    """Kill what runs in this block at this line of the uploader's code, counted as they are executed."""
    if number is None:
        yield
        return
    left = number

    def line(_frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                sys.settrace(None)
                raise Killed
        return line

    def call(frame: FrameType, _event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        return line if name.startswith(_MORTAL) and name not in _WAITING else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """Nothing is killed in this block: it is another process, though it runs within the uploader's wait."""
    before = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(before)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Hasty(HTTPAdapter):
    """Does not wait long for an answer that will not come; as long as need be for any other."""

    def __init__(self, server: FaultyServer, perhaps_die: Callable[[], None]) -> None:
        super().__init__()
        self._server = server
        self._perhaps_die = perhaps_die

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        assert request.path_url is not None
        fault = self._server.foresee(Request("", request.path_url, b"").call)
        if fault in SLOW:
            options["timeout"] = (10.0, _IN_VAIN_SECONDS)
        try:
            response = super().send(request, **options)
        except requests.ReadTimeout:
            # However busy the machine is: what was to be done before the time-out is done.
            assert self._server.hung.acquire(timeout=60.0)
            raise
        self._perhaps_die()
        return response


class StandIn:
    """A training: real journal files, and a process that does nothing but live until it is killed."""

    def __init__(self, run: RunDirectory, spec: RunSpec, clock: Clock) -> None:
        self.acknowledged = Content()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.end: End | None = None
        """How it ended last; None: it lives, or was killed."""
        self.reaped = False
        """Nobody can see any more how it was killed, unless somebody watched it meanwhile."""
        self._run = run
        self._spec = spec
        self._clock = clock
        self._journal: JournalWriter | None = None

    def log(self, call: LogCall) -> None:
        """One log call that returns; it starts what is not running."""
        assert self._open().append(call)
        self.acknowledged.take(call)

    def _open(self) -> JournalWriter:
        if self._journal is None:
            if not self.processes or self.processes[-1].poll() is not None:
                # It ends with its standard input, so that it can't be left behind.
                self.processes.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
            pid = self.processes[-1].pid
            fields = identity.stat_fields(pid)
            assert fields is not None
            writer = structs.replace(identity.me(), pid=pid, start_time=fields[identity.START_TIME_FIELD])
            self._journal = JournalWriter(
                self._run.path, Header(FORMAT, self._spec.uid, writer, self._now(), ""), self._spec
            )
            self.end = None
        return self._journal

    def finish(self, status: str, reason: str | None) -> None:
        """It ends the run; the process lives on."""
        journal = self._open()
        self.end = End(self._now(), status, reason)
        assert journal.finish(self.end)
        self._journal = None

    def die(self, rng: random.Random) -> None:
        """SIGKILL, perhaps in the middle of a record."""
        journal = self._open()
        journal.close()
        if rng.random() < 0.5:
            with journal.path.open("ab") as file:
                file.write(b'00000000 {"type":"metrics","ti'[: rng.randint(1, 30)])
        self._journal = None
        self.processes[-1].kill()
        os.waitid(os.P_PID, self.processes[-1].pid, os.WEXITED | os.WNOWAIT)
        self.reaped = rng.random() < 0.5
        if self.reaped:
            self.processes[-1].wait()

    def close(self) -> None:
        """Nothing is left of it."""
        if self._journal is not None:
            self._journal.close()
        for process in self.processes:
            process.kill()
            process.communicate()

    def _now(self) -> int:
        return START + int(self._clock.now * 1000)


class World:
    """What one seed makes of it all. A context manager.

    Args:
        seed: what all is drawn from.
        directory: an empty one.
    """

    def __init__(self, seed: int, directory: Path) -> None:
        self.tried: Counter[str] = Counter(seeds=1)
        self._rng = rng = random.Random(f"world {seed}")
        self._clock = Clock()
        self._run = RunDirectory(directory)
        self.store = Store(keeps_duplicates=rng.random() < 0.3)
        self._poisoned = rng.random() < 0.3
        if self._poisoned:
            self.store.refuse_metric(POISON, *rng.choice([(400, "INVALID_PARAMETER_VALUE"), (500, "INTERNAL_ERROR")]))
        plan = Plan(f"plan {seed}", slow=2)
        self.server = FaultyServer(self.store, plan, prompt=self.store.keeps_duplicates, ahead=-5.0)
        self._uid = f"mlops-{seed:032x}"
        spec = RunSpec(self._uid, "run", START, experiment_name="conservation")
        self.training = StandIn(self._run, spec, self._clock)
        self._calls = log_calls(seed, rng.choice([20, 60, 150]), poison=self._poisoned)
        self._over = False
        self._pace = rng.choice([0.05, 0.3])
        self._deadly = rng.choice([0.0, 0.02])
        self._until = 0.0

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.training.close()
        self.server.__exit__()

    def play(self) -> None:
        """Train and deliver under fire, then in peace; raises what is not as it should be."""
        rng = self._rng
        self._train(rng.randint(1, 40))
        while not self._over or rng.random() < 0.5:
            self._upload()
            self._train(rng.randint(0, 10))
        self.server.calm()
        self._check("at the end", self._deliver_in_peace())
        self.training.log(Metrics(self.training._now(), [("fresh", 1.0, 0)]))
        self.training.finish("FINISHED", None)
        self._check("after a fresh record", self._deliver_in_peace())

    # -- the training -------------------------------------------------------------------------------------------

    def _train(self, count: int) -> None:
        rng = self._rng
        for _ in range(count):
            call = next(self._calls, None)
            chance = rng.random()
            if call is None:
                if not self._over:
                    self._over = True
                    self.training.die(rng) if chance < 0.4 else self.training.finish(*_ENDINGS[int(chance * 100) % 3])
                    self.tried["trainer killed"] += chance < 0.4
                return
            self.training.log(call)
            self.tried["log calls"] += 1
            if chance < 0.02:
                self.training.die(rng)
                self.tried["trainer killed"] += 1
            elif chance < 0.03:
                self.training.finish(*_ENDINGS[0])

    # -- its uploaders ------------------------------------------------------------------------------------------

    def _upload(self) -> None:
        """One uploader's life."""
        rng = self._rng
        self._until = self._clock.now + rng.choice([5.0, 60.0, 600.0])
        follows = rng.random() < 0.5
        line = int(10 ** rng.uniform(0.5, 4.0)) if rng.random() < 0.7 else None
        context = self._context(patience=None if follows else rng.choice([5.0, 60.0]))
        try:
            with killed_at_line(line), self._uploader(context) as uploader:
                uploader.follow() if follows else uploader.drain()
        except Killed:
            self.tried["uploader killed"] += 1
            self._lose_power()
        except InterruptedUploadError:
            self.tried["uploader stopped"] += 1
        except GaveUpError:
            self.tried["uploader gave up"] += 1

    def _perhaps_die(self) -> None:
        """When the server has done it, and before anybody could write that down."""
        if self._rng.random() < self._deadly:
            raise Killed

    def _lose_power(self) -> None:
        """Now and then it was the machine: the cursor, which is not brought to the disk each time, is empty."""
        for path in self._run.path.glob("cursor-*.json"):
            if self._rng.random() < 0.05:
                path.write_bytes(b"")
                self.tried["cursor lost"] += 1

    def _stop(self) -> bool:
        self.server.tick(self._clock.now)
        if self._rng.random() < self._pace:
            with spared():
                self._train(self._rng.randint(1, 3))
        return self._clock.now > self._until

    def _context(self, patience: float | None) -> UploadContext:
        context = UploadContext(clock=self._clock, sleep=self._clock.sleep, patience=patience, stop=self._stop)
        context.rng = random.Random(self._rng.random())
        return context

    @contextlib.contextmanager
    def _uploader(self, context: UploadContext) -> Iterator[Uploader]:
        with requests.Session() as session:
            session.mount("http://", Hasty(self.server, self._perhaps_die))
            transport = Transport(Access(), session)
            writers = WriterProcesses(self._run)
            try:
                backend = open_backend(self.server.uri, Access(), transport)
                yield Uploader(self._run, backend, self.server.uri, writers, context)
            finally:
                writers.close()

    def _deliver_in_peace(self) -> Result:
        self._until, self._pace, self._deadly = float("inf"), 0.0, 0.0
        with self._uploader(self._context(patience=600.0)) as uploader:
            return uploader.drain()

    # -- the oracle ---------------------------------------------------------------------------------------------

    def _check(self, when: str, result: Result) -> None:
        logged = self.training.acknowledged
        expected = Content(set(logged.points), logged.params, logged.tags)
        poison = expected.pop_poison()
        held = held_by(self.store)(self._uid)
        wrong = differences(expected, [], held)
        if (held.status, held.reason or None) not in self._endings():
            wrong.append(f"ended as {self._endings()}, and the server says {held.status}, {held.reason}")
        if result != Result(delivered=True, closed=True):
            wrong.append(str(result))
        wrong += [f"{text} would be lost in silence" for text in self.store.malformed]
        wrong += [f"credentials went to {place}" for place in self.server.strayed]
        made = sum(run.tags.get("mlops.uid") == self._uid for run in self.store.runs.values())
        if made - 1 > self.server.late_creations:
            wrong.append(f"{made} runs were made, the empty ones deleted")  # which is for those alone that come late
        wrong += self._about_the_cursor(poison)
        assert [] == wrong, "\n".join([when, *wrong])
        self.tried.update({"points": len(expected.points), "requests": len(self.server.requests)} if self._over else {})
        self.tried["poison"] += len(poison)

    def _endings(self) -> list[tuple[str, str | None]]:
        end = self.training.end
        if end is not None:
            return [(end.status, end.reason)]
        return [("KILLED", "SIGKILL"), ("FAILED", "process disappeared")][: 1 + self.training.reaped]

    def _about_the_cursor(self, poison: set[tuple[str, float | str, int, int]]) -> list[str]:
        (state,) = cursor.load_all(self._run.path)
        lines = self._run.refused.read_text().splitlines() if self._run.refused.exists() else []
        names = Counter(key for key, *_ in poison)
        aside = sum(state.refused.values())
        named = [line for line in lines if f'"{POISON}"' in line or f'"{BAD_NAME}"' in line]
        wrong = [] if state.covers(self._run.sizes(), self._run.ending()) else ["the cursor does not cover the journal"]
        wrong += [f"{aside} set aside, and {len(poison)} are poison"] * (aside != len(poison))
        wrong += [f"{len(lines) - len(named)} innocents set aside"] * (len(named) != len(lines))
        return wrong + [f"{names} not in refused.jsonl"] * (len(set(lines)) < len(poison))


_ENDINGS = [("FINISHED", None), ("FAILED", "ValueError: no"), ("KILLED", "SIGINT")]
