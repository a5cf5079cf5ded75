"""Values on a device (GPU): copied from there without waiting for it, and recorded when the copy has arrived.

Opt-in, ``MLOPS_DEVICE_VALUES=lazy``. Reading a value from a GPU waits until the GPU has computed it; a loop that
logs each step waits each step. Here the device is told to copy the value as it will be at this point of its work, and
a thread waits instead. Values that have not arrived when the process dies are lost: the one exception to "a returned
log call survives the process". Imports no framework: it uses the attributes of the value.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from mlops_integrations.journal.records import Metrics, Value
from mlops_integrations.recording.background import BackgroundQueue
from mlops_integrations.recording.recorder import Recorder
from mlops_integrations.recording.values import NotANumberError

MOST: Final = 1_000
"""Greatest number of values under way; further ones are waited for, as without this option."""

Arriving: TypeAlias = Callable[[], object]
"""Waits for a value's copy, and returns it."""


@dataclass(frozen=True, eq=False)
class Call:
    """The values of one log call that are to be recorded later."""

    time: int
    values: list[tuple[str, Arriving, int]]


class DeviceValues:
    """One run's values under way, in the order of their log calls, and the thread that records them."""

    def __init__(self, recorder: Recorder, number: Callable[[object, object], Value | None]) -> None:
        self._recorder = recorder
        self._number = number
        self._queue = BackgroundQueue("mlops-device-values", self._record)
        self._lock = threading.RLock()  # a signal handler of the same thread may log, too
        self._calls: set[Call] = set()
        """Calls under way: neither recorded nor given up."""
        self._under_way = 0
        """Number of their values."""
        recorder.before_end = self.settle

    def leave(self, value: object) -> Arriving | None:
        """Return a function that gets the value later; None if it is to be read now."""
        if self._recorder.off is not None or self._under_way >= MOST:
            return None
        return arriving(value)

    def add(self, call: Call) -> None:
        """Record these values when they have arrived; an ended run is re-opened now."""
        self._recorder.reopen()
        with self._lock:
            self._calls.add(call)
            self._under_way += len(call.values)
        self._queue.add(call)

    def settle(self, seconds: float) -> None:
        """Wait until all is recorded. Values that have not arrived in time are given up, counted and reported."""
        if self._queue.wait(seconds):
            return
        with self._lock:
            lost, self._under_way = self._under_way, 0
            self._calls.clear()
        if lost:
            self._recorder.lose("device value that had not arrived at the end", lost)

    def wait(self, seconds: float) -> bool:
        """Wait until all is recorded; False if ``seconds`` are not enough."""
        return self._queue.wait(seconds)

    def _record(self, call: Call) -> None:
        """Wait for the values of a log call, and record them, unless they were given up."""
        if call not in self._calls:
            return
        arrived = [(key, self._arrived(key, get), step) for key, get, step in call.values]
        kept = [(key, value, step) for key, value, step in arrived if value is not None]
        with self._lock:
            if call not in self._calls:
                return
            self._calls.remove(call)
            self._under_way -= len(call.values)
            if kept:
                self._recorder.append(Metrics(call.time, kept), len(kept), points=True)

    def _arrived(self, key: str, get: Arriving) -> Value | None:
        try:
            value = get()
        except Exception as error:  # foreign code, and a device that may have failed
            value = _Failed(f"{type(error).__name__}: {error}")
        return self._number(key, value)


class _Failed:
    """A value whose device has failed: reading it raises NotANumberError with the reason."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def item(self) -> float:
        raise NotANumberError(self._reason)


def arriving(value: object) -> Arriving | None:
    """Return a function that gets a device's value later; None if it is on the host, or has to be read now."""
    try:
        if hasattr(value, "copy_to_host_async"):
            return _from_jax(value)
        device = getattr(getattr(value, "device", None), "type", "cpu")
        return None if device == "cpu" else _from_torch(value, device)
    except Exception:  # a value that can't be read later says why when it is read now
        return None


def _from_torch(tensor: Any, device: str) -> Arriving | None:
    """Copy into page-locked memory in stream order: after the work queued so far, before later changes of the value."""
    module = getattr(sys.modules["torch"], device)
    if tensor.numel() != 1:
        return None
    tensor = tensor.detach()
    copy = tensor.new_empty(tensor.shape, device="cpu", pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied = module.Event()
    copied.record(module.current_stream(tensor.device))  # of the device that copies: there may be several

    def get() -> object:
        copied.synchronize()
        return copy

    return get


def _from_jax(array: Any) -> Arriving | None:
    """JAX's arrays are immutable; one that was donated since raises when it is read, which is counted."""
    if array.size != 1 or array.is_ready():
        return None
    array.copy_to_host_async()
    return lambda: array
