"""Every way to run this project. ``nox`` alone passes the tests; ``nox -s quickstart`` does the main job once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "typing", "tests", "build", "server", "frameworks(latest)"]

PROJECT = nox.project.load_toml("pyproject.toml")
CONSTRAINTS = ("-c", "tests/constraints.txt")
OTHER_PYTHONS = ("3.10", "3.12", "3.13")


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
    session.install(".", *group("test"))
    session.run("pytest", "--ignore=tests/server", "--ignore=tests/frameworks", *session.posargs)


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
    ignored = ("--ignore=tests/server", "--ignore=tests/frameworks")
    session.run(str(programs / "pytest"), *ignored, *session.posargs, external=True)


@nox.session
def server(session: nox.Session) -> None:
    """Against a real MLflow server, read back through MLflow's own client."""
    session.install(".", "mlflow", *group("test"), *CONSTRAINTS)
    session.run("pytest", "tests/server", *session.posargs)


@nox.session
@nox.parametrize("versions", [nox.param("latest", id="latest"), nox.param("oldest", id="oldest", tags=["extended"])])
def frameworks(session: nox.Session, versions: str) -> None:
    """Real trainings through every door, and the examples; all frameworks in one environment."""
    install_frameworks(session, versions)
    session.run("pytest", "tests/frameworks", *session.posargs, env=server_environment(session))


@nox.session
def examples(session: nox.Session) -> None:
    """Every example runs, and records what it says (``frameworks`` runs them too)."""
    install_frameworks(session, "latest")
    session.run("pytest", "tests/frameworks/test_examples.py", *session.posargs, env=server_environment(session))


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
    session.run("pytest", "tests/test_import.py", "tests/test_run.py", "tests/test_cli.py", *session.posargs)


def install_frameworks(session: nox.Session, versions: str) -> None:
    """All frameworks into one environment; torch first, so that nothing else chooses it."""
    constraints = CONSTRAINTS if versions == "latest" else ("-c", "tests/constraints-oldest.txt")
    session.install("torch", *constraints)
    session.install(".[accelerate,cli,keras,lightning,transformers]", *group(f"frameworks-{versions}"), *constraints)


def server_environment(session: nox.Session) -> dict[str, str]:
    """An environment with MLflow's server, apart from the frameworks, whose requirements are others."""
    environment = Path(session.create_tmp()).resolve() / "server"
    python = environment / "bin" / "python"
    session.run("python", "-m", "venv", "--clear", str(environment))
    session.run(str(python), "-m", "pip", "install", "-q", "mlflow", *CONSTRAINTS, external=True)
    return {"TEST_SERVER_PYTHON": str(python)}


def interpreter(version: str) -> Path | None:
    """A Python of this version that really runs: a version manager's stand-in may be there without one."""
    found = shutil.which(f"python{version}")
    candidates = [Path(found)] if found else []
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for candidate in candidates:
        if subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None
