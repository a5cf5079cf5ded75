"""One uploader a run directory, whoever dies, stalls or asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from mlops_integrations.journal import identity, lease
from mlops_integrations.journal.lease import Holder, Lease

posix = pytest.mark.skipif(sys.platform == "win32", reason="nobody's death can be told here")

DEAD = {"start_time": "1"}
FOREIGN = {"host": "other", "boot_id": "other"}


def leave(directory: Path, *, age: float = 0.0, **elsewhere: Any) -> None:
    """A lease of somebody else in the directory, last renewed so many seconds ago."""
    holder = Holder(structs.replace(identity.me(), **elsewhere), "side process", "theirs")
    path = directory / "lease"
    path.write_bytes(msgspec.json.encode(holder))
    then = time.time() - age
    os.utime(path, (then, then))


def test_exclusive(tmp_path: Path) -> None:
    """Whoever is second gets it when the first has let go."""
    first, second = Lease(tmp_path, "thread"), Lease(tmp_path, "sync")
    assert first.acquire()
    assert not second.acquire()
    assert (first.held(), second.held()) == (True, False)
    second.release()
    assert first.held()
    first.release()
    assert second.acquire()


def test_one_that_could_not_be_let_go_of(tmp_path: Path) -> None:
    """It stays its holder's, who takes it again: a disk that fails for a moment must not hold it off for ever."""
    mine = Lease(tmp_path, "side process")
    assert mine.acquire()
    assert mine.acquire()
    assert not Lease(tmp_path, "side process").acquire()


def test_says_who_holds_it(tmp_path: Path) -> None:
    """Others read who it is, and that they would have to wait."""
    Lease(tmp_path, "thread").acquire()
    holder = lease.live_holder(tmp_path)
    assert holder is not None
    assert f"thread (process {os.getpid()} on {identity.me().host})" == str(holder)


@posix
@pytest.mark.parametrize(
    ("age", "elsewhere", "taken"),
    [
        (0.0, DEAD, True),
        (0.0, {}, False),
        (3600.0, {}, False),
        (0.0, FOREIGN, False),
        (30.0, FOREIGN, False),
        (120.0, FOREIGN, True),
        (0.0, {"pid_namespace": 1}, False),
        (120.0, {"pid_namespace": 1}, True),
    ],
)
def test_taking_over(tmp_path: Path, age: float, elsewhere: dict[str, Any], taken: bool) -> None:
    """From the dead at once, from the living never, from those who can't be judged when they renew it no more."""
    leave(tmp_path, age=age, **elsewhere)
    assert taken is (lease.live_holder(tmp_path) is None)
    mine = Lease(tmp_path, "sync")
    assert taken is mine.acquire()
    assert taken is mine.held()


def test_renewed_lease_stays(tmp_path: Path) -> None:
    """Renewing is what keeps others off who can't see the process."""
    mine = Lease(tmp_path, "side process")
    assert mine.acquire()
    path = tmp_path / "lease"
    os.utime(path, (1.0, 1.0))
    mine.renew()
    assert time.time() - path.stat().st_mtime < 30


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"[1, 2]", b'{"kind":"sync"}', b"\xff\xfe", b'{"kind":"\xff"}', b'{"later":' + b"[" * 100_000],
    ids=["empty", "torn", "other JSON", "part", "no text", "text that is none", "nested"],
)
def test_garbage_is_nobodys_lease(tmp_path: Path, garbage: bytes) -> None:
    """A lease that can't be read holds nobody off."""
    (tmp_path / "lease").write_bytes(garbage)
    assert lease.live_holder(tmp_path) is None
    assert Lease(tmp_path, "sync").acquire()


def test_lost_lease(tmp_path: Path) -> None:
    """A holder whose lease was taken notices, and leaves the new one alone."""
    mine = Lease(tmp_path, "side process")
    assert mine.acquire()
    leave(tmp_path)
    assert not mine.held()
    mine.release()
    holder = lease.read(tmp_path / "lease")
    assert holder is not None
    assert holder.token == "theirs"


def test_asking(tmp_path: Path) -> None:
    """A wish is seen by holders that yield, for a while, until it is fulfilled."""
    live, other, by_hand = Lease(tmp_path, "thread"), Lease(tmp_path, "sync", yields=False), Lease(tmp_path, "sync")
    assert (live.asked(), other.asked()) == (False, False)
    by_hand.ask()
    assert (live.asked(), other.asked()) == (True, False)
    os.utime(tmp_path / "lease.wanted", (1.0, 1.0))
    assert not live.asked()
    by_hand.ask()
    assert live.asked()
    by_hand.wish_fulfilled()
    assert not live.asked()


def test_leaves_no_other_files(tmp_path: Path) -> None:
    """However often it is tried for, the directory doesn't fill with leftovers."""
    leave(tmp_path, **FOREIGN)
    for _ in range(3):
        assert not Lease(tmp_path, "sync").acquire()
    assert {"lease", "lease.lock"} >= {path.name for path in tmp_path.iterdir()}


RACER = """
import json, sys, time
from pathlib import Path
from mlops_integrations.journal.lease import Lease

print(flush=True)
for line in sys.stdin:
    directory, at = json.loads(line)
    lease = Lease(Path(directory), "sync")
    while time.monotonic() < at:
        pass
    won = lease.acquire()
    print(json.dumps([won, lease.held()]), flush=True)
"""


@posix
def test_two_processes_race_for_a_dead_holders_lease(tmp_path: Path) -> None:
    """However close they come, exactly one gets it."""
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER], stdin=-1, stdout=-1, text=True, env=env) for _ in range(2)
    ]
    rounds = []
    try:
        for racer in racers:
            assert racer.stdout is not None
            racer.stdout.readline()
        for number in range(40):
            directory = tmp_path / str(number)
            directory.mkdir()
            leave(directory, **DEAD)
            at = time.monotonic() + 0.005
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(json.dumps([str(directory), at]) + "\n")
                racer.stdin.flush()
            rounds.append([json.loads(racer.stdout.readline()) for racer in racers if racer.stdout is not None])
    finally:
        for racer in racers:
            racer.communicate()
    assert [sum(won for won, _ in answers) for answers in rounds] == [1] * 40
    assert rounds == [[[won, won] for won, _ in answers] for answers in rounds]


PASSER = """
import sys, time
from pathlib import Path
from mlops_integrations.journal.lease import Lease

robbed = taken = 0
while taken < 400:
    lease = Lease(Path(sys.argv[1]), "sync")
    if lease.acquire():
        taken += 1
        time.sleep(0.0002)
        robbed += not lease.held()
        lease.release()
print(robbed)
"""


def test_lease_that_is_passed_on_all_the_time(tmp_path: Path) -> None:
    """Letting go and taking cross each other a thousand times: nobody's lease is taken while it holds it."""
    env = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = [sys.executable, "-c", PASSER, str(tmp_path)]
    passers = [subprocess.Popen(command, stdout=-1, text=True, env=env) for _ in range(3)]
    robbed = [int(passer.communicate(timeout=60)[0]) for passer in passers]
    assert robbed == [0, 0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_child_forked_while_the_lock_is_held(tmp_path: Path) -> None:
    """It has the lock's descriptor, too, but does not keep the lock."""
    import fcntl

    path = tmp_path / "lease.lock"
    with lease._exclusive(path):
        (held,) = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.exists() and fd.samefile(path)]
        of_child = os.dup(held)  # as a fork does to every descriptor
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)
        os.close(of_child)
