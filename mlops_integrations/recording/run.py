"""``Run``, the class that users and integrations call. A log call appends to the journal; it waits for no server.

Inside training nothing here raises because of tracking: losses are counted by reason and reported once.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, cast, overload

from mlops_integrations.clock import now_ms
from mlops_integrations.config.settings import Settings
from mlops_integrations.journal import ending
from mlops_integrations.journal.records import Metrics, Params, Points, RunSpec, Tags
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import artifact_snapshots, call_style, process_exit, values
from mlops_integrations.recording.metric_input import MetricInput
from mlops_integrations.recording.recorder import LOOK_MS, Recorder

Method = TypeVar("Method", bound=Callable[..., None])


def never_raising(method: Method) -> Method:
    """Decorator: an internal error is counted and logged once; it never reaches the training."""

    @functools.wraps(method)
    def guarded(self: Run, *args: object, **kwargs: object) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # whatever it is, it must not end a training
            self._recorder.swallow(error)

    return cast("Method", guarded)


def shown_as(form: Callable[..., None]) -> Callable[[Method], Method]:
    """Decorator: ``help()`` and notebooks show the signature of ``form`` for a method that takes foreign calls too."""

    def show(method: Method) -> Method:
        method.__signature__ = inspect.signature(form)  # type: ignore[attr-defined]  # an attribute that inspect reads
        return method

    return show


def _metric(self: Run, key: str, value: object, step: int | None = None, timestamp: int | None = None) -> None: ...
def _text(self: Run, key: str, value: object) -> None: ...


class Run:
    """One run: recorded on disk at once, delivered in the background. Made by ``start_run``.

    A context manager: leaving the block ends the run as FINISHED, FAILED or KILLED. Several threads may log at the
    same time. In a forked child it does nothing, with a warning; unpickled, it records into the same run through a
    journal file of its own.
    """

    def __init__(
        self,
        spec: RunSpec,
        directory: RunDirectory,
        settings: Settings,
        off: str | None = None,
        earlier: Sequence[Path] = (),
    ) -> None:
        """``earlier``: journal files of other processes; a step that is left out continues after their last steps."""
        self._recorder = Recorder(spec, directory, settings, off, process_exit.opened)
        self._metric_input = MetricInput(self._recorder, earlier)
        self._params: dict[str, str] = {}

    @property
    def uid(self) -> str:
        """Our own id of the run, known at once."""
        return self._recorder.spec.uid

    @property
    def name(self) -> str:
        """The run's name."""
        return self._recorder.spec.name

    @property
    def directory(self) -> Path:
        """The run directory. With tracking disabled it does not exist."""
        return self._recorder.directory.path

    @property
    def run_id(self) -> str | None:
        """The server's id of the run; None while there is none."""
        state = self._recorder.view.now()
        return None if state is None else state.run_id

    @property
    def url(self) -> str | None:
        """The link to the run in the server's web pages; None while there is none."""
        state = self._recorder.view.now()
        return None if state is None else state.url

    @property
    def is_open(self) -> bool:
        """True while the run is recorded and has not ended."""
        return self._recorder.is_open

    def __repr__(self) -> str:
        return f"<Run {self.name!r} in {self.directory}>"

    # -- logging ------------------------------------------------------------------------------------------------

    def log_metrics(
        self,
        metrics: Mapping[str, object],
        step: int | None = None,
        timestamp: int | None = None,
        *extra: object,
        **unknown: object,
    ) -> None:
        """Record values, one for each key.

        Args:
            metrics: names and values: Python and NumPy numbers, booleans (1.0 and 0.0), arrays and tensors of one
                element. NaN and infinities are kept. Values that are not numbers are dropped, counted and reported.
            step: an integer of 64 bits. Default: one past the key's last step, from 0.
            timestamp: ms since 1970. Default: now.
            extra: arguments that other trackers accept and we do not: ignored, with one warning.
            unknown: keywords of that kind, ignored in the same way.
        """
        try:
            now = time.time_ns() // 1_000_000
            record: Points | Metrics | None = None
            plain = type(metrics) is dict and timestamp is None and not extra and not unknown
            if plain and type(step) is int and values.INT64_MIN <= step <= values.INT64_MAX:
                # Nearly every call: nothing to convert, nothing to report, the dict is written as it is.
                steps = self._metric_input.steps
                for key, value in metrics.items():
                    if type(value) is not float or value - value != 0.0 or type(key) is not str:
                        break
                    steps[key] = step
                else:
                    record = Points(now, step, metrics)  # type: ignore[arg-type]  # all were looked at
            if record is None:
                if extra or unknown:
                    call_style.say_left_out(self._recorder, "log_metrics", extra, unknown)
                record = self._metric_input.metrics(metrics, step, timestamp, now)
            recorder = self._recorder
            if record.values:
                recorder.append(record, len(record.values), points=True)
            if not 0 < recorder.look_at - now <= LOOK_MS:
                recorder.look(now)
        except Exception as error:  # the border of the hot path; as in never_raising, without the cost of its call
            if hasattr(metrics, "items"):
                self._recorder.swallow(error)
            else:
                call_style.lose_no_mapping(self._recorder, "log_metrics", metrics)

    @overload
    def log_metric(self, key: str, value: object, step: int | None = None, timestamp: int | None = None) -> None: ...
    @overload
    def log_metric(self, *given: object, **named: object) -> None: ...
    @shown_as(_metric)
    def log_metric(self, *given: Any, **named: Any) -> None:
        """Record one value; see :meth:`log_metrics`."""
        if 2 <= len(given) <= 4 and type(given[1]) is not str and not named:
            self.log_metrics({given[0]: given[1]}, *given[2:])
        else:
            self._log_one("log_metric", given, named)

    @never_raising
    def log_params(self, params: Mapping[str, object], *extra: object, **unknown: object) -> None:
        """Record parameters, each once.

        Args:
            params: names and values of any kind, kept as ``str(value)``; nested mappings are flattened with ``/``.
                The same value again is ignored; another value is not kept, but counted and reported.
            extra: arguments that other trackers accept and we do not: ignored, with one warning.
            unknown: keywords of that kind, ignored in the same way.
        """
        if extra or unknown:
            call_style.say_left_out(self._recorder, "log_params", extra, unknown)
        if not hasattr(params, "items"):
            call_style.lose_no_mapping(self._recorder, "log_params", params)
            return
        fresh = {}
        with self._recorder.lock:
            for key, value in values.texts(params):
                known = self._params.get(key)
                if known is None:
                    self._params[key] = fresh[key] = value
                elif known != value:
                    detail = f"{key}: {value!r} after {known!r}"
                    self._recorder.lose("parameter given again with another value", 1, detail, about=key)
        if fresh:
            self._recorder.append(Params(now_ms(), fresh), len(fresh))
        self._look_if_due()

    @overload
    def log_param(self, key: str, value: object) -> None: ...
    @overload
    def log_param(self, *given: object, **named: object) -> None: ...
    @shown_as(_text)
    def log_param(self, *given: Any, **named: Any) -> None:
        """Record one parameter; see :meth:`log_params`."""
        self._log_one("log_param", given, named)

    @never_raising
    def set_tags(self, tags: Mapping[str, object], *extra: object, **unknown: object) -> None:
        """Set tags: names and values of any kind, kept as ``str(value)``. The last value of a name wins."""
        if extra or unknown:
            call_style.say_left_out(self._recorder, "set_tags", extra, unknown)
        if not hasattr(tags, "items"):
            call_style.lose_no_mapping(self._recorder, "set_tags", tags)
            return
        kept = {values.text(key): values.text(value) for key, value in tags.items()}
        if kept:
            self._recorder.append(Tags(now_ms(), kept), len(kept))
        self._look_if_due()

    @overload
    def set_tag(self, key: str, value: object) -> None: ...
    @overload
    def set_tag(self, *given: object, **named: object) -> None: ...
    @shown_as(_text)
    def set_tag(self, *given: Any, **named: Any) -> None:
        """Set one tag; see :meth:`set_tags`."""
        self._log_one("set_tag", given, named)

    @never_raising
    def log_artifact(
        self,
        local_path: str | os.PathLike[str],
        artifact_path: str | None = None,
        *extra: object,
        wait: bool = True,
        **unknown: object,
    ) -> None:
        """Keep a copy of a file, or of every file below a directory, as it is now.

        Args:
            local_path: the file or directory. In a directory, run directories, links to directories, FIFOs and devices
                are left out, with a warning. An argument that is not a path is refused, counted and reported.
            artifact_path: the directory among the run's artifacts; a relative path without ``..``.
            extra: arguments that other trackers accept and we do not: ignored, with one warning.
            wait: False returns at once, and copies in the background. A file that is overwritten in place meanwhile
                is lost, counted and reported; one that is deleted or replaced only if it can't be hard-linked.
            unknown: keywords of that kind, ignored in the same way.

        Artifacts are sent after everything else: through the server, or into its artifact directory if that is on this
        machine. Where neither works (object stores, for now) they stay in ``directory / "artifacts"``, with a message.
        """
        if extra or unknown:
            call_style.say_left_out(self._recorder, "log_artifact", extra, unknown)
        artifact_snapshots.keep(self._recorder, local_path, artifact_path, wait=wait)

    # -- waiting and ending -------------------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything logged so far is on the server.

        Args:
            timeout: seconds to wait at most.

        Returns:
            True if it is. Without a server: False, at once.
        """
        recorder = self._recorder
        if not recorder.delivery.has_server:
            return False
        deadline = time.monotonic() + timeout
        if not self._metric_input.settle(timeout):
            return False
        try:
            sizes = recorder.directory.sizes()
        except OSError:  # it can't be read at the moment
            return False
        return recorder.delivery.wait_until(lambda: recorder.delivery.covered(sizes), deadline - time.monotonic())

    def wait(self, timeout: float = 10.0) -> str | None:
        """Wait until the run is on the server; return its id there, or None after ``timeout`` seconds."""
        if self._recorder.delivery.has_server:
            self._recorder.delivery.wait_until(lambda: self.run_id is not None, timeout)
        return self.run_id

    def finish(
        self, status: Literal["FINISHED", "FAILED", "KILLED"] | None = None, timeout: float | None = None
    ) -> bool:
        """End the run, and wait until all of it is on the server. May be called again; logging re-opens the run.

        Args:
            status: "FINISHED", "FAILED" or "KILLED". Default: "FINISHED".
            timeout: seconds to wait at most. Default: ``MLOPS_FINISH_TIMEOUT``. With 0 only values that a device
                still computes (``MLOPS_DEVICE_VALUES=lazy``) are waited for, up to ``MLOPS_FINISH_TIMEOUT``.

        Returns:
            True if everything is acknowledged. The rest stays on disk; the command that delivers it is printed.

        Raises:
            ValueError: a run can't end with this status.
        """
        chosen = ending.FINISHED if status is None else str(status).upper()
        if chosen not in {ending.FINISHED, ending.FAILED, ending.KILLED}:
            raise ValueError(f"finish(status={status!r}): use 'FINISHED', 'FAILED' or 'KILLED'")
        return self._recorder.close(chosen, None, timeout)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.is_open:
            return
        status, reason = (ending.FINISHED, None) if error is None else ending.of_exception(error)
        if isinstance(error, SystemExit) and self._recorder.training_error is not None:
            # A framework has turned the error that ended its training into an exit, which says less (or has code 0).
            status, reason = self._recorder.training_error
        self._recorder.close(status, reason)

    # -- inside -------------------------------------------------------------------------------------------------

    def _look_if_due(self) -> None:
        now = now_ms()
        if not 0 < self._recorder.look_at - now <= LOOK_MS:
            self._recorder.look(now)

    @never_raising
    def _log_one(self, call: str, given: tuple[object, ...], named: Mapping[str, object]) -> None:
        """Handle a one-key call in any style: never raises, and reports a call that it can't record."""
        understood = call_style.understood(self._recorder, call, given, named, lambda: {None, self.uid, self.run_id})
        if understood is None:
            return
        key, value, extra, rest = understood
        if call == "log_metric":
            self.log_metrics({key: value}, rest.pop("step", None), rest.pop("timestamp", None), *extra, **rest)
        elif call == "log_param":
            self.log_params({key: value}, *extra, **rest)
        else:
            self.set_tags({key: value}, *extra, **rest)

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, _: object) -> Run:
        """Return the same run: frameworks copy callbacks, and a second writer in this process would never be ended."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        recorder = self._recorder
        return {
            "spec": recorder.spec,
            "directory": recorder.directory.path,
            "settings": recorder.settings.without_secrets(),
            "off": recorder.off,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        Run.__init__(self, state["spec"], RunDirectory(state["directory"]), state["settings"], state["off"])


def recorder_of(run: Run) -> Recorder:
    """Return the recorder behind a run, for code of this package that begins and ends runs; not for users."""
    return run._recorder


def adopted(run: Run) -> Run:
    """Return a parent process's run for the forked process that continues it, with a journal file of its own."""
    recorder = recorder_of(run)
    return Run(recorder.spec, recorder.directory, recorder.settings)
