"""Real training processes, their real uploaders and a faulty server, on the real clock; processes are killed."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from conservation import START, Content, Held, LogCall, differences, log_calls
from faulty_server import FaultyServer, Request
from mlops_integrations.journal.records import Metrics
from real_mlflow import MlflowServer, eventually
from trainer import Trainer, side_processes

CALLS = 500

SCRIPT = """
import mmap, random, struct, time
import mlops_integrations as mlops
from conservation import log_calls, perform
with open('returned', 'r+b') as file:
    returned = mmap.mmap(file.fileno(), 8)
run = mlops.start_run(experiment_name='conservation', run_name='run', resume={uid!r})
for number, call in enumerate(log_calls({seed}, {calls})):
    if number >= {first}:
        perform(run, call)
        struct.pack_into('q', returned, 0, number + 1)
        time.sleep(random.uniform(0.0, 0.02))
run.finish(timeout=0.5)
"""
FRESH = """
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='conservation', resume={uid!r})
run.log_metric('fresh', 1.0, step=0, timestamp={time})
print(run.finish(timeout=90))
"""

_KILLED: list[tuple[str, str | None]] = [("KILLED", "SIGKILL"), ("FAILED", "process disappeared")]
_FINISHED: list[tuple[str, str | None]] = [("FINISHED", None)]


class RealWorld:
    """What one seed makes of it. A context manager: it leaves no process behind.

    Args:
        seed: what all is drawn from, but the moments at which signals hit.
        directory: an empty one.
        server: the server, in front of whatever holds the runs.
        held: what that holds of a uid.
        as_kept: how it keeps what was logged.
    """

    def __init__(
        self,
        seed: int,
        directory: Path,
        server: FaultyServer,
        held: Callable[[str], Held],
        as_kept: Callable[[Content], Content] = lambda content: content,
    ) -> None:
        self.tried: Counter[str] = Counter(seeds=1)
        self._seed = seed
        self._rng = random.Random(f"real world {seed}")
        self._server = server
        self._held = held
        self._as_kept = as_kept
        self._trainer = Trainer(directory)
        self._process: subprocess.Popen[str] | None = None
        self._uid: str | None = None
        self._calls = list(log_calls(seed, CALLS))
        self._caught: list[int] = []
        """Numbers of the calls that a kill has caught."""
        self._endings = _FINISHED
        """What may be said of how it ended."""
        self._moments = random.Random(f"moments {seed}")
        (directory / "returned").write_bytes(struct.pack("q", 0))
        server.on_request = self._perhaps_kill_the_uploader

    def __enter__(self) -> RealWorld:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self._process.communicate()
        for pid in side_processes(self._trainer.directory):
            os.kill(pid, signal.SIGKILL)
        self._server.__exit__()

    def play(self) -> None:
        """Train and deliver under fire, then in peace; raises what is not as it should be."""
        rng = self._rng
        while self._returned < CALLS and not (self._endings == _KILLED and rng.random() < 0.2):
            self._train(rng)
        self._server.on_request = lambda _request, _done: None
        self._server.calm()
        synced = self._trainer.sync(**self._variables)
        assert synced.returncode == 0, synced.stdout + synced.stderr
        self._check([])
        fresh = START + CALLS
        done = self._trainer.run(FRESH.format(uid=self._uid, time=fresh), **self._variables)
        assert done.stdout == "True\n", done.stderr
        self._endings = _FINISHED
        self._check([Metrics(fresh, [("fresh", 1.0, 0)])])

    @property
    def _variables(self) -> dict[str, str]:
        search = os.pathsep.join(entry for entry in sys.path if entry)
        return {"MLFLOW_TRACKING_URI": self._server.uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "PYTHONPATH": search}

    @property
    def _returned(self) -> int:
        """How many of the calls had returned, or were caught before they could."""
        return int(struct.unpack("q", (self._trainer.directory / "returned").read_bytes())[0])

    def _train(self, rng: random.Random) -> None:
        """One training process, from its start to its end or death."""
        first = self._returned
        script = SCRIPT.format(uid=self._uid, seed=self._seed, calls=CALLS, first=first)
        process = self._process = self._trainer.start(script, **self._variables)
        mark = first
        while True:
            mark += rng.randint(1, 120)
            eventually(lambda mark=mark: self._returned >= min(mark, CALLS) or process.poll() is not None)
            if self._returned >= CALLS or process.poll() is not None:
                _, err = process.communicate(timeout=60)
                assert process.returncode == 0, err
                self._uid, self._endings = self._trainer.uid, _FINISHED
                return
            self._uid = self._trainer.uid
            victims = rng.choice(["uploader", "trainer", "both"])
            if victims != "trainer":
                self._kill_uploaders()
            if victims != "uploader":
                process.kill()
                process.communicate()
                self.tried["trainer killed"] += 1
                # It may have come to its end in the moment before.
                self._endings = _KILLED if self._returned < CALLS else [*_KILLED, *_FINISHED]
                self._pass_over_the_caught_one()
                return

    def _pass_over_the_caught_one(self) -> None:
        caught = self._returned
        if caught < CALLS:
            self._caught.append(caught)
            (self._trainer.directory / "returned").write_bytes(struct.pack("q", caught + 1))

    def _kill_uploaders(self) -> None:
        for pid in side_processes(self._trainer.directory):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.tried["uploader killed"] += 1

    def _perhaps_kill_the_uploader(self, _request: Request, _done: bool) -> None:
        """While it waits for an answer: before what it asks for is done, or after."""
        if self._moments.random() < 0.01:
            self._kill_uploaders()

    def _check(self, more: list[LogCall]) -> None:
        expected, caught = Content(), [call for number, call in enumerate(self._calls) if number in self._caught]
        acknowledged = [call for call in self._calls[: self._returned] if call not in caught] + more
        for call in acknowledged:
            expected.take(call)
        kept = self._as_kept(expected)
        held = self._held(self._uid or "")
        wrong = differences(kept, caught, held)
        ended = held.status, held.reason or None
        if ended not in self._endings:
            wrong.append(f"ended as {self._endings}, and the server says {ended}")
        assert [] == wrong, "\n".join(["", *wrong])
        self.tried.update({"log calls": len(acknowledged), "points": len(kept.points)} if more else {})


def held_by_mlflow(server: MlflowServer) -> Callable[[str], Held]:
    """What a real server has of a uid."""

    def look(uid: str) -> Held:
        runs = server.runs(uid)
        run = runs[0]
        copies = Counter((key, value, at, step) for key, step, at, value in server.points(run.info.run_id))
        tags = run.data.tags
        return Held(len(runs), copies, run.data.params, tags, run.info.status, tags.get("mlops.exit.reason"))

    return look
