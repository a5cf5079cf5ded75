"""Values on a device: never waited for by the log call, recorded with their own step, time and value, or counted.

A stand-in device: it works off its orders one after the other, when it is let.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.journal.records import Losses, Metrics, Record
from mlops_integrations.recording import device_values
from mlops_integrations.recording.run import Run

Read = Callable[[Path], list[Record]]


class Device:
    """Does what it is told, later."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.may_work = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while True:
            self.may_work.wait()
            order = self.orders.get()
            if order is None:
                return
            order()

    def stop(self) -> None:
        self.may_work.set()
        self.orders.put(None)
        self.thread.join(10)


class Tensor:
    """A tensor of the stand-in, or of the host."""

    shape = ()

    def __init__(self, device: Device | None, value: float, elements: int = 1) -> None:
        self.home = device
        self.value = value
        self.elements = elements
        self.device = types.SimpleNamespace(type="cpu" if device is None else "standin", stream=device)

    def numel(self) -> int:
        return self.elements

    def detach(self) -> Tensor:
        return self

    def new_empty(self, _shape: object, *, device: str, pin_memory: bool) -> Tensor:
        assert (device, pin_memory) == ("cpu", True)
        return Tensor(None, -1.0)

    def copy_(self, other: Tensor, *, non_blocking: bool) -> None:
        assert non_blocking

        def copy() -> None:
            self.value = other.value

        assert other.home is not None
        other.home.orders.put(copy)

    def become(self, value: float) -> None:
        """As ``fill_`` does: in place, in the device's own time."""

        def change() -> None:
            self.value = value

        assert self.home is not None
        self.home.orders.put(change)

    def item(self) -> float:
        assert self.home is None or not self.home.may_work.is_set(), "the log call reads the device itself"
        if self.elements != 1:
            raise ValueError("more than one element")
        return self.value

    def __float__(self) -> float:
        return self.item()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """The stand-in, not at work yet, and a torch that knows it."""
    made = Device()

    class Event:
        def __init__(self) -> None:
            self.reached = threading.Event()
            self.fault: list[str] = []

        def record(self, stream: Device) -> None:
            stream.orders.put(self.reached.set)

        def synchronize(self) -> None:
            assert self.reached.wait(30)
            if getattr(made, "fault", None):
                raise RuntimeError(made.fault)  # type: ignore[attr-defined]

    standin = types.SimpleNamespace(Event=Event, current_stream=lambda device: device.stream)
    torch = types.SimpleNamespace(standin=standin)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setenv("MLOPS_DEVICE_VALUES", "lazy")
    yield made
    made.stop()


def points(run: Run, read: Read) -> list[tuple[str, float | str, int]]:
    """What was recorded, in the order of the journal."""
    return [value for record in read(run.directory) if isinstance(record, Metrics) for value in record.values]


def losses(run: Run, read: Read) -> dict[str, int]:
    """The counts that the journal ends with."""
    return next((record.counts for record in reversed(read(run.directory)) if isinstance(record, Losses)), {})


def test_a_log_call_does_not_wait_for_the_device(device: Device, read: Read) -> None:
    """What is on the host is recorded at once; the device's value later, with the step and time of its log call."""
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(device, 0.5), "lr": 0.1}, step=7, timestamp=1_000)
    run.log_metrics({"lr": 0.2}, step=8)
    assert [("lr", 0.1, 7), ("lr", 0.2, 8)] == points(run, read)
    device.may_work.set()
    run.finish()
    assert ("loss", 0.5, 7) in points(run, read)
    times = [record.time for record in read(run.directory) if isinstance(record, Metrics)]
    assert times[0] == times[-1] == 1_000
    assert losses(run, read) == {}


def test_the_value_is_that_of_the_log_call(device: Device, read: Read) -> None:
    """A tensor that the training goes on to change in place was copied before."""
    run = mlops.start_run()
    loss = Tensor(device, 0.0)
    for step in range(5):
        loss.become(float(step))
        run.log_metrics({"loss": loss}, step=step)
    loss.become(-1.0)
    device.may_work.set()
    run.finish()
    assert [("loss", float(step), step) for step in range(5)] == points(run, read)


def test_of_several_devices_the_one_that_copies_is_waited_for(device: Device, read: Read) -> None:
    """Another one may be far behind, or ahead."""
    other = Device()
    other.may_work.set()
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(other, 0.25)}, step=0)
    run.finish()
    assert [("loss", 0.25, 0)] == points(run, read)
    other.stop()


def test_steps_left_out_count_on(device: Device, read: Read) -> None:
    """A value under way has its step already."""
    run = mlops.start_run()
    for _ in range(3):
        run.log_metrics({"loss": Tensor(device, 0.5)})
    device.may_work.set()
    run.finish()
    assert [0, 1, 2] == [step for _, _, step in points(run, read)]


