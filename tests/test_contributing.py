"""What CONTRIBUTING says of adding a framework, a dialect and a record kind is done, as it says, to a copy."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations
from fake_mlflow import FakeMlflow
from mlops_integrations.journal.reader import JournalReader
from mlops_integrations.journal.records import End, Header, Metrics, Params, Record, RunSpec
from mlops_integrations.journal.rundir import RunDirectory

ROOT = Path(__file__).parents[1]
PAGE = ROOT / ".github" / "CONTRIBUTING.md"
PACKAGE = Path(mlops_integrations.__file__).parent
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
DOTTED = sorted(set(re.findall(rf"`((?:{'|'.join(ROOMS)})\.\w[\w.]*\w)`", PAGE.read_text("utf-8"))))
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
BLOCK = re.compile(r"^```(python|diff)\n# (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

TOYTRAINER = '''
"""A framework: a loop, and callbacks that are told of it."""


class Callback:
    """Is told of a training."""

    def on_train_begin(self, trainer): ...
    def on_step_end(self, trainer, step, logs): ...
    def on_train_end(self, trainer): ...
    def on_exception(self, trainer, error): ...


class Trainer:
    """Trains."""

    def __init__(self, steps=3, callbacks=None):
        self.steps = steps
        self.callbacks = callbacks or []

    def tell(self, hook, *what):
        for callback in self.callbacks:
            getattr(callback, hook)(self, *what)

    def fit(self, fails_at=None):
        try:
            self.tell("on_train_begin")
            for step in range(self.steps):
                if step == fails_at:
                    raise ValueError("diverged")
                self.tell("on_step_end", step, {"loss": 1 / (step + 1)})
            self.tell("on_train_end")
        except BaseException as error:
            self.tell("on_exception", error)
            raise
'''

Script = Callable[..., str]
Read = Callable[[Path], list[Record]]


class ToyServer(FakeMlflow):
    """Has MLflow's calls below ``/toy/1``, and nothing where MLflow has them."""

    def answer(self, call: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        if not call.startswith("/toy/1/"):
            return 404, {}
        return super().answer(call.removeprefix("/toy/1/"), body, authorization)


def section(title: str) -> str:
    """The text of one section of the page."""
    _, _, rest = PAGE.read_text("utf-8").partition(f"\n## {title}\n")
    assert rest, f"there is no section {title!r}"
    return rest.partition("\n## ")[0]


def carry_out(title: str, copy: Path) -> list[str]:
    """Do to the copy what the blocks of a section say; the files that were changed."""
    blocks = BLOCK.findall(section(title))
    for kind, name, text in blocks:
        path = copy / name
        if kind == "python":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        else:
            path.write_text(changed(path.read_text("utf-8"), text, name), "utf-8")
    return [name for _, name, _ in blocks]


def changed(source: str, diff: str, name: str) -> str:
    """The source after a diff without line numbers, of which each part must fit in one place."""
    for part in diff.removeprefix("@@\n").split("@@\n"):
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if not line.startswith("+"))
        after = "".join(line[1:] for line in lines if not line.startswith("-"))
        assert source.count(f"\n{before}") == 1, f"CONTRIBUTING says of {name} what is not so:\n{part}"
        source = source.replace(f"\n{before}", f"\n{after}")
    return source


@pytest.mark.parametrize("name", DOTTED)
def test_names_are_there(name: str) -> None:
    """Each module, class and method that the page names by its room is found in the sources."""
    parts = name.split(".")
    depth = max(i for i in range(len(parts) + 1) if _source(parts[:i]) is not None)
    source = _source(parts[:depth])
    assert source is not None
    within: ast.AST = ast.parse(source.read_text("utf-8"))
    for part in parts[depth:]:
        defined = {node.name: node for node in ast.iter_child_nodes(within) if isinstance(node, _DEFINITIONS)}
        assert part in defined, f"{source.relative_to(PACKAGE)} has no {part}"
        within = defined[part]


def test_files_are_there() -> None:
    """Each file that the page names is in the repository or in the package, but for those that it makes."""
    made = {name.removeprefix("mlops_integrations/") for _, name, _ in BLOCK.findall(PAGE.read_text("utf-8"))}
    named = set(re.findall(r"`([a-z_/]+/[a-z_]+\.py)`", PAGE.read_text("utf-8")))
    assert len(named) > 10
    places = (ROOT, PACKAGE, PACKAGE / "backends")
    assert [name for name in sorted(named - made) if not any((place / name).exists() for place in places)] == []


