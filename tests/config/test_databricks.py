"""Databricks by host and token, from the environment or from the file of its own tools."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import mlops_integrations as mlops
from fake_mlflow import FakeMlflow
from mlops_integrations.config.settings import access, from_arguments

FILE = """
[DEFAULT]
host = https://first.example/
token = t0

[team]
host = second.example
token = t%1
"""


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file with two workspaces."""
    file = tmp_path / "databrickscfg"
    file.write_text(FILE)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))
    return file


@pytest.mark.parametrize(
    ("uri", "address", "token"),
    [
        ("databricks", "https://first.example", "t0"),
        ("databricks://team", "https://second.example", "t%1"),
    ],
)
@pytest.mark.usefixtures("configured")
def test_the_file(uri: str, address: str, token: str) -> None:
    """The profile that is named, else the default one; the token is no part of what is journaled or shown."""
    chosen = from_arguments(tracking_uri=uri)
    assert (chosen.tracking_uri, access(chosen).username, access(chosen).password) == (address, "token", token)
    assert token not in repr(chosen)


@pytest.mark.usefixtures("configured")
def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wins where no profile is named; a profile may be named there, too."""
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "team")
    assert from_arguments(tracking_uri="databricks").tracking_uri == "https://second.example"
    monkeypatch.delenv("DATABRICKS_CONFIG_PROFILE")
    monkeypatch.setenv("DATABRICKS_HOST", "https://third.example")
    monkeypatch.setenv("DATABRICKS_TOKEN", "t3")
    assert from_arguments(tracking_uri="databricks").tracking_uri == "https://third.example"
    assert from_arguments(tracking_uri="databricks://team").tracking_uri == "https://second.example"


def test_a_file_that_is_none(configured: Path) -> None:
    """Said without its content, which may hold a token."""
    configured.write_text("token = secret\n")
    with pytest.raises(ValueError, match="can't be read") as caught:
        from_arguments(tracking_uri="databricks")
    assert "secret" not in str(caught.value)


def test_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Delivered with the token; which stands in no file of the run directory."""
    with FakeMlflow() as server:
        monkeypatch.setenv("DATABRICKS_HOST", server.uri)
        monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
        with mlops.start_run(experiment_name="/Users/ann/digits", run_name="a", directory=tmp_path / "runs") as run:
            run.log_metric("loss", 0.5)
        assert run.finish(timeout=30)
        assert {"Basic " + base64.b64encode(b"token:dapi-canary").decode()} == set(server.authorizations)
        assert len(server.run("a").metrics) == 1
    for path in run.directory.rglob("*"):
        assert path.is_dir() or b"dapi-canary" not in path.read_bytes()
