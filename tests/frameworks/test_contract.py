"""What every integration owes: one class of tests, run over each of them with a real training of its framework."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
import trainings
from mlops_integrations.framework_support.run_handle import RunHandle
from mlops_integrations.journal import writer
from mlops_integrations.recording import active_runs
from mlops_integrations.recording.recorder import Recorder
from mlops_integrations.recording.run import Run
from trainings import STEPS, Inside, Training

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Made = Callable[..., Training]
Unrecorded = Callable[[], Training]

FULL = "disk: No space left on device"
NO_NUMBER = "metric that is no number"

_unrecorded: dict[type[Training], Training] = {}


class Raising:
    """A value that can't be asked for its number."""

    def __float__(self) -> float:
        raise RuntimeError("no number today")


@pytest.fixture(params=trainings.ROUTES)
def way(request: pytest.FixtureRequest) -> Iterator[trainings.Route]:
    """An integration; what it has switched on is switched off afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' advice is of no use here
        yield trainings.ROUTES[request.param]
    mlops.autolog(disable=True)


@pytest.fixture
def made(way: trainings.Route, root: Path, local: Options, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes the integration with these keywords and a training that goes through it, which is not begun."""

    def make(inside: Inside = trainings.nothing, **options: Any) -> Training:
        integration = way.make(monkeypatch, options or local)
        return way.kind(way.way, integration, inside, root)

    return make


@pytest.fixture
def unrecorded(way: trainings.Route, tmp_path: Path) -> Unrecorded:
    """The same training without us, trained once."""

    def train() -> Training:
        if way.kind not in _unrecorded:
            training = way.kind("none", None, trainings.nothing, tmp_path / "unrecorded" / "runs")
            training.train()
            _unrecorded[way.kind] = training
        return _unrecorded[way.kind]

    return train