def _source(parts: list[str]) -> Path | None:
    """The file of a module or package of ours."""
    found = (PACKAGE.joinpath(*parts, "__init__.py"), PACKAGE.joinpath(*parts).with_suffix(".py"))
    return next((path for path in found if path.is_file()), None)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its architecture test, to be changed, with a framework beside them."""
    place = tmp_path / "copy"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, place / "mlops_integrations", ignore=unwanted)
    (place / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "test_architecture.py", place / "tests")
    (place / "toytrainer.py").write_text(TOYTRAINER, "utf-8")
    return place


@pytest.fixture
def script(copy: Path, python: Callable[..., subprocess.CompletedProcess[str]]) -> Script:
    """Runs a script that sees the copy; what it prints. What it says beside that is expected to hold ``said``."""

    def run(text: str, *arguments: str, said: str = "") -> str:
        path = os.pathsep.join([str(copy), *(entry for entry in sys.path if entry)])
        done = python(text, *arguments, PYTHONPATH=path, MLOPS_QUIET="1")
        assert done.returncode == 0, done.stderr
        # On a busy machine delivery takes longer than it is silent about.
        heard = [line for line in done.stderr.splitlines() if "waiting up to" not in line or "flush" not in text]
        assert said in "".join(heard)
        assert bool(said) is bool(heard), done.stderr
        return str(done.stdout).strip()

    return run


def architecture_of(copy: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Ask the architecture test of the copy about these modules, and of what holds for all together."""
    whole = ("every_module", "circles", "composition", "environment", "belongs")
    wanted = " or ".join([f"[{name}]" for name in names] + list(whole))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(copy), "-p", "no:cacheprovider",
         "-k", wanted, str(copy / "tests" / "test_architecture.py")],
        cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


TRAINING = """
import sys
from toytrainer import Trainer
from mlops_integrations.toytrainer import MLOpsCallback

callback = MLOpsCallback(mode="offline", uploader="thread")
assert "mlops_integrations.toytrainer" == MLOpsCallback.__module__
try:
    Trainer(callbacks=[callback]).fit(fails_at=int(sys.argv[1]))
except ValueError as error:
    assert "diverged" == str(error)
print(callback.run.directory)
"""


@pytest.mark.parametrize(
    ("fails_at", "steps", "ending"), [(9, 3, ("FINISHED", None)), (2, 2, ("FAILED", "ValueError"))]
)
def test_a_framework(
    copy: Path, script: Script, read: Read, fails_at: int, steps: int, ending: tuple[str, str | None]
) -> None:
    """Its callback records steps, parameters and how the training ended."""
    carry_out("Add a framework", copy)
    directory = Path(script(TRAINING, str(fails_at)))
    records = read(directory)
    assert [{"steps": "3"}] == [record.values for record in records if isinstance(record, Params)]
    losses = [record.values for record in records if isinstance(record, Metrics)]
    assert [[("loss", 1 / (step + 1), step)] for step in range(steps)] == losses
    (end,) = [record for record in records if isinstance(record, End)]
    assert ending[0] == end.status
    assert (end.reason is None) is (ending[1] is None)
    assert (ending[1] or "") in (end.reason or "")


GUARDED = """
from toytrainer import Trainer
from mlops_integrations.toytrainer import MLOpsCallback

callback = MLOpsCallback(mode="offline", uploader="thread")
trainer = Trainer(callbacks=[callback])
callback._handle.began = None  # calling it fails
trainer.fit()
print(callback.run.directory)
"""


def test_a_framework_is_left_alone(copy: Path, script: Script, read: Read) -> None:
    """A failure of the callback's own is said, and the training and the record of it go on."""
    carry_out("Add a framework", copy)
    records = read(Path(script(GUARDED, said="TypeError")))
    assert sum(isinstance(record, Metrics) for record in records) == 3


AUTOLOG = """
import mlops_integrations as mlops

mlops.autolog(frameworks="toytrainer", mode="offline", uploader="thread")
from toytrainer import Trainer

trainer = Trainer(steps=2)
trainer.fit()
mlops.autolog(disable=True, frameworks="toytrainer")
assert not hasattr(Trainer.__init__, "__wrapped__")
assert [] == Trainer().callbacks
(callback,) = trainer.callbacks
print(callback.run.directory)
"""


def test_autologging_of_a_framework(copy: Path, script: Script, read: Read) -> None:
    """Called before the framework is imported, and switched off again."""
    carry_out("Add a framework", copy)
    records = read(Path(script(AUTOLOG)))
    assert sum(isinstance(record, Metrics) for record in records) == 2


