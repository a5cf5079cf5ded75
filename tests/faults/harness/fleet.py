"""Many runs on one server, on a clock that nobody waits for.

``python tests/faults/harness/fleet.py [RUNS ...]`` prints the table.

What decides when a run sends, and how long it waits after a failure, is the real code. The server is a queue before
some workers: a request costs some time, and more for each point; who comes when the queue is full is let in late or
never; what nobody waits for any longer is worked off all the same, for a server does not know.
"""

from __future__ import annotations

import functools
import heapq
import math
import random
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mlops_integrations.backends.transport import patience_after
from mlops_integrations.upload.pacing import Pacer, backoff

FULL: Final = 1_000
WORKERS: Final = 4
REQUEST_SECONDS: Final = 0.015
POINT_SECONDS: Final = 0.000_15
ACCEPT_QUEUE: Final = 2_048
CONNECT_SECONDS: Final = 10.0
PATIENCE: Final = 30.0
MOST_PATIENCE: Final = 120.0
OPENING_REQUESTS: Final = 6

BEGIN: Final = 600.0
"""When the server goes down, all runs having begun at 0."""
BACK: Final = 1_200.0
END: Final = 2_400.0
"""When all runs end, at once."""
GIVE_UP: Final = 40_000.0


@dataclass(slots=True)
class Request:
    """One request on its way."""

    run: Run
    points: int
    sent_at: float
    deadline: float
    over: bool = False


class World:
    """Time, and what happens next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._next: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Let this happen then."""
        self._count += 1
        heapq.heappush(self._next, (max(time, self.now), self._count, what))

    def run(self, until: float) -> None:
        """Let everything happen, up to a time."""
        while self._next and self._next[0][0] <= until:
            self.now, _, what = heapq.heappop(self._next)
            what()
        self.now = until


class Server:
    """A queue before some workers.

    Args:
        world: its time.
        announces: while it is down, something before it answers with the moment of its return.
    """

    def __init__(self, world: World, *, announces: bool = False) -> None:
        self.world = world
        self.is_up = True
        self.announces = announces
        self.arrivals: list[tuple[float, Run]] = []
        self.work_done = 0.0
        """Seconds of work for requests that somebody still waited for."""
        self.work_wasted = 0.0
        self.longest_queue = 0
        self._free = WORKERS
        self._queue: deque[Request] = deque()

    def take(self, request: Request) -> None:
        """A request comes."""
        world = self.world
        self.arrivals.append((world.now, request.run))
        if not self.is_up:
            wait = BACK - world.now if self.announces else None
            world.at(world.now + 0.001, lambda: request.run.failed(request, wait))
        elif len(self._queue) >= ACCEPT_QUEUE:
            world.at(world.now + CONNECT_SECONDS, lambda: request.run.failed(request))
        else:
            world.at(request.deadline, lambda: request.run.failed(request))
            self._queue.append(request)
            self.longest_queue = max(self.longest_queue, len(self._queue))
            self._work()

    def stop(self) -> None:
        """Go down, with all that waits."""
        self.is_up = False
        waiting, self._queue = self._queue, deque()
        for request in waiting:
            request.run.failed(request)

    def start(self) -> None:
        """Come up again."""
        self.is_up = True

    def _work(self) -> None:
        while self._free and self._queue:
            request = self._queue.popleft()
            self._free -= 1
            seconds = REQUEST_SECONDS + POINT_SECONDS * request.points
            self.world.at(self.world.now + seconds, functools.partial(self._done, request, seconds))

    def _done(self, request: Request, seconds: float) -> None:
        self._free += 1
        if request.over:
            self.work_wasted += seconds
        else:
            self.work_done += seconds
            request.over = True
            request.run.answered(request)
        self._work()


class Run:
    """One run: points come at an even rate; the uploader's decisions are the real ones."""

    def __init__(self, world: World, server: Server, rate: float, chance: random.Random) -> None:
        self.world = world
        self.server = server
        self.rate = rate
        self.delivered = 0
        self.caught_up_at: float | None = None
        """When, after the outage, all that was logged before its end was delivered."""
        self.done_at: float | None = None
        self.most_behind = 0.0
        """Seconds from a log call to the server, at most, while all was well."""
        self._chance = chance
        self._pacer = Pacer(chance)
        self._creation = OPENING_REQUESTS
        self._closing = 1
        self._attempt = 0
        self._patience = PATIENCE
        world.at(0.0, self.look)

    def logged(self) -> int:
        """Points that there are."""
        return int(min(self.world.now, END) * self.rate)

    def look(self) -> None:
        """Send, if it is time to; else look again when it is, or when there is something."""
        now, waiting = self.world.now, self.logged() - self.delivered
        ended = now >= END
        if self._creation:
            self._send(0)
        elif waiting:
            full = waiting >= FULL
            if self._pacer.may_send(now, full=full, hurry=ended):
                self._send(min(waiting, FULL))
            else:
                self.world.at(min(self._pacer.due, END) if not ended else self._pacer.due, self.look)
        elif ended and self._closing:
            self._send(0)
        elif not ended:
            self.world.at(min((self.delivered + 1) / self.rate + 1e-6, END), self.look)

    def _send(self, points: int) -> None:
        now = self.world.now
        self.server.take(Request(self, points, now, now + self._patience))

    def answered(self, request: Request) -> None:
        """The server has done it."""
        now = self.world.now
        self._attempt, self._patience = 0, patience_after(now - request.sent_at, PATIENCE)
        self._pacer.observe(now - request.sent_at, full=request.points >= FULL)
        if request.points:
            if now < BEGIN:
                self.most_behind = max(self.most_behind, now - self.delivered / self.rate)
            self.delivered += request.points
            if self.caught_up_at is None and now > BACK and self.delivered >= int(BACK * self.rate):
                self.caught_up_at = now
            self._pacer.sent(now)
        elif self._creation:
            self._creation -= 1
        else:
            self._closing -= 1
            self.done_at = now
        self.look()

    def failed(self, request: Request, retry_after: float | None = None) -> None:
        """It came to nothing, as far as the run can see."""
        if request.over:
            return
        request.over = True
        now = self.world.now
        if now >= request.deadline:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self._attempt += 1
        wait = backoff(self._attempt, retry_after, self._chance, now - request.sent_at)
        self.world.at(now + wait, lambda: self._send(request.points))