def test_flush_waits_for_the_device(device: Device) -> None:
    """Not everything is on the server while a value is on its way to the journal."""
    with FakeMlflow() as server:
        run = mlops.start_run(tracking_uri=server.uri, uploader="thread")
        run.log_metrics({"loss": Tensor(device, 0.5)}, step=0)
        assert not run.flush(0.05)
        device.may_work.set()
        assert run.flush(30.0)
        (sent,) = server.runs.values()
        assert [("loss", 0.5, 0)] == [(key, value, step) for key, value, _, step in sent.metrics]
        assert run.finish()


def test_there_is_a_bound(device: Device, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above it values are taken in the log call, as without this."""
    monkeypatch.setattr(device_values, "MOST", 3)
    run = mlops.start_run()
    for step in range(5):
        run.log_metrics({"loss": Tensor(device, float(step))}, step=step)
    assert [("loss", 3.0, 3), ("loss", 4.0, 4)] == points(run, read)
    device.may_work.set()
    run.finish()
    assert {("loss", float(step), step) for step in range(5)} == set(points(run, read))


def test_a_device_that_fails(device: Device, read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Its values are lost, counted and said with what the device said; others are not."""
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(device, 0.5)}, step=0)
    device.fault = "device-side assert triggered"  # type: ignore[attr-defined]
    device.may_work.set()
    run.log_metrics({"lr": 0.1}, step=0)
    run.finish()
    assert [("lr", 0.1, 0)] == points(run, read)
    assert losses(run, read) == {"metric that is no number": 1}
    assert "device-side assert triggered" in caplog.text


def test_a_device_that_hangs(
    device: Device, read: Read, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end waits for its time; what has not arrived is counted, and is not recorded when it arrives after all."""
    monkeypatch.setenv("MLOPS_FINISH_TIMEOUT", "0.5")
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(device, 0.5), "acc": Tensor(device, 0.5)}, step=0)
    run.finish()
    assert losses(run, read) == {"device value that had not arrived at the end": 2}
    assert "had not arrived" in caplog.text
    run.log_metrics({"loss": Tensor(device, 0.25)}, step=1)
    device.may_work.set()
    run.finish()
    assert [("loss", 0.25, 1)] == points(run, read)
    assert losses(run, read) == {"device value that had not arrived at the end": 2}


def test_what_is_no_single_number_is_refused_at_once(device: Device, read: Read) -> None:
    """As without this."""
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(device, 0.5, elements=2)}, step=0)
    run.finish()
    assert losses(run, read) == {"metric that is no number": 1}


def test_a_log_call_while_a_value_is_recorded(device: Device, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal handler makes one, in the same thread: both are recorded, and neither waits for the other."""
    run = mlops.start_run()
    append = run._recorder.append

    def interrupted(record: Any, *given: Any, **named: Any) -> None:
        if isinstance(record, Metrics) and record.values[0][0] == "loss":
            run.log_metrics({"handler": Tensor(device, 1.0)}, step=0)
        append(record, *given, **named)

    monkeypatch.setattr(run._recorder, "append", interrupted)
    run.log_metrics({"loss": Tensor(device, 0.5)}, step=0)
    device.may_work.set()
    run.finish(timeout=20)
    assert [("loss", 0.5, 0), ("handler", 1.0, 0)] == points(run, read)
    assert losses(run, read) == {}


def test_by_default_the_log_call_waits(device: Device, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opt-in: a value under way does not survive the process."""
    monkeypatch.delenv("MLOPS_DEVICE_VALUES")
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(device, 0.5)}, step=0)
    assert [("loss", 0.5, 0)] == points(run, read)
    run.finish()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_it_to_its_parent(device: Device, read: Read) -> None:
    """The child ends at once, and the parent's value is recorded once."""
    run = mlops.start_run()
    run.log_metrics({"loss": Tensor(device, 0.5)}, step=0)
    child = os.fork()
    if child == 0:
        run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    device.may_work.set()
    run.finish()
    assert [("loss", 0.5, 0)] == points(run, read)


def test_interpreter_exit_waits_for_the_device(python: Any, tmp_path: Path, read: Read) -> None:
    """A script that ends without ``finish`` leaves nothing under way."""
    script = (
        "import threading, time, mlops_integrations as mlops\n"
        "class Array:\n"
        "    size = 1\n"
        "    def is_ready(self): return False\n"
        "    def copy_to_host_async(self): pass\n"
        "    def item(self): time.sleep(0.5); return 0.25\n"
        "    def __float__(self): return self.item()\n"
        "run = mlops.start_run()\n"
        "run.log_metrics({'loss': Array()}, step=3)\n"
        "print(run.directory)\n"
    )
    done = python(script, MLOPS_DEVICE_VALUES="lazy", MLOPS_DIR=str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    values = [record.values for record in read(Path(done.stdout.strip())) if isinstance(record, Metrics)]
    assert [[("loss", 0.25, 3)]] == values
