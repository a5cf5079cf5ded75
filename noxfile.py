"""Every way to run this project. ``nox`` alone passes the tests; ``nox -s quickstart`` does the main job once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "typing", "tests", "build", "server", "frameworks(latest)"]

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("-c", "tests/constraints.txt")
OTHER_PYTHONS = ("3.10", "3.12", "3.13")
WITHOUT_SERVERS = [f"--ignore=tests/{folder}" for folder in ("faults", "frameworks", "oracle", "peers", "server")]
SIDE_BY_SIDE = ("-n", "3", "--dist", "worksteal")
"""Three tests at a time, which much of their time wait; ``-- -n 0`` runs one after the other."""

OF_MANY_PROCESSES = [
    f"--ignore=tests/frameworks/test_{name}.py"
    for name in (
        "autolog_examples",
        "examples",
        "examples_lightning",
        "examples_transformers",
        "lightning_processes",
        "transformers_processes",
    )
]
"""In CI these tests run with the latest frameworks alone: each of their processes imports a framework."""

NO_COMPILE = "--no-compile"
"""For pip: modules are compiled when they are imported, which most of the large packages' never are. Half the time."""


def group(name: str) -> list[str]:
    """The packages of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def quickstart(session: nox.Session) -> None:
    """A real training, recorded with no server, then shown."""
    session.install("-q", ".[cli,keras]", "jax", "scikit-learn")
    session.run("python", "examples/quickstart.py", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The core, with no framework installed and no server."""
    session.install(".", *group("test"), *group("typing"))  # one test is that a type check fails
    session.run("pytest", *SIDE_BY_SIDE, *WITHOUT_SERVERS, *session.posargs)


@nox.session(tags=["extended"])
@nox.parametrize("version", OTHER_PYTHONS)
def tests_on(session: nox.Session, version: str) -> None:
    """The core on the other Pythons that we support, where they are installed."""
    python = interpreter(version)
    if python is None:
        session.skip(f"there is no Python {version} on this machine")
    environment = Path(session.create_tmp()).resolve() / "environment"
    programs = environment / "bin"
    session.run(str(python), "-m", "venv", "--clear", str(environment), external=True)
    session.run(str(programs / "python"), "-m", "pip", "install", "-q", ".", *group("test"), external=True)
    # What CONTRIBUTING says is the same on every Python, and is run by ``tests``.
    once = "--ignore=tests/test_contributing.py"
    session.run(str(programs / "pytest"), *SIDE_BY_SIDE, *WITHOUT_SERVERS, once, *session.posargs, external=True)


@nox.session
def server(session: nox.Session) -> None:
    """Against a real MLflow server, read back through MLflow's own client."""
    session.install(NO_COMPILE, ".", "mlflow", *group("test"), *CONSTRAINTS)
    session.run("pytest", *SIDE_BY_SIDE, "tests/server", *session.posargs)


@nox.session(tags=["extended"])
def oracle(session: nox.Session) -> None:
    """Oracle AI Data Platform: a gateway as its documents describe it, before a real MLflow server."""
    session.install(NO_COMPILE, ".[oracle]", "aidp-python-client", *group("test"), *CONSTRAINTS)
    env = server_environment(session)
    # One test is a notebook of Oracle's, which has MLflow and us in one place.
    session.run(env["TEST_SERVER_PYTHON"], "-m", "pip", "install", "-q", "msgspec", external=True)
    session.run("pytest", *SIDE_BY_SIDE, "tests/oracle", *session.posargs, env=env)


@nox.session(tags=["extended"])
def faults(session: nox.Session) -> None:
    """The promises under fire; ``FAULT_SEEDS=5000 nox -s faults`` tries more than CI has time for."""
    session.install(NO_COMPILE, ".", "mlflow", *group("test"), *CONSTRAINTS)
    if sys.version_info[:2] == (3, 11):
        session.install("atheris", *CONSTRAINTS)  # elsewhere it would have to be compiled
    session.run("pytest", *SIDE_BY_SIDE, "tests/faults", *session.posargs)


@nox.session(tags=["extended"])
def peers(session: nox.Session) -> None:
    """Real servers from 0.2 to today: all, or those named (``nox -s peers -- 0.4.2``); in CI one of each kind."""
    session.install(".", *group("test"))
    sys.path.insert(0, "tests/helpers")
    from peer_releases import IN_CI, PEERS

    named = [argument for argument in session.posargs if argument in PEERS]
    wanted = named or (IN_CI if os.environ.get("CI") else list(PEERS))
    homes = Path(session.create_tmp()).resolve()
    for version in wanted:
        python = interpreter(PEERS[version].python)
        if python is None:
            session.warn(
                f"skipped: MLflow {version} needs Python {PEERS[version].python}, which is not on this machine"
            )
            continue
        install_peer(session, python, homes / version, PEERS[version].packages)
    others = [argument for argument in session.posargs if argument not in PEERS]
    session.run("pytest", "tests/peers", *others, env={"TEST_PEERS": str(homes), "TEST_PEERS_WANTED": " ".join(wanted)})


