"""Files that a run logs arrive at the server, whole, after the metrics, and in spite of faults."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

import mlops_integrations as mlops
from fault_proxy import FaultProxy
from mlops_integrations.journal import cursor
from real_mlflow import MlflowServer, eventually
from trainer import Trainer

RUN = {"experiment_name": "artifacts", "uploader": "thread"}


def listed(server: MlflowServer, run_id: str, path: str | None = None) -> dict[str, int]:
    """Every file among a run's artifacts, with its size."""
    found = {}
    for entry in server.client.list_artifacts(run_id, path):
        found |= listed(server, run_id, entry.path) if entry.is_dir else {entry.path: entry.file_size or 0}
    return found


def downloaded(server: MlflowServer, run_id: str, path: str, to: Path) -> bytes:
    """A file as MLflow's own client gets it."""
    mlflow.set_tracking_uri(server.uri)
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=str(to))).read_bytes()


@pytest.fixture
def local_root(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server that takes no artifacts itself: its clients write to the same directory."""
    directory = tmp_path / "mlflow"
    (directory / "roots").mkdir(parents=True)
    own = MlflowServer(directory, "--no-serve-artifacts", "--default-artifact-root", str(directory / "roots"))
    own.start()
    yield own
    own.stop()


def test_what_is_logged_is_what_arrives(server: MlflowServer, tmp_path: Path) -> None:
    """Files, directories, empty files, names of any alphabet; even if the caller changes or deletes them at once."""
    content = os.urandom(3 << 20)
    (tmp_path / "model.pt").write_bytes(content)
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for name in ("a b.txt", "deep/empty", "модель 100%.bin"):
        (tmp_path / "out" / name).write_bytes(b"" if name == "deep/empty" else name.encode())
    run = mlops.start_run(**RUN, tracking_uri=server.uri)
    run.log_artifact(tmp_path / "model.pt", "checkpoints/best")
    run.log_artifact(tmp_path / "out", "results")
    (tmp_path / "model.pt").write_bytes(b"overwritten")
    shutil.rmtree(tmp_path / "out")
    assert run.finish(timeout=60)

    assert run.run_id is not None
    assert listed(server, run.run_id) == {
        "checkpoints/best/model.pt": len(content),
        "results/a b.txt": 7,
        "results/deep/empty": 0,
        "results/модель 100%.bin": len("модель 100%.bin".encode()),
    }
    assert downloaded(server, run.run_id, "checkpoints/best/model.pt", tmp_path / "down") == content
    assert server.the_run(run.uid).info.status == "FINISHED"


def test_a_path_that_the_server_refuses(server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stays in the run directory, which is said with its name; the others arrive."""
    with mlops.start_run(**RUN, tracking_uri=server.uri) as run:
        for name in ("model #1.pt", "model 2.pt"):
            (tmp_path / name).write_bytes(b"weights")
            run.log_artifact(tmp_path / name)
    assert run.finish(timeout=30)
    assert listed(server, run.run_id or "") == {"model 2.pt": 7}
    assert "artifacts not sent: 1 so far, the first is 'model #1.pt'" in caplog.text


def test_a_local_artifact_root(local_root: MlflowServer, tmp_path: Path) -> None:
    """Where the server leaves files to its clients, they are written to its directory."""
    (tmp_path / "f.txt").write_text("content")
    with mlops.start_run(**RUN, tracking_uri=local_root.uri) as run:
        run.log_artifact(tmp_path / "f.txt", "d")
    assert run.finish(timeout=30)
    assert listed(local_root, run.run_id or "") == {"d/f.txt": 7}


def test_a_root_that_is_not_here(own_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files stay in the run directory, which is said; the run is delivered all the same, and no directory is made."""
    own_server = MlflowServer(
        own_server.directory, "--no-serve-artifacts", "--default-artifact-root", "/not/on/this/machine"
    )
    own_server.start()
    try:
        (tmp_path / "f.txt").write_text("content")
        with mlops.start_run(**RUN, tracking_uri=own_server.uri) as run:
            run.log_artifact(tmp_path / "f.txt")
            run.log_metric("a", 1)
        assert run.finish(timeout=30)
        assert own_server.the_run(run.uid).info.status == "FINISHED"
        assert "is not on this machine" in caplog.text
        assert (run.directory / "artifacts" / "f.txt").read_text() == "content"
        assert not Path("/not").exists()
    finally:
        own_server.stop()


def test_an_object_store(own_server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There is no way to it yet: the file stays, which is said."""
    own = MlflowServer(own_server.directory, "--no-serve-artifacts", "--default-artifact-root", "s3://bucket/x")
    own.start()
    try:
        (tmp_path / "f.txt").write_text("content")
        with mlops.start_run(**RUN, tracking_uri=own.uri) as run:
            run.log_artifact(tmp_path / "f.txt")
        assert run.finish(timeout=30)
        assert "artifacts belong to s3" in caplog.text
    finally:
        own.stop()


def test_the_way_breaks_down_in_the_middle(server: MlflowServer, tmp_path: Path) -> None:
    """The file is sent again, until the server has it in full length; the metrics do not wait for it."""
    proxy = FaultProxy(server.uri)
    try:
        (tmp_path / "model.pt").write_bytes(os.urandom(8 << 20))
        digest = hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()
        run = mlops.start_run(**RUN, tracking_uri=proxy.uri)
        run.wait(20)
        proxy.uploads_to_break = 2
        run.log_artifact(tmp_path / "model.pt")
        run.log_metric("a", 1)
        assert run.finish(timeout=60)
        assert proxy.uploads_to_break == 0
    finally:
        proxy.close()
    content = downloaded(server, run.run_id or "", "model.pt", tmp_path / "down")
    assert hashlib.sha256(content).hexdigest() == digest


TRAIN = """
import os, signal, sys
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='artifacts')
open('model.pt', 'wb').write(bytes(range(256)) * 4096)
run.log_artifact('model.pt', 'checkpoints', wait={wait})
run.log_metric('a', 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("wait", [True, False])
def test_a_killed_trainer(server: MlflowServer, trainer: Trainer, wait: bool) -> None:
    """The side process delivers what was logged."""
    done = trainer.run(TRAIN.format(wait=wait), MLFLOW_TRACKING_URI=server.uri)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = server.closed(trainer.uid)
    eventually(lambda: listed(server, run.info.run_id) == {"checkpoints/model.pt": 1 << 20})
    assert run.info.status == "KILLED"


def test_offline_then_sync(server: MlflowServer, trainer: Trainer) -> None:
    """``sync`` delivers files too, and the second time has nothing to do."""
    trainer.run(TRAIN.format(wait=True).replace("os.kill", "print or os.kill"))
    eventually(lambda: (trainer.latest / "journal-0001.exit").exists())
    first = trainer.sync("--to", server.uri)
    assert first.returncode == 0, first.stdout + first.stderr
    assert listed(server, server.the_run(trainer.uid).info.run_id) == {"checkpoints/model.pt": 1 << 20}
    second = trainer.sync("--to", server.uri)
    assert (second.returncode, "1 delivered before" in second.stdout) == (0, True), second.stdout


def test_a_file_that_is_gone(server: MlflowServer, trainer: Trainer) -> None:
    """Somebody has cleaned up the run directory: it is counted and said, and the rest is delivered."""
    trainer.run(TRAIN.format(wait=True))
    eventually(lambda: (trainer.latest / "journal-0001.exit").exists())
    (trainer.latest / "artifacts" / "checkpoints" / "model.pt").unlink()
    done = trainer.sync("--to", server.uri)
    assert done.returncode == 0, done.stdout
    assert "file is missing" in done.stdout
    (state,) = cursor.load_all(trainer.latest)
    assert (state.artifacts_kept, state.status) == ({"file is missing": 1}, "KILLED")
