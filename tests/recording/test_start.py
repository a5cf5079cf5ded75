"""Modes, and what is said when a run begins."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal import ending, rundir
from mlops_integrations.journal.records import End
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import process_exit
from mlops_integrations.recording.run import Run

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
pytestmark = pytest.mark.usefixtures("recording_alone")

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def test_disabled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same objects, no file, no message, nothing counted aloud."""
    (tmp_path / "f").write_text("")
    with mlops.start_run(mode="disabled", params={"a": 1}, tracking_uri="http://127.0.0.1:1") as run:
        run.log_metrics({"a": 1.0}, step=1)
        run.log_params({"a": 2})
        run.set_tag("a", 1)
        run.log_artifact("f")
        assert (run.flush(), run.wait(), run.run_id, run.url) == (False, None, None, None)
    assert not run.finish()
    assert [tmp_path / "f"] == list(tmp_path.iterdir())
    assert caplog.messages == []


def test_disabled_run_in_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    """A pickled one is as silent."""
    run = pickle.loads(pickle.dumps(mlops.start_run(mode="disabled")))
    run.log_metric("a", 1.0)
    run.finish()
    assert caplog.messages == []


def test_offline(caplog: pytest.LogCaptureFixture) -> None:
    """A server is noted, not asked; no process, no thread."""
    before = threading.active_count()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        run = mlops.start_run(mode="offline", tracking_uri=uri)
        run.log_metric("a", 1.0)
        assert not run.flush(timeout=60.0)
        assert not run.finish(timeout=60.0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert before == threading.active_count()


def test_first_message(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Where the run is recorded, through our logger, at a level that is shown without any set-up."""
    run = mlops.start_run(run_name="baseline")
    run.finish()
    assert [(entry.name, entry.levelno) for entry in caplog.records] == [("mlops_integrations", logging.WARNING)]
    start = f"mlops: recording baseline-{run.uid[-4:]} in {run.directory}"
    assert caplog.messages[0].startswith(start)


def test_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """``MLOPS_QUIET`` takes the first message away, and leaves what the user must know."""
    monkeypatch.setenv("MLOPS_QUIET", "1")
    run = mlops.start_run()
    assert caplog.messages == []
    run.log_metrics({"a": "text"})
    run.finish()
    assert len(caplog.messages) == 1


def test_logging_is_left_as_it_is() -> None:
    """We add no handler and set no level."""
    ours = logging.getLogger("mlops_integrations")
    assert (ours.handlers, ours.level, ours.propagate) == ([], logging.NOTSET, True)


def test_messages_reach_stderr_without_any_setup(python: Python) -> None:
    """A plain script shows them, on stderr, and keeps stdout for itself."""
    done = python(
        "import mlops_integrations as m; m.start_run(run_name='plain', mode='offline', uploader='thread').finish()"
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("mlops: recording plain-")


def test_training_after_an_end_that_does_not_end(run: Run) -> None:
    """A second training that is cut off by the exit makes the run FAILED, however well the first one had ended."""
    run._recorder.training_began()
    run._recorder.training_ended()
    run.finish()
    run._recorder.training_began()
    run._recorder.end("FINISHED", None, provisional=True)
    ended = RunDirectory(run.directory).ending()
    assert ended is not None
    assert (ended.status, ended.reason) == ("FAILED", ending.NOT_ENDED)


@pytest.mark.parametrize("shell", [None, object()], ids=["imported only", "interactive"])
def test_exception_where_ipython_is_imported(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    """Many a library imports IPython in a mere script, where an uncaught exception is the end; a shell outlives it."""
    error = ValueError("boom")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "last_exc", error, raising=False)
    assert process_exit.uncaught_exception() is (error if shell is None else None)


@posix
def test_daemon_thread_that_logs_during_exit(python: Python) -> None:
    """A run that is re-opened while the exit waits gets an end all the same, and what is left of it is said."""
    script = """
import sys, threading, time
import mlops_integrations as mlops
run = mlops.start_run(tracking_uri=sys.argv[1])
print(run.directory)
def log():
    while run.is_open:
        time.sleep(0.001)
    run.log_metric("late", 1.0)
threading.Thread(target=log, daemon=True).start()
"""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = python(script, uri, MLOPS_FINISH_TIMEOUT="1", MLOPS_UPLOADER="thread")
    run = RunDirectory(Path(done.stdout.strip()))
    assert (len(run.journals()), done.returncode) == (2, 0), done.stderr
    assert [True, True] == [isinstance(rundir.end_of(path), End) for path in run.journals()]
    assert "Traceback" not in done.stderr
    assert "0 of 1 points delivered" in done.stderr
