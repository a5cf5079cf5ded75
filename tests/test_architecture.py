"""The house: which room may import which, read from the sources. An arrow that is not in the table is a mistake."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

PACKAGE = "mlops_integrations"
MOST_LINES = 400

DOORS = {"keras", "lightning", "transformers", "accelerate"}
LEAVES = {
    "errors",
    "databricks",
    "oracle_uri",
    "version",
    "entities",
    "client_style",
    "seams",
    "copies",
    "hyperparameters",
    "imports",
    "checkpoints",
    "keras_model",
    "printing",
    "trainer_records",
    "journal.records",
}
"""Rooms that import nothing of ours."""

SHARED_BY_DIALECTS = {
    f"backends.{name}"
    for name in ("base", "http", "connections", "auth", "artifact_roots", "replies", "store", "reading", "search")
}
"""What dialects are made of. They know nothing of each other."""

ORACLE = {f"backends.{name}" for name in ("oracle_aidp", "oracle_store", "oracle_signing", "oracle_replies")}
"""A dialect of several modules."""

MAY_IMPORT = {
    **{room: {"door", "seams", "run", "start", "settings", "errors", "journal.ending"} for room in DOORS},
    "keras": {"keras_model", "door", "seams", "run", "start", "settings", "errors", "journal.ending"},
    "lightning": {"lightning_base", "checkpoints", "hyperparameters", "door", "start", "run"},
    "lightning_base": {"journal.ending"},
    "transformers": {"trainer_records", "trainer_seams", "door", "run", "journal.ending"},
    "trainer_seams": {"seams"},
    "autologging": {*DOORS, "imports", "seams", "start", "settings"},
    "entry_points": {"autologging", "settings"},
    "door": {"seams", "start", "run", "recording", "journal.ending"},
    "start": {"run", "recording", "active_runs", "values", "settings", "errors",
              "journal.rundir", "journal.records"},
    "device_values": {"recording", "values", "journal.records"},
    "intake": {"device_values", "recording", "values", "journal.records", "journal.reader"},
    "active_runs": {"run"},
    "run": {"lifetime", "recording", "intake", "artifacts", "client_style", "values", "settings", "errors",
            "journal.ending", "journal.records", "journal.rundir"},
    "recording": {"values", "messages", "version", "settings", "upload.drivers", "journal.ending",
                  "journal.identity", "journal.cursor", "journal.records", "journal.rundir", "journal.writer"},
    "lifetime": {"notebook", "copies", "journal.ending"},
    "notebook": {"journal.ending"},
    "artifacts": {"recording", "copies", "journal.files", "journal.records", "journal.rundir"},
    "values": {"journal.records"},
    "messages": {"printing", "journal.cursor", "journal.filesystem"},
    "journal": {"journal", "errors"},
    "upload": {"upload", "journal", "printing", "settings", "errors", "backends.base"},
    "upload.delivery": {"upload", "journal", "printing", "settings", "errors", "backends.registry"},
    "backends.base": {"journal.records"},
    "backends.registry": {"backends", "settings", "errors", "oracle_uri"},
    **{room: {*SHARED_BY_DIALECTS, *ORACLE, "oracle_uri", "settings", "entities", "errors", "journal.records"}
       for room in ORACLE},
    "backends.connections": {"journal.files"},
    "settings": {"credentials", "oracle_uri", "databricks"},
    "credentials": {"oracle_uri", "databricks"},
    "backends": {*SHARED_BY_DIALECTS, "settings", "entities", "errors", "version", "journal.records"},
    "client": {"backends", "entities", "errors", "settings"},
    **{room: {"command", "upload", "journal", "client", "entities", "backends.base", "backends.registry", "settings",
              "errors", "version", "messages", "values", "oracle_uri"} for room in ("cli", "command")},
    "__main__": {"cli"},
    "__init__": {"run", "start", "active_runs", "errors", "version", "client", "autologging", "settings"},
}  # fmt: skip
"""What each room may import at its top or within a function. A room covers the rooms below it; the narrowest counts."""

FOREIGN = {
    "requests": {"backends"},
    "urllib3": {"backends"},
    "keras": {"keras"},
    "lightning": {"lightning_base"},
    "pytorch_lightning": {"lightning_base"},
    "transformers": {"transformers"},
    "accelerate": {"accelerate", "transformers"},
    "torch": set(),
    "jax": set(),
    "oci": {"backends.oracle_signing"},
    "mlflow": {"backends.auth"},
    "numpy": set(),
    "rich": {"command"},
    "plotext": {"command"},
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


def imports_of(tree: ast.AST, *, top_only: bool = False) -> set[str]:
    """Full names of all modules that are imported when the code runs; those for the type checker don't count."""
    found: set[str] = set()
    nodes = list(ast.iter_child_nodes(tree))
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            nodes += node.orelse
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


def ours(tree: ast.AST, *, top_only: bool = False) -> set[str]:
    """The imported modules that are ours, by their names within the package."""
    found = imports_of(tree, top_only=top_only)
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
    assert homeless == []


@pytest.mark.parametrize("name", SOURCES)
def test_rooms(name: str) -> None:
    """A module imports what its room may, and nothing else of ours."""
    allowed = set() if name in LEAVES else MAY_IMPORT[room_of(name)]
    assert set() == {imported for imported in ours(TREES[name]) if not within(imported, allowed)}


@pytest.mark.parametrize("name", SOURCES)
def test_foreign_packages(name: str) -> None:
    """Frameworks belong to their doors, requests to the backends, colours to the command line."""
    packages = {imported.split(".")[0] for imported in imports_of(TREES[name])}
    assert set() == {package for package in packages if package in FOREIGN and not within(name, FOREIGN[package])}


def test_dialects_do_not_know_each_other() -> None:
    """A backend imports base, transport and credentials, never another dialect."""
    shared = SHARED_BY_DIALECTS
    for name in SOURCES:
        if name.startswith("backends.") and name not in {*shared, "backends.registry"}:
            family = ORACLE if name in ORACLE else set()
            assert set() == {other for other in ours(TREES[name]) if other.startswith("backends.")} - shared - family


def test_one_composition_point() -> None:
    """Dialects are chosen in one function; the uploader knows only what they have in common."""
    users = {name for name in SOURCES if "backends.mlflow" in ours(TREES[name])}
    assert {"backends.registry"} == users
    assert {"backends.base"} >= {o for o in ours(TREES["backends.base"]) if o.startswith("backends.")}
    opening = {name for name in SOURCES if name.startswith("upload.") and _imports_name(name, "open_backend")}
    assert {"upload.delivery"} == opening
    assert "backends.registry" not in ours(TREES["upload.delivery"], top_only=True)


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
    assert {"settings", "upload.side_process"} == readers


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
    """And is no longer than one can read."""
    assert ast.get_docstring(TREES[name])
    assert len(SOURCES[name].read_text("utf-8").splitlines()) <= MOST_LINES