@nox.session
@nox.parametrize("versions", [nox.param("latest", id="latest"), nox.param("oldest", id="oldest", tags=["extended"])])
def frameworks(session: nox.Session, versions: str) -> None:
    """Real trainings through every integration, and the examples; all frameworks in one environment."""
    install_frameworks(session, versions)
    left_out = OF_MANY_PROCESSES if versions == "oldest" and os.environ.get("CI") else ()
    patient = "--timeout=900"  # where each of several processes imports for a quarter of a minute
    env = server_environment(session)
    session.run("pytest", *SIDE_BY_SIDE, patient, "tests/frameworks", *left_out, *session.posargs, env=env)


@nox.session
def examples(session: nox.Session) -> None:
    """Every example runs, and records what it says (``frameworks`` runs them too)."""
    files = ("examples", "examples_lightning", "examples_transformers", "autolog_examples")
    install_frameworks(session, "latest")
    tests = [f"tests/frameworks/test_{name}.py" for name in files]
    session.run("pytest", *tests, *session.posargs, env=server_environment(session))


@nox.session
def bench(session: nox.Session) -> None:
    """Ours beside the peers, side by side; a quarter of an hour, on a quiet machine. Name parts to measure fewer."""
    session.install("torch", *CONSTRAINTS)
    session.install(".[accelerate,cli,keras,lightning,transformers]", *group("bench"), *CONSTRAINTS)
    for part in session.posargs or ("log_call", "delivery", "loops", "size", "start_stop"):
        session.run("python", "-m", f"benchmarks.{part}", env={"PYTHONPATH": "tests/helpers"})
    session.run("python", "-m", "benchmarks.report")


@nox.session
def lint(session: nox.Session) -> None:
    """Style."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Types, strictly."""
    session.install(".", *group("typing"))
    session.run("mypy")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, then test what is in it."""
    session.install("build", *group("test"))
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    session.install(*(str(wheel) for wheel in dist.glob("*.whl")))
    session.run("mlops-integrations", "--help", silent=True)
    slow = ("--ignore=tests/cli/test_clean.py", "--ignore=tests/cli/test_credentials.py")
    wanted = ("tests/test_import.py", "tests/recording", "tests/cli", *slow)
    session.run("pytest", *SIDE_BY_SIDE, *wanted, *session.posargs)


def install_frameworks(session: nox.Session, versions: str) -> None:
    """All frameworks into one environment; torch first, so that nothing else chooses it."""
    constraints = CONSTRAINTS if versions == "latest" else ("-c", "tests/constraints-oldest.txt")
    session.install(NO_COMPILE, "torch", *constraints)
    ours = ".[accelerate,cli,keras,lightning,transformers]"
    session.install(NO_COMPILE, ours, *group(f"frameworks-{versions}"), *constraints)


def server_environment(session: nox.Session) -> dict[str, str]:
    """An environment with MLflow's server, apart from the frameworks, whose requirements are others.

    Sessions share it: it holds a tool of theirs, whose version ``tests/constraints.txt`` says each time.
    """
    environment = Path(session.cache_dir).resolve() / "mlflow-server"
    python = environment / "bin" / "python"
    if not runs(python, "-m", "pip", "--version"):
        session.run("python", "-m", "venv", "--clear", str(environment))
    session.run(str(python), "-m", "pip", "install", "-q", NO_COMPILE, "mlflow", *CONSTRAINTS, external=True)
    return {"TEST_SERVER_PYTHON": str(python)}


def install_peer(session: nox.Session, python: Path, home: Path, packages: tuple[str, ...]) -> None:
    """An old server into an environment of its own, by ``venv``: virtualenv can't make any for Python 3.6 and 3.7."""
    session.run(str(python), "-m", "venv", "--clear", str(home), external=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", NO_COMPILE]
    env = {"LC_ALL": "C.UTF-8"}
    if python.name in {"python3.6", "python3.7", "python3.9"}:
        # A local folder of wheels may hold files for newer Pythons, and pip does not look.
        env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    if python.name in {"python3.6", "python3.7"}:
        session.run(*pip, "-U", "pip<22", "setuptools<58", "wheel", env=env, external=True)
    session.run(*pip, *packages, env=env, external=True)


def interpreter(version: str) -> Path | None:
    """A Python of this version that really runs: a version manager's stand-in may be there without one."""
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for candidate in candidates:
        if runs(candidate, "--version"):
            return candidate
    return None


def runs(python: Path, *arguments: str) -> bool:
    """Whether there is such a Python, and it does this."""
    return python.exists() and subprocess.run([python, *arguments], capture_output=True, check=False).returncode == 0
