"""The house: which room may import which, read from the sources. An arrow that is not in the table is a mistake."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import textwrap
from pathlib import Path

import pytest

PACKAGE = "mlops_integrations"
MOST_LINES = 300
MOST_LINES_OF_A_FUNCTION = 40

LONGER = {
    "backends.rest.store": (376, "every call of a tracking server, once"),
    "client": (362, "the public class, whose docstrings users read"),
    "recording.recorder": (330, "the one owner of a run's journal file"),
    "recording.run": (400, "the public class, whose docstrings users read"),
    "transformers._callback": (375, "what the Trainer tells, hook by hook"),
}
"""Modules that may be longer: up to how many lines, and why."""

FRAMEWORKS = ("lightning", "transformers", "keras", "accelerate")
DIALECTS = ("backends.mlflow", "backends.mlflow_preview", "backends.oracle")

LEAVES = {"clock", "descriptors", "entities", "errors", "untrusted", "version", "journal.filesystem", "journal.records"}
"""Modules that import nothing of ours."""

MAY_IMPORT = {
    "config": {"config", "untrusted"},
    "journal": {"journal", "descriptors", "errors", "untrusted"},
    "backends": set(),  # each of its rooms is named
    "backends.protocol": {"journal.records"},
    "backends.redaction": set(),
    "backends.connections": {"descriptors"},
    "backends.credentials": {"config"},
    "backends.transport": {"config", "untrusted", "version", "backends.redaction", "backends.credentials",
                           "backends.connections"},
    "backends.detection": {"backends.protocol", "backends.transport", "backends.rest.replies"},
    "backends.rest": {"backends.rest", "backends.protocol", "backends.transport", "untrusted", "entities", "errors",
                      "journal.records"},
    **{dialect: {dialect, "backends.rest", "backends.protocol", "backends.transport", "backends.credentials", "config",
                 "untrusted", "entities", "errors", "journal.records"} for dialect in DIALECTS},
    "backends.registry": {"backends", "config", "errors"},
    "upload": {"upload", "clock", "journal", "config", "descriptors", "errors", "untrusted", "backends.protocol"},
    "upload.worker": {"upload", "journal", "config", "untrusted", "backends.registry"},
    "recording": {"recording", "clock", "journal", "config", "errors", "untrusted", "version", "upload.supervisor"},
    "framework_support": {"framework_support", "clock", "recording", "journal", "config"},
    **{framework: {framework, "framework_support", "recording.run", "recording.run_setup", "recording.start",
                   "recording.active_runs", "journal.ending", "config"} for framework in FRAMEWORKS},
    "autologging": {"autologging", "framework_support", "recording.start", "config",
                    *(f"{framework}._autolog" for framework in FRAMEWORKS)},
    "client": {"backends.registry", "clock", "config", "entities", "errors", "untrusted"},
    "cli": {"cli", "clock", "upload", "journal", "backends.protocol", "backends.registry", "client", "config",
            "entities", "errors", "untrusted", "version", "recording.messages", "recording.values"},
    "old_names": {"framework_support.run_handle", "recording.run", "config.settings"},
    "__main__": {"cli.arguments"},
    "__init__": {"recording.run", "recording.start", "recording.active_runs", "autologging.switch", "client",
                 "entities", "errors", "version"},
}  # fmt: skip
"""What each room may import of ours, at its top or within a function. The narrowest room that a module is in counts."""

FOREIGN = {
    "requests": {"backends"},
    "urllib3": {"backends"},
    "keras": {"keras"},
    "lightning": {"lightning"},
    "pytorch_lightning": {"lightning"},
    "transformers": {"transformers"},
    "accelerate": {"accelerate", "transformers"},
    "torch": set(),
    "jax": set(),
    "oci": {"backends.oracle.signing"},
    "mlflow": {"backends.credentials"},
    "numpy": set(),
    "rich": {"cli"},
    "plotext": {"cli"},
    **{module: set() for module in ("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml")},
}
"""Who may import what is not ours."""

POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios"}


def _root() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


ROOT = _root()
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def within(name: str, rooms: set[str]) -> bool:
    """Whether a module is one of these rooms or lies in one."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def room_of(name: str) -> str:
    """The narrowest room of the table that a module belongs to."""
    rooms = [room for room in MAY_IMPORT if within(name, {room})]
    return max(rooms, key=len, default="")