@dataclass
class Figures:
    """What became of it."""

    runs: int
    load: float
    """Work that cannot be saved, as a share of what the server can do."""
    used: float
    """What the server did in the last 100 s before the outage, as a share of what it can do."""
    behind: float
    """Seconds that a point took to the server at most, before the outage; the median run's."""
    herd: float
    """Share of the runs whose first request after the outage comes in one and the same second, at most."""
    queue: int
    """Requests that waited at most."""
    caught_up: float
    """Seconds from the server's return until the last run had what it had logged until then on the server."""
    least: float
    """The least that this can take: the work for that, and for what is logged meanwhile, in full requests."""
    fairness: float
    """The last run's time to catch up, to the median run's."""
    drained: float
    """Seconds from the end of all runs until all is delivered and closed."""
    least_drained: float
    """The least that this can take."""
    wasted: float
    """Share of the server's work that nobody waited for any more."""
    undelivered: int
    took: float = field(default=0.0, compare=False)


def simulate(runs: int, *, rate: float = 1.0, seed: int = 1, announces: bool = False) -> Figures:
    """So many runs that begin at once, lose their server for ten minutes, get it back, and end at once."""
    began = time.perf_counter()
    world = World()
    server = Server(world, announces=announces)
    fleet = [Run(world, server, rate, random.Random(f"{seed} {number}")) for number in range(runs)]
    world.run(BEGIN - 100.0)
    used = server.work_done + server.work_wasted
    world.run(BEGIN)
    used = (server.work_done + server.work_wasted - used) / (WORKERS * 100.0)
    server.stop()
    world.run(BACK)
    first, backlog = len(server.arrivals), _work(fleet)
    server.start()
    world.run(END)
    left = _work(fleet) + runs * REQUEST_SECONDS / WORKERS
    world.run(GIVE_UP)
    load = runs * rate * (POINT_SECONDS + REQUEST_SECONDS / FULL) / WORKERS
    caught = sorted((one.caught_up_at or GIVE_UP) - BACK for one in fleet)
    came = {run: at for at, run in reversed(server.arrivals[first:])}
    return Figures(
        runs=runs,
        load=load,
        behind=statistics.median(one.most_behind for one in fleet),
        used=used,
        herd=max(Counter(int(at) for at in came.values()).values()) / runs,
        queue=server.longest_queue,
        caught_up=caught[-1],
        least=backlog / (1.0 - load),
        fairness=caught[-1] / statistics.median(caught),
        drained=max((one.done_at or GIVE_UP) for one in fleet) - END,
        least_drained=left,
        wasted=server.work_wasted / (server.work_done + server.work_wasted),
        undelivered=sum(one.logged() - one.delivered for one in fleet),
        took=time.perf_counter() - began,
    )


def _work(fleet: list[Run]) -> float:
    """Seconds that the server needs for what waits."""
    waiting = [one.logged() - one.delivered for one in fleet]
    return sum(points * POINT_SECONDS + math.ceil(points / FULL) * REQUEST_SECONDS for points in waiting) / WORKERS


HEADER: Final = (
    f"{'runs':>6} {'load':>5} {'used':>5} {'behind':>8} {'herd':>6} {'queue':>6} {'caught up (least)':>20}"
    f" {'fairness':>8} {'drained (least)':>18} {'wasted':>6} {'left':>5}"
)


def row(one: Figures) -> str:
    """One line of the table."""
    caught, drained = (
        f"{took:.1f} s ({least:.1f})" for took, least in ((one.caught_up, one.least), (one.drained, one.least_drained))
    )
    return (
        f"{one.runs:6,} {one.load:5.0%} {one.used:5.0%} {one.behind:6.1f} s {one.herd:6.1%} {one.queue:6,} {caught:>20}"
        f" {one.fairness:8.1f} {drained:>18} {one.wasted:6.1%} {one.undelivered:5}"
    )


def main(numbers: list[str]) -> None:
    """Print the table."""
    for announces in (False, True):
        print("the server's return is announced" if announces else "the server refuses connections, then is back")
        print(HEADER)
        for number in numbers or ["1", "10", "100", "1000", "10000"]:
            print(row(simulate(int(number), announces=announces)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
