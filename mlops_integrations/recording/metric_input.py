"""Converts the arguments of metric calls into journal records, and reports values that can't be converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import Metrics, Value
from mlops_integrations.recording import values
from mlops_integrations.recording.device_values import Arriving, Call, DeviceValues
from mlops_integrations.recording.recorder import Recorder
from mlops_integrations.recording.values import NotANumberError


class MetricInput:
    """The steps, times and numbers of one run's metrics."""

    def __init__(self, recorder: Recorder, earlier: Sequence[Path] = ()) -> None:
        self._recorder = recorder
        self.steps: dict[str, int] = {}
        """The last step of each key."""
        self._device: DeviceValues | None = None
        if recorder.settings.device_values == "lazy":
            self._device = DeviceValues(recorder, self.number)
        self._earlier = list(earlier)
        """Journal files of a resumed run, to be read when a step is left out for the first time."""

    def metrics(self, metrics: Mapping[Any, object], step: object, timestamp: object, now: int) -> Metrics:
        """Return a call's metrics as a record; values that are not numbers are left out, counted and reported."""
        if type(step) is not int or not values.INT64_MIN <= step <= values.INT64_MAX:
            step = self.step(step)
        at = now if timestamp is None else self.time(timestamp, now)
        kept: list[tuple[str, Value, int]] = []
        late: list[tuple[str, Arriving, int]] = []
        for key, value in metrics.items():
            arriving = None if self._device is None else self._device.leave(value)
            number = self.number(key, value) if arriving is None else None
            if number is None and arriving is None:
                continue
            name = key if type(key) is str else values.text(key)
            if step is None:
                # Stored there, under the lock: another thread may have taken later steps since.
                own = self.next_step(name)
            else:
                own = self.steps[name] = step
            if arriving is not None:
                late.append((name, arriving, own))
            elif number is not None:
                kept.append((name, number, own))
        if self._device is not None and late:
            self._device.add(Call(at, late))
        return Metrics(at, kept)

    def settle(self, seconds: float) -> bool:
        """Wait until every value that lay on a device is recorded; False if ``seconds`` are not enough."""
        return self._device is None or self._device.wait(seconds)

    def step(self, step: object) -> int | None:
        """Return the step as an integer of 64 bits; None if each key's next step is to be taken."""
        if step is None:
            return None
        try:
            number, exact = values.step_number(step)
        except NotANumberError as error:
            text = "step %r: %s. Each key's next step is taken instead"
            self._recorder.messages.once_per("bad step", repr(step), text, step, error)
            return None
        if not exact:
            self._recorder.messages.once("step", "step %r is no integer: steps are rounded down", step)
        return number

    def next_step(self, key: str) -> int:
        """Take and return the key's next step: one past its last one, from 0."""
        with self._recorder.lock:
            if self._earlier:
                self.steps = last_steps(self._earlier) | self.steps
                self._earlier = []
            number = self.steps[key] = min(self.steps.get(key, -1) + 1, values.INT64_MAX)
            return number

    def time(self, timestamp: object, now: int) -> int:
        """Return the timestamp in ms since 1970; ``now``, with a warning, if it is not one."""
        try:
            number, _ = values.step_number(timestamp)
        except NotANumberError:
            number = -1
        if number < 0:
            text = "timestamp %r is no number of ms since 1970: the present time is taken"
            self._recorder.messages.once("time", text, timestamp)
            return now
        return number

    def number(self, key: object, value: object) -> Value | None:
        """Return the value as a number; None, counted and reported, if it is not one."""
        try:
            return values.number(value)
        except NotANumberError as error:
            name = values.text(key)
            self._recorder.lose("metric that is no number", 1, f"{name}: {error}", about=name)
            return None


def last_steps(journals: list[Path]) -> dict[str, int]:
    """Return the last step of each key in these files."""
    steps: dict[str, int] = {}
    for path in journals:
        reader = JournalReader(path)
        try:
            for record in reader:
                if isinstance(record, Metrics):
                    steps |= {key: step for key, _, step in record.values}
        finally:
            reader.close()
    return steps
