"""The kernel's word on how a process ended, for real processes, waited for by their parent or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from mlops_integrations.journal import identity
from mlops_integrations.journal.records import Identity
from mlops_integrations.upload import exit_status

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system has no pidfd")

WAYS = {
    "exit 0": ("raise SystemExit(0)", 0),
    "exit 3": ("raise SystemExit(3)", 3 << 8),
    "os._exit 255": ("import os; os._exit(255)", 255 << 8),
    "SIGTERM": ("import os; os.kill(os.getpid(), 15)", signal.SIGTERM),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", signal.SIGKILL),
    "SIGSEGV": ("import os; os.kill(os.getpid(), 11)", signal.SIGSEGV),
}


class Child:
    """A process that ends in its way when it is told to."""

    def __init__(self, script: str) -> None:
        no_core = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); input(); "
        self.process = subprocess.Popen([sys.executable, "-S", "-c", no_core + script], stdin=subprocess.PIPE)
        fields = identity.stat_fields(self.process.pid)
        assert fields is not None
        self.identity: Identity = structs.replace(
            identity.me(), pid=self.process.pid, start_time=fields[identity.START_TIME_FIELD]
        )
        self.pidfd = exit_status.open_process(self.process.pid)

    def end(self, *, reap: bool) -> None:
        """Let it end, and wait for it as its parent, if so wanted."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.close()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        if reap:
            self.process.wait()

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill()
        self.process.wait()
        if self.pidfd is not None:
            os.close(self.pidfd)


@pytest.fixture(params=WAYS)
def child(request: pytest.FixtureRequest) -> Iterator[tuple[Child, int]]:
    """One of each way to end, with its wait status."""
    script, expected = WAYS[request.param]
    made = Child(script)
    yield made, expected
    made.close()


@pytest.fixture(scope="module")
def kernel_tells() -> bool:
    """Whether this kernel tells of a process that its parent has already waited for (Linux 6.15)."""
    made = Child("pass")
    try:
        made.end(reap=True)
        return exit_status.wait_status(made.identity, made.pidfd) is not None
    finally:
        made.close()


def test_process_that_lives(child: tuple[Child, int]) -> None:
    """It has not ended, and nothing is told of how."""
    process, _ = child
    assert process.pidfd is not None
    assert not exit_status.has_ended(process.pidfd)
    assert exit_status.wait_status(process.identity, process.pidfd) is None


def test_zombie(child: tuple[Child, int]) -> None:
    """A process that nobody has waited for shows its wait status, even to those who came too late for a descriptor."""
    process, expected = child
    process.end(reap=False)
    assert process.pidfd is not None
    assert exit_status.has_ended(process.pidfd)
    assert expected == exit_status.wait_status(process.identity, process.pidfd)
    assert expected == exit_status.wait_status(process.identity, None)


def test_process_that_was_waited_for(child: tuple[Child, int], kernel_tells: bool) -> None:
    """A descriptor opened in time still tells how it ended."""
    if not kernel_tells:
        pytest.skip("this kernel has no PIDFD_INFO_EXIT (Linux 6.15)")
    process, expected = child
    process.end(reap=True)
    assert process.pidfd is not None
    assert exit_status.has_ended(process.pidfd)
    assert expected == exit_status.wait_status(process.identity, process.pidfd)


def test_process_that_is_gone_without_a_descriptor() -> None:
    """Nothing tells any more: that is no answer, not a wrong one."""
    made = Child("raise SystemExit(3)")
    try:
        made.end(reap=True)
        assert exit_status.wait_status(made.identity, None) is None
        assert exit_status.open_process(made.process.pid) is None
    finally:
        made.close()


def test_another_process_of_the_same_number() -> None:
    """A zombie that began at another time is somebody else."""
    made = Child("raise SystemExit(3)")
    try:
        made.end(reap=False)
        assert exit_status.wait_status(structs.replace(made.identity, start_time="1"), None) is None
    finally:
        made.close()


def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the control group counts if it came after the first look; those before were others'."""
    events = tmp_path / "memory.events"
    monkeypatch.setattr(exit_status, "_memory_events", lambda _: events)
    events.write_text("low 0\nmax 3\noom 9\noom_kill 5\noom_group_kill 0\n")
    counter = exit_status.OomCounter(os.getpid())
    assert not counter.recently()
    events.write_text("low 0\nmax 3\noom 10\noom_kill 6\noom_group_kill 0\n")
    assert counter.recently()
    assert counter.recently()


def test_control_group_that_can_not_be_read() -> None:
    """Where there is none, nobody is said to have run out of memory."""
    assert not exit_status.OomCounter(2**22 + 1).recently()
    assert exit_status.OomCounter(os.getpid()).recently() is False
