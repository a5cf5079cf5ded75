"""Who is alive, dead or unknown: a death is concluded only where this machine can know it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from mlops_integrations.journal import identity
from mlops_integrations.journal.identity import Life, life_of
from mlops_integrations.journal.records import Identity

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.communicate()


def identity_of(pid: int) -> Identity:
    """The identity of another process of this machine."""
    fields = identity.stat_fields(pid)
    assert fields is not None
    return structs.replace(identity.me(), pid=pid, start_time=fields[identity.START_TIME_FIELD])


def booted() -> float:
    """When this machine was started, in seconds since 1970."""
    return time.time() - float(Path("/proc/uptime").read_text().split()[0])


def test_self() -> None:
    """This process lives, and knows everything about itself."""
    me = identity.me()
    assert Life.ALIVE is life_of(me)
    assert os.getpid() == me.pid
    assert None not in (me.boot_id, me.pid_namespace, me.start_time)


def test_child_that_lives_then_dies(child: subprocess.Popen[bytes]) -> None:
    """A neighbour is alive until it has ended, and dead when it is gone."""
    its = identity_of(child.pid)
    assert Life.ALIVE is life_of(its)
    child.communicate(b"\n")
    assert Life.DEAD is life_of(its)


def test_zombie(child: subprocess.Popen[bytes]) -> None:
    """A process that has ended and that nobody has waited for is dead, although its number is still taken."""
    its = identity_of(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(child.pid, 0)
    assert Life.DEAD is life_of(its)


def test_number_used_again() -> None:
    """A process of the same number that began at another time is another one."""
    assert Life.DEAD is life_of(structs.replace(identity.me(), start_time="1"))


def test_start_time_not_known() -> None:
    """Without a start time the number must do: nothing speaks for death."""
    assert Life.ALIVE is life_of(structs.replace(identity.me(), start_time=None))


def test_another_users_process() -> None:
    """The first process of the machine lives, whether we may signal it or not."""
    assert Life.ALIVE is life_of(identity_of(1))


@pytest.mark.parametrize(
    ("elsewhere", "since_boot", "life"),
    [
        ({"pid_namespace": 1}, -10.0, Life.UNKNOWN),
        ({"host": "other", "boot_id": "other"}, -10.0, Life.UNKNOWN),
        ({"host": "other", "boot_id": "other"}, None, Life.UNKNOWN),
        ({"boot_id": "earlier"}, -10.0, Life.DEAD),
        ({"boot_id": "earlier"}, +1.0, Life.UNKNOWN),
        ({"boot_id": "earlier"}, None, Life.UNKNOWN),
        ({"boot_id": "earlier", "pid_namespace": 1}, -10.0, Life.DEAD),
        ({"boot_id": None}, -10.0, Life.UNKNOWN),
    ],
)
def test_elsewhere(elsewhere: dict[str, object], since_boot: float | None, life: Life) -> None:
    """Another host or container can't be judged; an earlier boot of this host is dead, if its last sign is older."""
    last_sign = None if since_boot is None else booted() + since_boot
    assert life is life_of(structs.replace(identity.me(), **elsewhere), last_sign)


def test_program_name_with_brackets_and_spaces(tmp_path: Path) -> None:
    """The process's name in ``/proc/PID/stat`` may look like the fields behind it."""
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to(sys.executable)
    process = subprocess.Popen([odd, "-S", "-c", "print(flush=True); input()"], stdin=-1, stdout=-1, stderr=-3)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert Life.ALIVE is life_of(identity_of(process.pid))
        assert identity.me().start_time is not None
    finally:
        process.kill()
        process.communicate()
