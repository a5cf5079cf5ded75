"""Settings: arguments over environment over defaults; bad arguments raise, bad variables are said; secrets stay out."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.config import launch, settings
from mlops_integrations.config.settings import (
    Access,
    Settings,
    access,
    from_arguments,
)
from mlops_integrations.config.tracking_uri import split_credentials
from mlops_integrations.journal.records import RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.recording import values

DEFAULTS: dict[str, Any] = {
    "root_is_explicit": False,
    "mode": "offline",
    "uploader": "process",
    "device_values": "eager",
    "tracking_uri": None,
    "username": None,
    "password": None,
    "experiment_name": None,
    "experiment_id": None,
    "resume": None,
    "finish_timeout": 10.0,
    "linger": 600.0,
    "quiet": False,
}
CANARY = "s3cr3t-canary"


def fields_of(found: Settings | Access) -> dict[str, Any]:
    """All fields by name."""
    return {name: getattr(found, name) for name in found.__slots__}


def test_defaults(tmp_path: Path) -> None:
    """With nothing given, runs are recorded in the working directory."""
    found = from_arguments(environ={})
    assert DEFAULTS | {"root": tmp_path / "mlops_runs"} == fields_of(found)
    assert found.destination is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MLFLOW_TRACKING_URI": "http://h:5000"}, {"tracking_uri": "http://h:5000", "mode": "online"}),
        ({"MLFLOW_TRACKING_URI": ""}, {}),
        ({"MLFLOW_EXPERIMENT_NAME": "digits"}, {"experiment_name": "digits"}),
        ({"MLFLOW_EXPERIMENT_ID": "7"}, {"experiment_id": "7"}),
        ({"MLFLOW_RUN_ID": "abc"}, {"resume": "abc"}),
        ({"MLOPS_MODE": "disabled"}, {"mode": "disabled"}),
        ({"MLOPS_MODE": "offline", "MLFLOW_TRACKING_URI": "http://h"}, {"mode": "offline", "tracking_uri": "http://h"}),
        ({"MLOPS_MODE": ""}, {}),
        ({"MLOPS_UPLOADER": "thread"}, {"uploader": "thread"}),
        ({"MLOPS_DEVICE_VALUES": "lazy"}, {"device_values": "lazy"}),
        ({"MLOPS_FINISH_TIMEOUT": "2.5"}, {"finish_timeout": 2.5}),
        ({"MLOPS_FINISH_TIMEOUT": "0"}, {"finish_timeout": 0.0}),
        ({"MLOPS_LINGER": "60"}, {"linger": 60.0}),
        ({"MLOPS_QUIET": "1"}, {"quiet": True}),
        ({"MLOPS_QUIET": "true"}, {"quiet": True}),
        ({"MLOPS_QUIET": "0"}, {"quiet": False}),
    ],
)
def test_environment(environ: dict[str, str], expected: dict[str, Any], tmp_path: Path) -> None:
    """Each variable sets what it is for, and nothing else."""
    assert DEFAULTS | {"root": tmp_path / "mlops_runs"} | expected == fields_of(from_arguments(environ=environ))


def test_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then the variable, absolute, with the home directory filled in; both count as asked for."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    environ = {"MLOPS_DIR": "~/from variable"}
    by_variable = from_arguments(environ=environ)
    by_argument = from_arguments(directory="from argument", environ=environ)
    assert (tmp_path / "home" / "from variable", True) == (by_variable.root, by_variable.root_is_explicit)
    assert (tmp_path / "from argument", True) == (by_argument.root, by_argument.root_is_explicit)
    assert by_variable.root == settings.default_root(environ)


def test_arguments_win() -> None:
    """What is said in the call counts, whatever the environment says."""
    environ = {
        "MLFLOW_TRACKING_URI": "http://variable",
        "MLFLOW_EXPERIMENT_NAME": "variable",
        "MLFLOW_EXPERIMENT_ID": "1",
        "MLFLOW_RUN_ID": "variable",
        "MLOPS_MODE": "disabled",
        "MLOPS_UPLOADER": "process",
    }
    found = from_arguments(
        tracking_uri="http://argument",
        experiment_name="argument",
        resume="argument",
        mode="online",
        uploader="thread",
        environ=environ,
    )
    expected = ("http://argument", "argument", None, "argument", "online", "thread", "http://argument")
    assert expected == (
        found.tracking_uri,
        found.experiment_name,
        found.experiment_id,
        found.resume,
        found.mode,
        found.uploader,
        found.destination,
    )


def test_environment_is_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable set after the import counts."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://late")
    assert from_arguments().tracking_uri == "http://late"
    assert settings.default_tracking_uri() == "http://late"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"mode": "on"}, "'online', 'offline', 'disabled'"),
        ({"uploader": "fork"}, "'process', 'thread'"),
        ({"experiment_name": "a", "experiment_id": "1"}, "not both"),
        ({"tracking_uri": "localhost:5000"}, "did you mean 'http://localhost:5000'"),
        ({"tracking_uri": "host"}, "did you mean 'http://host'"),
        ({"tracking_uri": "http:///path"}, "names no host"),
        ({"tracking_uri": "http://h:99999"}, "port"),
        ({"tracking_uri": "http://h:abc"}, "port"),
        ({"tracking_uri": "http://[::1"}, "can't be read"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "mlflow server --backend-store-uri sqlite:///mlflow.db"),
        ({"tracking_uri": "file:///tmp/mlruns"}, "mlflow server"),
        ({"tracking_uri": "./mlruns"}, "mlflow server"),
        ({"tracking_uri": "databricks"}, "DATABRICKS_HOST and DATABRICKS_TOKEN"),
        ({"tracking_uri": "databricks://nobody"}, "section [nobody]"),
        ({"tracking_uri": ""}, "is empty"),
        ({"tracking_uri": "htp://host:5000"}, "http, https, databricks and oracle-aidp are"),
    ],
)
def test_bad_arguments_raise(arguments: dict[str, Any], hint: str) -> None:
    """The message says what would make sense."""
    with pytest.raises(ValueError) as raised:
        from_arguments(**arguments, environ={})
    assert hint in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        ("MLFLOW_TRACKING_URI", "./mlruns"),
        ("MLFLOW_TRACKING_URI", "host:5000"),
        ("MLFLOW_TRACKING_URI", "http://[::1"),
        ("MLOPS_MODE", "on"),
        ("MLOPS_UPLOADER", "fork"),
        ("MLOPS_DEVICE_VALUES", "gpu"),
        ("MLOPS_FINISH_TIMEOUT", "soon"),
        ("MLOPS_FINISH_TIMEOUT", "-1"),
        ("MLOPS_FINISH_TIMEOUT", "nan"),
        ("MLOPS_FINISH_TIMEOUT", "inf"),
        ("MLOPS_LINGER", "10m"),
    ],
)
def test_bad_variables_are_said(name: str, value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A typo in a job file ends no training: the default is taken, and one message says so."""
    found = from_arguments(environ={name: value})
    assert DEFAULTS | {"root": tmp_path / "mlops_runs"} == fields_of(found)
    assert [(entry.name, entry.levelno) for entry in caplog.records] == [("mlops_integrations", logging.WARNING)]
    assert caplog.messages[0].startswith(f"mlops: {name}")