def imports_of(tree: ast.AST, *, top_only: bool = False, types: bool = False) -> set[str]:
    """Full names of all modules that are imported when the code runs, with ``types`` for the type checker as well."""
    found: set[str] = set()
    nodes = list(ast.iter_child_nodes(tree))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            nodes += [*node.body, *node.orelse] if types else node.orelse
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            found |= {_module(f"{module}.{alias.name}", module) for alias in node.names}
        elif not (top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))):
            nodes += ast.iter_child_nodes(node)
    return found


def _module(name: str, parent: str) -> str:
    """``from package import name`` imports a module if there is one of that name."""
    return name if name.removeprefix(f"{PACKAGE}.") in SOURCES else parent


def ours(tree: ast.AST, *, top_only: bool = False, types: bool = False) -> set[str]:
    """The imported modules that are ours, by their names within the package."""
    found = imports_of(tree, top_only=top_only, types=types)
    return {name.removeprefix(f"{PACKAGE}.") for name in found if name.startswith(f"{PACKAGE}.")}


def calls_of(name: str, attribute: str) -> bool:
    """Whether a module uses ``owner.name``, given as such a text."""
    owner, _, member = attribute.partition(".")
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == member
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
        for node in ast.walk(TREES[name])
    )


def test_every_module_has_a_room() -> None:
    """A new file finds its place in the table, or is no part of the house."""
    homeless = [name for name in SOURCES if not room_of(name) and name not in LEAVES and name != "__init__"]
    assert homeless == [], "put the module into a room of MAY_IMPORT, or give it a line of its own there"


@pytest.mark.parametrize("name", SOURCES)
def test_rooms(name: str) -> None:
    """A module imports what its room may, and nothing else of ours."""
    allowed = set() if name in LEAVES else MAY_IMPORT[room_of(name)]
    astray = {imported for imported in ours(TREES[name]) if not within(imported, allowed)}
    assert astray == set(), f"{name} may import {sorted(allowed)}: move the code to where it may, or hand the value in"


@pytest.mark.parametrize("name", SOURCES)
def test_foreign_packages(name: str) -> None:
    """Frameworks belong to their integrations, requests to the backends, colours to the command line."""
    packages = {imported.split(".")[0] for imported in imports_of(TREES[name])}
    assert set() == {package for package in packages if package in FOREIGN and not within(name, FOREIGN[package])}


def test_no_circles() -> None:
    """Every module can be understood from those below it; imports for the type checker count, too."""
    try:
        graphlib.TopologicalSorter({name: ours(TREES[name], types=True) - {name} for name in SOURCES}).prepare()
    except graphlib.CycleError as error:
        pytest.fail(
            f"these import each other in a circle: {' -> '.join(error.args[1])}. Hand the lower one what it needs, "
            "as an argument or by a Protocol, or move what both need below them"
        )


def test_one_composition_point() -> None:
    """Dialects are named in one module; the uploader knows only what they have in common."""
    users = {name for name in SOURCES if any(within(other, set(DIALECTS)) for other in ours(TREES[name]))}
    outside = {name for name in users if not within(name, set(DIALECTS))}
    assert {"backends.registry"} == outside, "only backends.registry names dialects: ask it for a backend or a store"
    opening = {name for name in SOURCES if name.startswith("upload.") and _imports_name(name, "open_backend")}
    assert {"upload.worker"} == opening
    assert "backends.registry" not in ours(TREES["upload.worker"], top_only=True), "import it inside the function"