def directory(root: Path) -> Path:
    """The only run directory there is."""
    (found,) = (path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    return found


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    """How often we have said so."""
    return sum(text in record.getMessage() for record in caplog.records if record.name == "mlops_integrations")


def trained_as(expected: Training, training: Training) -> bool:
    """Whether both have had the same losses, and have learned the same."""
    assert STEPS == len(expected.losses)
    return (expected.losses, expected.learned()) == (training.losses, training.learned())


def journal_file(root: Path) -> int:
    """The descriptor of the journal file below this directory, which this process writes."""
    (path,) = directory(root).glob("journal-*.jsonl")
    (found,) = (number for number in os.listdir("/proc/self/fd") if descriptor_of(number, path))  # noqa: PTH208
    return int(found)


def descriptor_of(number: str, path: Path) -> bool:
    """Whether this descriptor of ours is that of the file."""
    return os.path.realpath(f"/proc/self/fd/{number}") == os.path.realpath(path)


@contextmanager
def never_delivered() -> Iterator[None]:
    """Runs that begin here are not waited for when the interpreter exits."""
    begun: list[Run] = []
    started = active_runs.started

    def see(run: Run, **how: bool) -> None:
        begun.append(run)
        started(run, **how)

    with pytest.MonkeyPatch.context() as seeing:
        seeing.setattr(active_runs, "started", see)
        try:
            yield
        finally:
            for run in begun:
                run.finish(timeout=0.01)


class FullDisk:
    """Before the loss of number ``begin`` the journal's disk is full, from that of number ``end`` on it is not."""

    def __init__(self, root: Path, begin: int, end: int) -> None:
        self.root = root
        self.begin = begin
        self.end = end
        self._patch = pytest.MonkeyPatch()

    def __call__(self, losses: int) -> Mapping[str, object]:
        if losses == self.begin:
            number, write = journal_file(self.root), os.write

            def full(fd: int, data: bytes) -> int:
                if fd == number:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return write(fd, data)

            self._patch.setattr(os, "write", full)
            self._patch.setattr(writer, "other_threads", lambda: 0)  # beside others it is another call
        if losses == self.end:
            self.mend()
        return {}

    def mend(self) -> None:
        """There is space again."""
        self._patch.undo()


class TestDoor:
    """Each of these is true of every integration."""

    def test_create(self, way: trainings.Route, made: Made, root: Path, recorded: Read, local: Options) -> None:
        """Making callback, model and trainer leaves nothing on disk; the training makes one run, as asked for."""
        names = {"experiment_name": "digits", "run_name": "baseline", "tags": {"team": "vision"}}
        training = made(**names, **local)
        assert not root.exists()
        training.train()
        run = recorded(directory(root))
        assert directory(root) == training.integration.run.directory
        assert ("digits", "baseline") == (run.spec.experiment_name, run.spec.name)
        assert (None if way.way == "report_to" else "vision") == run.tags.get("team")
        assert {} == run.losses

    def test_stream(self, made: Made, root: Path, recorded: Read) -> None:
        """Each loss stands in the journal, once and at its step, when the next one is there."""
        found = []

        def look(losses: int) -> Mapping[str, object]:
            found.append(recorded(directory(root)).curve(training.loss) if losses else [])
            return {}

        training = made(look)
        training.train()
        steps = [step for step, _ in training.losses]
        assert sorted(set(steps)) == steps
        assert [training.losses[:losses] for losses in range(STEPS)] == found
        assert training.losses == recorded(directory(root)).curve(training.loss)

    def test_params(self, way: trainings.Route, made: Made, root: Path, recorded: Read, local: Options) -> None:
        """The framework's own parameters are recorded, and beside them those that the user gives."""
        training = made(params={"fold": 7}, **local)
        training.train()
        run = recorded(directory(root))
        asked = {} if way.way == "report_to" else {"fold": "7"}
        expected = {**training.params, **asked}
        assert expected == {key: run.params.get(key) for key in expected}
        assert {} == run.losses

    def test_finish(self, made: Made, root: Path, recorded: Read) -> None:
        """When the training has ended, so has the run."""
        training = made()
        training.train()
        assert not training.integration._handle.prepared.is_open
        run = recorded(directory(root))
        assert ("FINISHED", None, 1) == (run.ending.status, run.ending.reason, run.journals)

    def test_a_given_run_is_left_open(
        self, way: trainings.Route, made: Made, root: Path, recorded: Read, local: Options
    ) -> None:
        """A run that the user has opened is recorded into and not ended."""
        if way.way == "report_to":
            pytest.skip("report_to takes no run")
        run = mlops.start_run(directory=root, **local)
        training = made(run=run) if way.made_by_hand else made()
        training.train()
        assert run.is_open
        assert None is recorded(directory(root)).ending
        assert training.losses == recorded(directory(root)).curve(training.loss)

    def test_reopen(self, made: Made, root: Path, recorded: Read) -> None:
        """Training on makes the run go on, and end again."""
        training = made()
        training.train()
        training.train()
        run = recorded(directory(root))
        assert 2 * STEPS == len(training.losses)
        assert [loss for _, loss in training.losses] == [loss for _, loss in run.curve(training.loss)]
        assert ("FINISHED", 2) == (run.ending.status, run.journals)

    def test_pickle(
        self, way: trainings.Route, root: Path, recorded: Read, local: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An integration that was pickled and unpickled records as the one that it is a copy of."""
        if not way.made_by_hand:
            pytest.skip("nobody holds this integration before it records")
        integration = way.make(monkeypatch, {"experiment_name": "digits", **local})
        copy = pickle.loads(pickle.dumps(integration))
        training = way.kind(way.way, copy, trainings.nothing, root)
        assert not root.exists()
        training.train()
        run = recorded(directory(root))
        assert copy is training.integration
        assert integration._handle._uid == run.spec.uid
        assert training.losses == run.curve(training.loss)
        assert ("digits", "FINISHED") == (run.spec.experiment_name, run.ending.status)

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("server", ["dead", "silent"])
    def test_no_server(
        self,
        server: str,
        made: Made,
        unrecorded: Unrecorded,
        root: Path,
        recorded: Read,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A server that is not there, or never answers, is waited for by nobody, and everything is in the journal."""
        monkeypatch.setenv("MLOPS_FINISH_TIMEOUT", "3600")
        with socket.create_server(("127.0.0.1", 0)) as silent, never_delivered():  # takes connections, says nothing
            port = silent.getsockname()[1] if server == "silent" else 9
            uri = f"http://127.0.0.1:{port}"
            training = made(tracking_uri=uri, uploader="thread", mode="online")
            training.train()
        run = recorded(directory(root))
        assert trained_as(unrecorded(), training)
        assert training.losses == run.curve(training.loss)
        assert ("FINISHED", {}, uri) == (run.ending.status, run.losses, run.spec.tracking_uri)

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
    @pytest.mark.parametrize("end", [3, None], ids=["for a while", "to the end"])
    def test_a_full_disk(
        self,
        end: int | None,
        made: Made,
        unrecorded: Unrecorded,
        root: Path,
        recorded: Read,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What does not fit is counted, and said when it begins and at the end; the training is what it would be."""
        disk = FullDisk(root, 1, STEPS if end is None else end)
        training = made(disk)
        training.train()
        if end is None:
            disk.mend()
        run = recorded(directory(root))
        kept = [loss for number, loss in enumerate(training.losses) if not 1 <= number < disk.end]
        assert trained_as(unrecorded(), training)
        assert kept == run.curve(training.loss)
        assert 1 == said(caplog, f"not kept: {FULL}")
        assert 1 == said(caplog, f"x {FULL}")
        if end is None:
            assert None is run.ending
            return
        per_step = sum(step == training.losses[0][0] for _, step, _ in run.points)
        assert {FULL: per_step * 2} == run.losses
        assert "FINISHED" == run.ending.status

    def test_a_broken_value(
        self,
        made: Made,
        unrecorded: Unrecorded,
        root: Path,
        recorded: Read,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What is no number is dropped, counted and said; what is logged beside it is recorded."""
        training = made(lambda losses: {"word": "good", "fine": losses + 0.5, "odd": Raising()})
        training.train()
        run = recorded(directory(root))
        assert trained_as(unrecorded(), training)
        assert training.losses == run.curve(training.loss)
        (fine,) = (key for key in run.keys if key.endswith("fine"))
        assert [0.5, 1.5, 2.5, 3.5] == [value for _, value in run.curve(fine)]
        assert {NO_NUMBER: 2 * STEPS} == run.losses
        assert (1, 1) == (said(caplog, "word: str"), said(caplog, "odd: Raising: no number today"))
        assert "FINISHED" == run.ending.status

    @pytest.mark.swallows
    @pytest.mark.parametrize("broken", ["Run.log_metrics", "RunHandle.run", "RunHandle.began", "RunHandle.ended"])
    def test_our_own_bug(
        self,
        broken: str,
        way: trainings.Route,
        made: Made,
        unrecorded: Unrecorded,
        recorded: Read,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Whatever of ours raises in a hook is swallowed, counted and said; the training is what it would be."""
        if broken == "RunHandle.began" and way.kind is trainings.AccelerateTraining:
            pytest.skip("accelerate does not tell that a training begins")
        bug, swallowed = RuntimeError("our own bug"), []
        swallow = Recorder.swallow

        def raising(*_: object, **__: object) -> None:
            raise bug

        def see(recorder: Recorder, error: Exception) -> None:
            swallowed.append(error)
            swallow(recorder, error)

        monkeypatch.setattr(Recorder, "swallow", see)
        expected = unrecorded()
        training = made()
        owner, name = {"Run": Run, "RunHandle": RunHandle}[broken.split(".")[0]], broken.split(".")[1]
        with monkeypatch.context() as breaking:
            breaking.setattr(owner, name, property(raising) if name == "run" else raising)
            training.train()
        assert trained_as(expected, training)
        assert swallowed
        assert {bug} == set(swallowed)
        run = training.integration._handle.prepared
        in_journal = recorded(run.directory).losses if run._recorder.directory.journals() else {}
        assert {"internal error": len(swallowed)} == (in_journal or run._recorder._losses)  # there once it has ended
        assert 1 == said(caplog, "RuntimeError: our own bug")

    def test_another_rank(
        self, made: Made, unrecorded: Unrecorded, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In another process than that of rank 0 nothing is recorded, and nothing is made on disk."""
        expected = unrecorded()
        monkeypatch.setenv("RANK", "1")
        training = made()
        training.become_rank_one(monkeypatch)
        training.train()
        assert trained_as(expected, training)
        assert not root.exists()
