"""A disk that fails at any write: training goes on, its output is right, what is lost is counted exactly, said once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fake_mlflow import FakeMlflow
from hosts import check, losses, points, said_lost
from trainer import Trainer

WIDE = int(os.environ.get("FAULT_SEEDS", "0"))

# Each round is a run whose journal may not grow beyond a limit: a real short write, then EFBIG, at one more byte.
LIMITED = """
import logging, resource, sys
import mlops_integrations as mlops

said = []
class Heard(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger('mlops_integrations').addHandler(Heard())

first, last, stride = (int(argument) for argument in sys.argv[1:])
for limit in range(first, last, stride):
    said.clear()
    run = mlops.start_run(mode='offline')
    path = next(run.directory.glob('journal-*.jsonl'))
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + limit, resource.RLIM_INFINITY))
    for step in range(12):
        run.log_metric('loss', step / 7, step=step)
        if step == 8:  # there is space again
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    run.finish()
    print(limit, run.directory, sum('not kept: ' in text for text in said), sep='\\t')
"""


def test_no_space_at_any_byte(trainer: Trainer) -> None:
    """Wherever in a record the space ends: every call is either in the journal or among the losses, and said once."""
    (trainer.directory / "train.py").write_text(LIMITED)
    stride = 1 if WIDE else 7
    done = subprocess.run(
        [sys.executable, "train.py", "0", "700", str(stride)],
        cwd=trainer.directory,
        env=trainer.environment(MLOPS_QUIET="1"),
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )

    rounds = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(range(0, 700, stride)) == len(rounds)
    failed = 0
    for limit, directory, said in rounds:
        kept = [step for _, _, step in points(Path(directory))]
        lost = losses(Path(directory))
        assert sorted(set(kept)) == kept, limit
        assert 12 == len(kept) + sum(lost.values()), (limit, kept, lost)
        assert int(said) == len(lost) <= 2, (limit, lost)  # a short write, and a failed one
        failed += bool(lost)
        shutil.rmtree(directory)
    assert failed > len(rounds) // 2


# The write system calls on the journal alone fail, from number N on, one of them or all: by strace.
TRAINING = """
import mlops_integrations as mlops
result = 0.0
with mlops.start_run(resume=open('uid').read()) as run:
    for step in range(12):
        result += step / 7
        run.log_metric('loss', result, step=step)
print(f'{result:.3f}')
"""


@pytest.mark.program("strace")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("count", ["+0", "+"], ids=["once", "from then on"])
def test_each_write_of_the_journal_fails(trainer: Trainer, tmp_path: Path, error: str, count: str) -> None:
    """The training's exit code and result are as ever, and what is kept and what is said to be lost make the whole."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number in range(1, 20 if WIDE else 16, 1 if WIDE else 4):
        shutil.rmtree(trainer.root, ignore_errors=True)
        trainer.run("import mlops_integrations as m; m.start_run(mode='offline').finish()", MLOPS_UPLOADER="thread")
        (trainer.directory / "uid").write_text(trainer.uid)
        when = f"{number}+" if count == "+" else str(number)
        inject = f"inject=write:error={error}:when={when}"
        wrapper = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(trainer.latest / "journal-0002.jsonl"))
        process = trainer.start(
            TRAINING, wrapper=(*wrapper, "-e", inject), MLOPS_UPLOADER="thread", TMPDIR=str(elsewhere)
        )
        out, err = process.communicate(timeout=60)

        assert (process.returncode, out) == (0, "9.429\n"), (number, err)
        kept = [step for root in (trainer.root, *elsewhere.iterdir()) for _, _, step in points_in(root)]
        assert sorted(set(kept)) == kept
        assert 12 == len(kept) + said_lost(err), (number, err)
        assert len(re.findall(r"^mlops: not kept: ", err, re.MULTILINE)) <= 1
        assert "Traceback" not in err
        shutil.rmtree(elsewhere)
        elsewhere.mkdir()


def points_in(root: Path) -> list[tuple[str, float | str, int]]:
    """The points of every run in a root."""
    runs = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
    return [point for run in runs for point in points(run)]


# Every operation on names in the run directory (open, rename, link, remove, mkdir) may fail: an audit hook sees each.
FAILING = """
import errno, os, random, sys
import mlops_integrations as mlops

root = os.path.abspath('mlops_runs')
begin, ops, uri = 0, 0, sys.argv[1]
def hook(event, arguments):
    global ops
    if event in ('open', 'os.rename', 'os.link', 'os.remove', 'os.mkdir', 'os.symlink') and begin:
        if isinstance(arguments[0], str) and arguments[0].startswith(root):
            ops += 1
            if begin <= ops < begin + 3:
                raise OSError(code, os.strerror(code), arguments[0])
sys.addaudithook(hook)
mlops.start_run(tracking_uri=uri, uploader='thread').finish()
for number in map(int, sys.argv[2:]):
    code = random.Random(number).choice([errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EIO])
    begin, ops = number, 0
    run = mlops.start_run(tracking_uri=uri, uploader='thread', experiment_name='failing')
    for step in range(12):
        run.log_metric('loss', step / 7, step=step)
    delivered = run.finish(timeout=60)
    begin = 0
    print(number, run.directory, delivered, ops, sep='\\t', flush=True)
"""


def test_each_operation_on_names_fails(trainer: Trainer, fake: FakeMlflow, tmp_path: Path) -> None:
    """Three failures in a row, beginning anywhere: the run is recorded, if need be elsewhere, and delivered."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    numbers = range(1, 88, 1 if WIDE else 5)
    (trainer.directory / "train.py").write_text(FAILING)
    done = subprocess.run(
        [sys.executable, "train.py", fake.uri, *map(str, numbers)],
        cwd=trainer.directory,
        env=trainer.environment(MLOPS_QUIET="1", TMPDIR=str(elsewhere), MLFLOW_HTTP_REQUEST_TIMEOUT="5"),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rounds = [line.split("\t") for line in done.stdout.splitlines()]
    assert [str(number) for number in numbers] == [number for number, *_ in rounds]
    for number, directory, delivered_, _ops in rounds:
        assert list(range(12)) == [step for _, _, step in points(Path(directory))], number
        assert {} == losses(Path(directory)), number
        assert "True" == delivered_, (number, done.stderr)
        check(fake, Path(directory), "FINISHED")


@pytest.mark.program("strace")
def test_a_slow_disk(trainer: Trainer) -> None:
    """Each write of the journal takes its time: everything is there in the end, and nothing is said."""
    trainer.run("import mlops_integrations as m; m.start_run(mode='offline').finish()", MLOPS_UPLOADER="thread")
    (trainer.directory / "uid").write_text(trainer.uid)
    path = str(trainer.latest / "journal-0002.jsonl")
    wrapper = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "inject=write:delay_enter=50000")
    process = trainer.start(TRAINING, wrapper=wrapper, MLOPS_UPLOADER="thread", MLOPS_QUIET="1")
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (0, "9.429\n", "")
    assert list(range(12)) == [step for _, _, step in points_in(trainer.root)]
