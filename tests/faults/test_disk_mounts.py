"""Real disks: one that is full for a while, one that hangs, a read-only one, one taken away, a deleted directory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_mlflow import FakeMlflow
from hosts import delivered, losses, points, said_lost
from real_mlflow import eventually
from trainer import Trainer, side_processes

Mount = Callable[..., Path]

STEPS = """
import os, sys
{before}
import mlops_integrations as mlops
run = mlops.start_run(experiment_name='disk')
def log(first, last):
    for step in range(first, last):
        run.log_metric('loss', step / 7, step=step)
log(0, 100)
print('first', flush=True)
sys.stdin.readline()
log(100, 1000)
print('second', flush=True)
sys.stdin.readline()
log(1000, 1100)
{after}
print('third', flush=True)
"""
PLAIN = STEPS.format(before="", after="")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mounts file systems, and takes them away again."""
    mounted: list[Path] = []

    def mount_one(*arguments: str) -> Path:
        place = tmp_path / f"mounted-{len(mounted)}"
        place.mkdir()
        subprocess.run(["mount", *arguments, str(place)], check=True)
        mounted.append(place)
        return place

    yield mount_one
    for place in mounted:
        subprocess.run(["fsfreeze", "-u", str(place)], check=False, capture_output=True)
        eventually(lambda place=place: subprocess.run(["umount", str(place)], check=False).returncode == 0)


def tell(process: subprocess.Popen[str], expected: str) -> None:
    """See that a training has come this far, and let it go on."""
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == f"{expected}\n"
    process.stdin.write("\n")
    process.stdin.flush()


def the_run(root: Path) -> Path:
    """The only run directory in a root."""
    (found,) = {path.resolve() for path in root.iterdir() if path.is_dir()}
    return found


@pytest.mark.root
@pytest.mark.program("mount")
@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_a_disk_that_is_full_for_a_while(trainer: Trainer, fake: FakeMlflow, mount: Mount, uploader: str) -> None:
    """What does not fit is counted exactly and said once; with space again, all that is on it is delivered, once."""
    disk = mount("-t", "tmpfs", "-o", "size=256k", "tmpfs")
    fake.answer_next("runs/log-batch", 503, times=1)
    process = trainer.start(PLAIN, MLFLOW_TRACKING_URI=fake.uri, MLOPS_DIR=f"{disk}/runs", MLOPS_UPLOADER=uploader)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(256))
            except OSError:
                break
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "second\n"
    ballast.unlink()
    out, err = process.communicate("\n", timeout=60)

    assert (process.returncode, out) == (0, "third\n"), err
    run = the_run(disk / "runs")
    kept = [step for _, _, step in points(run)]
    lost = losses(run)
    assert sum(lost.values()) > 700
    assert 1100 == len(set(kept)) + sum(lost.values())
    assert sum(lost.values()) == said_lost(err)
    assert len([line for line in err.splitlines() if line.startswith("mlops: not kept: ")]) == len(lost) <= 2
    delivered(fake, run, "FINISHED")
    eventually(lambda: not side_processes(disk))


# Root without the privilege of root to read and write everything: modes count.
UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


@pytest.mark.root
@pytest.mark.program("mount")
@pytest.mark.program("setpriv")
@pytest.mark.parametrize("named", [False, True], ids=["the default", "named"])
@pytest.mark.parametrize("why", ["Read-only file system", "Permission denied"])
def test_a_directory_that_can_not_be_written(
    trainer: Trainer, tmp_path: Path, mount: Mount, named: bool, why: str
) -> None:
    """The default directory gives way to a private one for temporary files, which is said; a named one is an error."""
    disk = mount("-t", "tmpfs", "-o", "ro" if why.startswith("Read") else "mode=500", "tmpfs")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {"MLOPS_DIR": f"{disk}/runs"} if named else {}
    script = f"import os; os.chdir({str(disk)!r})\n" + PLAIN
    process = trainer.start(script, wrapper=UNPRIVILEGED, TMPDIR=str(elsewhere), **variables)
    out, err = process.communicate("\n\n", timeout=60)

    if named:
        assert process.returncode == 1
        assert f"{disk}/runs can't be used for runs: {why}" in err
        return
    assert (process.returncode, out) == (0, "first\nsecond\nthird\n"), err
    (root,) = elsewhere.iterdir()
    assert list(range(1100)) == [step for _, _, step in points(the_run(root))]
    assert len([line for line in err.splitlines() if why in line and "this run is recorded in" in line]) == 1
    eventually(lambda: not side_processes(elsewhere))


