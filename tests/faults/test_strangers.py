"""What others may have put in our way: their run directories, links, names of files that lead elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from hostile import serving
from mlops_integrations.cli import arguments
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal import cursor, identity
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.records import FORMAT, Artifact, End, Header, Metrics, Record, RunSpec
from mlops_integrations.journal.root import find_by_run_id, find_by_uid
from mlops_integrations.journal.writer import JournalWriter

UID = "mlops-0123456789abcdef0123456789abcdef"
NOBODY = 65_534

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a run directory in the root ``runs`` with these records, of a run that has ended."""

    def made(name: str, uri: str, *records: Record, uid: str = UID) -> Path:
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True, mode=0o700)
        header = Header(FORMAT, uid, structs.replace(identity.me(), start_time="1"), 1, "0")
        writer = JournalWriter(directory, header, RunSpec(uid, name, 1, uri, "fake"))
        for record in (Metrics(1_000, [("loss", 1.0, 0)]), *records):
            writer.append(record)
        writer.finish(End(9_000, "FINISHED", points=1))
        return directory

    return made


@pytest.mark.root
@pytest.mark.parametrize("call", ["sync", "status", "show"])
def test_another_users_run_is_refused(call: str, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Also by root: it says whose it is, sends nothing, and touches nothing there."""
    with FakeMlflow() as server:
        directory = make("theirs", server.uri)
        os.mkfifo(directory / "journal-0002.jsonl")  # who reads from it waits for ever
        os.chown(directory, NOBODY, NOBODY)
        before = sorted(directory.iterdir())
        assert arguments.main([call, str(directory)]) == 1
        said = "".join(capsys.readouterr())
        assert "belongs to another user (number 65534)" in said
        assert [] == server.requests
        assert before == sorted(directory.iterdir())


@pytest.mark.root
def test_another_users_run_holds_up_none_of_ours(make: Make, tmp_path: Path) -> None:
    """In a directory that all may write, ours are delivered; theirs is left, and not gone on with, by whatever name."""
    with FakeMlflow() as server:
        make("ours", server.uri)
        directory = make("theirs", server.uri, uid=UID[:-1] + "0")
        cursor.save(cursor.cursor_path(directory, server.uri), Cursor(server.uri, run_id="known"))
        os.chown(directory, NOBODY, NOBODY)
        root = tmp_path / "runs"
        assert arguments.main(["sync", str(root)]) == 1
        assert ["ours"] == [run.name for run in server.runs.values()]
        assert find_by_run_id(root, "known") is None
        assert find_by_uid(root, UID[:-1] + "0") is None
        with pytest.raises(RunDirectoryError):
            mlops.start_run(directory=root, resume=UID[:-1] + "0", mode="offline", uploader="thread")


@pytest.mark.parametrize("name", ["refused.jsonl", "lease.lock"])
def test_a_link_in_the_place_of_a_file(name: str, make: Make, tmp_path: Path) -> None:
    """What it leads to is not written; it is said that the run can't be delivered."""
    target = tmp_path / "target"
    target.write_text("theirs")
    target.chmod(0o644)
    with FakeMlflow() as server:
        server.refuse_metric("poison")
        directory = make("run", server.uri, Metrics(1_001, [("poison", 1.0, 0)]))
        (directory / name).symlink_to(target)
        assert arguments.main(["sync", str(directory)]) == 1
    assert ("theirs", 0o644) == (target.read_text(), target.stat().st_mode & 0o777)


def test_links_in_circles(make: Make, tmp_path: Path) -> None:
    """``latest``, or a file, that leads to itself is passed over."""
    with FakeMlflow() as server:
        directory = make("run", server.uri, Artifact(1, "artifacts/round", "round", 1))
        (directory / "artifacts").mkdir()
        for link in (tmp_path / "runs" / "latest", directory / "artifacts" / "round"):
            link.symlink_to(link.name)
        assert arguments.main(["show", "--dir", str(tmp_path / "runs")]) == 0
        assert arguments.main(["sync", str(tmp_path / "runs")]) == 0


class WithArtifacts(FakeMlflow):
    """Names a directory of this machine as the place of a run's files."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def answer(self, call: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """The run's place is in what is said of it."""
        status, answer = super().answer(call, body, authorization)
        if call == "runs/get" and status == 200:
            answer["run"]["info"]["artifact_uri"] = str(self.root)
        return status, answer


OUTWARD = ["../evil", "a/../../evil", "/{}/evil", "C:/evil", "C:evil", "\\\\host\\evil", "..\\evil", "a\0b", ".", ""]


@pytest.mark.parametrize("path", OUTWARD)
def test_a_file_that_wants_out(path: str, make: Make, tmp_path: Path) -> None:
    """A journal's path that leads out of the run's artifacts is not sent; the other files are, and it is said."""
    store = tmp_path / "store"
    store.mkdir()
    with WithArtifacts(store) as server:
        good = Artifact(1, "artifacts/good", "good", 1)
        directory = make("run", server.uri, Artifact(1, "artifacts/good", path.format(tmp_path), 1), good)
        (directory / "artifacts").mkdir()
        (directory / "artifacts" / "good").write_text("g")
        assert arguments.main(["sync", str(directory)]) == 0
        (state,) = cursor.load_all(directory)
    assert {"path that leads out of the run's artifacts": 1} == state.artifacts_kept
    assert ["good"] == [file.name for file in store.rglob("*")]
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("file", ["../../secret", "artifacts/link", "/etc/hostname", "artifacts/a\0b"])
def test_a_file_from_outside(file: str, make: Make, tmp_path: Path) -> None:
    """What lies outside of the run directory is not sent, whatever the journal says and wherever a link leads."""
    store = tmp_path / "store"
    store.mkdir()
    (tmp_path / "secret").write_text("s")
    with WithArtifacts(store) as server:
        directory = make("run", server.uri, Artifact(1, file, "stolen", 1))
        (directory / "artifacts").mkdir()
        (directory / "artifacts" / "link").symlink_to(tmp_path / "secret")
        assert arguments.main(["sync", str(directory)]) == 0
        (state,) = cursor.load_all(directory)
    assert {"file is missing": 1} == state.artifacts_kept
    assert [] == list(store.iterdir())


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "C:/x", "C:x", "..\\x", "a\0b", "link/x", "link/y/x"])
def test_a_download_stays_where_it_is_wanted(path: str, tmp_path: Path) -> None:
    """Names that lead out, also through a link that lies there, make no file and no directory elsewhere."""
    (tmp_path / "down").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "down" / "link").symlink_to(tmp_path / "elsewhere")
    with serving(lambda handler: handler.reply(200, b"content")) as (uri, _):
        client = mlops.TrackingClient(uri, dialect="mlflow")
        with pytest.raises(ValueError, match="path="):
            client.download_artifact("run", path, tmp_path / "down")
    assert [] == list((tmp_path / "elsewhere").iterdir())
    assert ["link"] == [file.name for file in (tmp_path / "down").iterdir()]


def test_a_download_writes_through_no_link(tmp_path: Path) -> None:
    """A link in the place of the file is replaced; what it led to stays."""
    (tmp_path / "target").write_text("theirs")
    for name in ("model.pt", ".model.pt.part"):
        (tmp_path / name).symlink_to(tmp_path / "target")
    with serving(lambda handler: handler.reply(200, b"content")) as (uri, _):
        made = mlops.TrackingClient(uri, dialect="mlflow").download_artifact("run", "model.pt", tmp_path)
    assert (b"content", False) == (made.read_bytes(), made.is_symlink())
    assert (tmp_path / "target").read_text() == "theirs"