@pytest.mark.parametrize(
    ("uri", "bare", "username", "password"),
    [
        ("http://h", "http://h", None, None),
        (" HTTP://Host:5000/ ", "http://host:5000", None, None),
        ("https://h/prefix/deep/", "https://h/prefix/deep", None, None),
        ("http://u:p@h:1/x", "http://h:1/x", "u", "p"),
        ("http://u%40corp:p%2Fq%3A@h", "http://h", "u@corp", "p/q:"),
        ("http://u@h", "http://h", "u", None),
        ("http://u:p@q@h", "http://h", "u", "p@q"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x", None, None),
        ("http://u:p@[fe80::1]", "http://[fe80::1]", "u", "p"),
        ("https://h/x?token=t#y", "https://h/x", None, None),
    ],
)
def test_credentials_leave_the_uri(uri: str, bare: str, username: str | None, password: str | None) -> None:
    """What is kept on disk and shown has neither user nor password nor query."""
    assert (bare, username, password) == split_credentials(uri, {})


@pytest.mark.parametrize(
    "uri",
    [
        f"ftp://user:{CANARY}@h",
        f"http://user:{CANARY}@",
        f"http://user:{CANARY}@h:port",
        f"user:{CANARY}@h",
        f"http://user:{CANARY}/slash@h",
        f"http://user:at@{CANARY}@h:port",
        f"sqlite://user:{CANARY}@h/db",
        f"http://user:{CANARY}\uff0f@h",
    ],
)
def test_errors_show_no_password(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    """However wrong the URI is, its password is not repeated."""
    with pytest.raises(ValueError) as raised:
        from_arguments(tracking_uri=uri, environ={})
    assert CANARY not in str(raised.value)
    from_arguments(environ={"MLFLOW_TRACKING_URI": uri})
    assert CANARY not in caplog.text


def test_secrets_are_not_shown() -> None:
    """Neither settings nor access tell a secret when they are printed."""
    environ = {
        "MLFLOW_TRACKING_URI": f"http://user:{CANARY}@h",
        "MLFLOW_TRACKING_PASSWORD": CANARY,
        "MLFLOW_TRACKING_TOKEN": CANARY,
        "MLOPS_TOKEN_COMMAND": f"vault --secret {CANARY}",
    }
    found = from_arguments(environ=environ)
    assert found.password == CANARY
    assert CANARY not in repr(found)
    assert CANARY not in repr(access(found, environ))
    assert (found.without_secrets().username, found.without_secrets().password) == (None, None)


def test_access() -> None:
    """MLflow's variables mean what they mean there."""
    assert Access() == access(environ={})
    environ = {
        "MLFLOW_TRACKING_USERNAME": "u",
        "MLFLOW_TRACKING_PASSWORD": "p",
        "MLFLOW_TRACKING_TOKEN": "t",
        "MLOPS_TOKEN_FILE": "/f",
        "MLOPS_TOKEN_COMMAND": "c",
        "MLFLOW_TRACKING_INSECURE_TLS": "true",
        "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/client",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    }
    assert Access("u", "p", "t", "/f", "c", True, None, "/client", 5.0) == access(environ=environ)


def test_server_certificate_and_insecure(caplog: pytest.LogCaptureFixture) -> None:
    """Asked for both, the safer one counts, and it is said."""
    environ = {"MLFLOW_TRACKING_INSECURE_TLS": "true", "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca"}
    found = access(environ=environ)
    assert (found.insecure_tls, found.server_certificate) == (False, "/ca")
    assert "MLFLOW_TRACKING_INSECURE_TLS is ignored" in caplog.text


@pytest.mark.parametrize("value", ["0", "-5", "x"])
def test_request_timeout_is_never_none(value: str) -> None:
    """A request without a time-out could hang for ever."""
    assert access(environ={"MLFLOW_HTTP_REQUEST_TIMEOUT": value}).timeout == settings.REQUEST_SECONDS


def test_credentials_of_the_uri_win() -> None:
    """Those that stood in the URI belong to that server."""
    environ = {"MLFLOW_TRACKING_USERNAME": "variable", "MLFLOW_TRACKING_PASSWORD": "variable"}
    found = access(from_arguments(tracking_uri="http://u@h", environ=environ), environ)
    assert (found.username, found.password) == ("u", "")


def test_side_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The side process gets what we have, the URI's credentials, and tracking switched off within it."""
    monkeypatch.setenv("MLOPS_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    found = settings.side_process_environment(from_arguments(tracking_uri="http://u:p@h"), "/a:/b")
    expected = {
        "MLOPS_MODE": "disabled",
        "MLOPS_SEARCH_PATH": "/a:/b",
        "MLFLOW_TRACKING_USERNAME": "u",
        "MLFLOW_TRACKING_PASSWORD": "p",
        "MLFLOW_TRACKING_TOKEN": "t",
        "PATH": os.environ["PATH"],
    }
    assert expected == {name: found.get(name) for name in expected}
    assert os.environ["MLOPS_MODE"] == "online"


def test_linger() -> None:
    """Read by the side process for itself."""
    assert (settings.linger({}), settings.linger({"MLOPS_LINGER": "3"})) == (600.0, 3.0)


def test_who_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and source are named as MLflow's own client names them; a user unknown to the system is no failure."""
    monkeypatch.setattr(sys, "argv", ["/work space/train.py", "--lr"])
    assert launch.source() == ("/work space/train.py", "LOCAL")
    monkeypatch.setattr(sys, "argv", [])
    assert launch.source() == ("<console>", "LOCAL")
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    assert launch.source() == ("/home/me/a.ipynb", "NOTEBOOK")
    assert getpass.getuser() == launch.user_name()
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)
    assert launch.user_name() is None


@pytest.mark.parametrize("options", [{"resume": 5}, {"parent": 5}, {"resume": b"mlops-1"}])
def test_what_names_a_run_is_a_text(options: dict[str, Any], tmp_path: Path) -> None:
    """Anything else raises, before anything is made."""
    with pytest.raises(ValueError, match="takes a Run, its uid or a server's run id as a text, not"):
        mlops.start_run(directory=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_numbers_as_names(tmp_path: Path) -> None:
    """An experiment or a run may be named by a number; what is written can be read."""
    options = {"directory": tmp_path, "mode": "offline", "uploader": "thread"}
    with mlops.start_run(experiment_name=5, run_name=7, **options) as run:  # type: ignore[arg-type]
        run.log_metric("loss", 0.5)
    spec = RunDirectory(run.directory).spec()
    assert ("5", "7") == (spec.experiment_name, spec.name)


def test_a_run_that_could_not_be_read_is_none() -> None:
    """What is of no use to a reader is not written."""
    with pytest.raises(ValueError, match="got `int`"):
        values.well_formed_spec(RunSpec("uid", "name", 1, user=5))  # type: ignore[arg-type]