@pytest.mark.root
@pytest.mark.program("setpriv")
@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_a_directory_that_is_taken_away(trainer: Trainer, fake: FakeMlflow, uploader: str) -> None:
    """Log calls go on, since the journal is open; the delivery goes on when the directory is given back."""
    process = trainer.start(PLAIN, wrapper=UNPRIVILEGED, MLFLOW_TRACKING_URI=fake.uri, MLOPS_UPLOADER=uploader)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    run = the_run(trainer.root)
    fake.wait_for("runs/log-batch")
    run.chmod(0)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "second\n"
    if uploader == "process":
        eventually(lambda: "Permission denied" in (run / "uploader.log").read_text())
    run.chmod(0o700)
    out, err = process.communicate("\n", timeout=60)

    assert (process.returncode, out) == (0, "third\n"), err
    assert list(range(1100)) == [step for _, _, step in points(run)]
    assert "not kept" not in err
    assert "deleted" not in err
    delivered(fake, run, "FINISHED")
    eventually(lambda: not side_processes(trainer.directory))


@pytest.mark.root
@pytest.mark.program("fsfreeze")
@pytest.mark.program("mkfs.ext4")
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside a thread"])
def test_a_disk_that_hangs(trainer: Trainer, fake: FakeMlflow, tmp_path: Path, mount: Mount, others: int) -> None:
    """A training waits for the disk in its log call, and goes on with it; then everything is there."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    disk = mount("-o", "loop", str(image))
    script = f"""
import sys, threading
import mlops_integrations as mlops
for _ in range({others}):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
run = mlops.start_run(experiment_name='disk')
run.log_metric('loss', 0, step=0)
print('first', flush=True)
sys.stdin.readline()
for step in range(1, 1100):
    run.log_metric('loss', step / 7, step=step)
print('second', flush=True)
sys.stdin.readline()
print('third', run.finish(timeout=60), flush=True)
"""
    process = trainer.start(script, MLFLOW_TRACKING_URI=fake.uri, MLOPS_DIR=f"{disk}/runs")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "first\n"
    fake.wait_for("runs/log-batch")
    subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
    try:
        process.stdin.write("\n")
        process.stdin.flush()
        state = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "D")
    finally:
        subprocess.run(["fsfreeze", "-u", str(disk)], check=True)
    assert process.stdout.readline() == "second\n"
    out, err = process.communicate("\n", timeout=90)

    assert (process.returncode, out) == (0, "third True\n"), err
    run = the_run(disk / "runs")
    assert list(range(1100)) == [step for _, _, step in points(run)]
    delivered(fake, run, "FINISHED")
    eventually(lambda: not side_processes(disk))


@pytest.mark.parametrize("uploader", ["process", "thread"])
def test_a_directory_that_is_deleted(trainer: Trainer, fake: FakeMlflow, uploader: str) -> None:
    """Training goes on to its end, nobody waits for what is gone, and the loss is said once, with its number."""
    after = "run._recorder.look_at = 0\nlog(1100, 1200)\nrun.finish(timeout=3600)"
    process = trainer.start(STEPS.format(before="", after=after), MLFLOW_TRACKING_URI=fake.uri, MLOPS_UPLOADER=uploader)
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    fake.wait_for("runs/log-batch")
    shutil.rmtree(trainer.root, ignore_errors=True)
    eventually(lambda: shutil.rmtree(trainer.root, ignore_errors=True) or not trainer.root.exists())
    out, err = process.communicate("\n\n", timeout=60)

    assert (process.returncode, out) == (0, "second\nthird\n"), err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if "not kept: the run directory was deleted" in line]) == 1
    assert 1000 < said_lost(err) <= 1200  # those that were not delivered by then, and all that came later
    assert not trainer.root.exists()
    eventually(lambda: not side_processes(trainer.directory))