def _imports_name(name: str, wanted: str) -> bool:
    return any(
        alias.name == wanted
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def test_one_reader_of_the_environment() -> None:
    """Variables are read in one place; the side process takes its search path before that place can be imported."""
    readers = {name for name in SOURCES if calls_of(name, "os.environ") or calls_of(name, "os.getenv")}
    told = "read variables in config.settings, config.tracking_uri or config.launch, and hand on what they say"
    assert {"config.launch", "config.settings", "upload.side_process"} == readers, told


@pytest.mark.parametrize("name", SOURCES)
def test_underscores_stay_in_their_room(name: str) -> None:
    """Nobody reaches for the inside of another room: what it offers has a name without an underscore."""
    room = name.partition(".")[0]
    inside = {other for other in SOURCES if other.partition(".")[0] == room}
    own = {attribute for other in inside for attribute in _underscored(TREES[other], defined=True)}
    reached = _underscored(TREES[name], defined=False) - own - _FOREIGN_UNDERSCORES
    assert reached == set(), "give it a public name there, or a function that does what is needed"


_FOREIGN_UNDERSCORES = {"_loggers", "_count", "_fields", "_replace"}
"""Of Fabric and of Python, which offer nothing public."""


def _underscored(tree: ast.AST, *, defined: bool) -> set[str]:
    """Names with one underscore that a module defines (on ``self`` and classes too), or that it reads of objects."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
            if is_own is defined or (defined and isinstance(node.ctx, ast.Store)):
                found.add(node.attr)
        elif defined and isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif defined and isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {attribute for attribute in found if attribute.startswith("_") and not attribute.startswith("__")}


def test_the_process_belongs_to_its_owner() -> None:
    """Only in its own process do we handle signals; working directory, levels, hooks and modules are nowhere ours."""
    for attribute in ("signal.signal", "signal.setitimer"):
        assert {"upload.side_process"} == {name for name in SOURCES if calls_of(name, attribute)}
    for attribute in (
        "os.chdir",
        "sys.excepthook",
        "threading.excepthook",
        "os.umask",
        "socket.setdefaulttimeout",
    ):
        assert [name for name in SOURCES if calls_of(name, attribute)] == []
    assert {"upload.side_process"} >= {name for name in SOURCES if calls_of(name, "logging.basicConfig")}


@pytest.mark.parametrize("name", SOURCES)
def test_no_code_comes_from_data(name: str) -> None:
    """What is read from disk and from servers is data: nothing of it is evaluated."""
    calls = [node.func for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    assert set() == {call.id for call in calls if isinstance(call, ast.Name)} & {"eval", "exec", "compile"}
    assert not calls_of(name, "torch.load")


@pytest.mark.parametrize("name", SOURCES)
def test_posix_modules_are_imported_where_they_are_used(name: str) -> None:
    """At the top they would keep the module from being imported on Windows."""
    assert set() == POSIX_ONLY & imports_of(TREES[name], top_only=True)


@pytest.mark.parametrize("name", SOURCES)
def test_module_says_what_it_is(name: str) -> None:
    """And is no longer than one can read, with few exceptions, each with its reason."""
    assert ast.get_docstring(TREES[name]), "begin the module with one sentence that says what it is"
    lines = len(SOURCES[name].read_text("utf-8").splitlines())
    most = LONGER.get(name, (MOST_LINES, ""))[0]
    assert lines <= most, f"{lines} lines: carve a class or a pure part out, by its own noun"


def test_exceptions_are_needed() -> None:
    """What has become short again leaves the list."""
    assert {name for name in LONGER if len(SOURCES[name].read_text("utf-8").splitlines()) <= MOST_LINES} == set()


@pytest.mark.parametrize("name", SOURCES)
def test_functions_fit_on_a_screen(name: str) -> None:
    """Docstrings and the lists of keywords do not count."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= MOST_LINES_OF_A_FUNCTION, f"{node.name}: {length} lines: cut it at its steps"


def test_public_names() -> None:
    """What users call: a name that begins without an underscore is a promise to them."""
    import mlops_integrations
    from mlops_integrations.recording.run import Run

    assert sorted(mlops_integrations.__all__) == [
        "Run", "TrackingClient", "__version__", "active_run", "autolog", "entities", "errors", "start_run",
    ]  # fmt: skip
    assert {name for name in dir(Run) if not name.startswith("_")} == {
        "directory", "finish", "flush", "is_open", "log_artifact", "log_metric", "log_metrics", "log_param",
        "log_params", "name", "run_id", "set_tag", "set_tags", "uid", "url", "wait",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "recording.start.start_run",
        "autologging.switch.autolog",
        "accelerate._tracker.MLOpsTracker",
        "keras._callback.MLOpsCallback",
        "lightning._callback.MLOpsCallback",
        "lightning._logger.MLOpsLogger",
        "transformers._callback.MLOpsCallback",
    ],
)
def test_examples_in_docstrings(name: str) -> None:
    """What users begin with has one example in its docstring, which is Python and names it."""
    module, _, wanted = name.rpartition(".")
    (node,) = [
        node for node in TREES[module].body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == wanted
    ]  # fmt: skip
    _, _, example = (ast.get_docstring(node) or "").partition("\nExample:\n")
    assert example, f"{name} needs an Example: in its docstring"
    names = {node.id for node in ast.walk(ast.parse(textwrap.dedent(example))) if isinstance(node, ast.Name)}
    attributes = {
        node.attr for node in ast.walk(ast.parse(textwrap.dedent(example))) if isinstance(node, ast.Attribute)
    }
    assert wanted in names | attributes, f"the example of {name} does not use it"