DELIVERY = """
import json, sys
import mlops_integrations as mlops

with mlops.start_run(tracking_uri=sys.argv[1], uploader="thread", run_name="toy", params={"lr": 0.1}) as run:
    for step in range(250):
        run.log_metric("loss", 1.0, step)
    assert run.flush(timeout=30)
client = mlops.TrackingClient(sys.argv[1])
history = list(client.get_metric_history(run.run_id, "loss"))
print(json.dumps([str(run.directory), client.get_run(run.run_id).info.status, len(history)]))
"""


def test_a_dialect(copy: Path, script: Script) -> None:
    """Its server is recognized, gets the run in requests of its own size, and is read by the client."""
    carry_out("Add a dialect", copy)
    with ToyServer() as server:
        directory, status, points = json.loads(script(DELIVERY, server.uri))
        run = server.run("toy")
    assert ("FINISHED", 250) == (status, points)
    assert ({"lr": "0.1"}, 250) == (run.params, len(run.metrics))
    assert server.requests.count("runs/log-batch") >= 4, "no more than 100 metrics go at once"
    (cursor,) = list(Path(directory).glob("cursor-*"))
    assert '"dialect":"toy"' in cursor.read_text("utf-8")


def test_the_rules_of_the_house(copy: Path) -> None:
    """The architecture test, with the rows that the page says, takes the new modules; without them it does not."""
    framework = carry_out("Add a framework", copy)
    carry_out("Add a dialect", copy)
    names = ["backends.toy", "backends.registry", "backends.detection", "toytrainer"]
    names += [f"toytrainer.{Path(name).stem}" for name in framework if "/_" in name and "__init__" not in name]
    done = architecture_of(copy, *names)
    assert done.returncode == 0, done.stdout
    shutil.copy(ROOT / "tests" / "test_architecture.py", copy / "tests")
    done = architecture_of(copy, *names)
    assert "test_every_module_has_a_room" in done.stdout
    assert "test_one_composition_point" in done.stdout
    assert done.returncode == 1


NOTE = """
import sys
import mlops_integrations as mlops
from mlops_integrations.cli.run_contents import read
from mlops_integrations.journal.records import Note
from mlops_integrations.journal.rundir import RunDirectory

with mlops.start_run(tracking_uri=sys.argv[1], uploader="thread", run_name="noted") as run:
    run._recorder.append(Note(1, "half of a pair: \\ud800"), 1)
    run.log_metric("loss", 1.0, 0)
    assert run.flush(timeout=30)
assert "mlflow.note.content" in read(RunDirectory(run.directory)).tags
print(run.directory)
"""

COMPARISON = """
import sys
from pathlib import Path
import mlops_integrations as mlops
from mlops_integrations.cli.read_back import DifferenceError, ReadBack
from mlops_integrations.journal.rundir import RunDirectory

try:
    store = mlops.TrackingClient(sys.argv[1])
    ReadBack(RunDirectory(Path(sys.argv[2])), store, sys.argv[3], lambda _: None).compare("FINISHED", None, "")
except DifferenceError as error:
    print(error)
"""


def test_a_record_kind(copy: Path, script: Script) -> None:
    """It is written whatever its text holds, delivered, shown, and compared before anything is removed."""
    carry_out("Add a record kind", copy)
    with FakeMlflow() as server:
        directory = script(NOTE, server.uri)
        run = server.run("noted")
        assert run.tags["mlflow.note.content"] == r"half of a pair: \ud800"
        assert script(COMPARISON, server.uri, directory, run.run_id) == ""
        run.tags["mlflow.note.content"] = "something else"
        assert "mlflow.note.content" in script(COMPARISON, server.uri, directory, run.run_id)


def test_a_record_kind_that_a_reader_forgot(copy: Path) -> None:
    """The type check names each reader that does not know it, and nothing else."""
    pytest.importorskip("mypy", reason="types are checked in the session that runs this page's blocks")
    records = copy / "mlops_integrations" / "journal" / "records.py"
    (_, name, diff), *readers = BLOCK.findall(section("Add a record kind"))
    records.write_text(changed(records.read_text("utf-8"), diff, name), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "mlops_integrations"],
        cwd=copy, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    found = {line.partition(":")[0] for line in done.stdout.splitlines() if "not_handled" in line}
    assert found == {name for _, name, _ in readers}, done.stdout


def test_an_unknown_record_kind(copy: Path, script: Script) -> None:
    """A version without it, as this one, passes over the line, counts it, and reads everything else."""
    carry_out("Add a record kind", copy)
    with FakeMlflow() as server:
        (journal,) = RunDirectory(Path(script(NOTE, server.uri))).journals()
    reader = JournalReader(journal)
    found = [type(record) for record in reader]
    reader.close()
    assert ([Header, RunSpec, Metrics, End], 1) == (found, reader.bad_lines)
