"""Whom the credentials are for: told from addresses and variables alone."""

from __future__ import annotations

import pytest

from mlops_integrations.config.credential_owner import Withheld, origin, same_server
from mlops_integrations.config.settings import Access, access, access_to, environment_names, from_arguments

SECRETS = {
    "MLFLOW_TRACKING_USERNAME": "ann",
    "MLFLOW_TRACKING_PASSWORD": "canary",
    "MLFLOW_TRACKING_TOKEN": "canary",
    "MLOPS_TOKEN_FILE": "/canary",
    "MLOPS_TOKEN_COMMAND": "vault canary",
    "MLOPS_HEADERS": '{"x-team": "canary"}',
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/canary.pem",
    "MLFLOW_TRACKING_AUTH": "plugin",
}
ORACLE = "https://aidp.eu-1.oci.oraclecloud.com/20260430/aiDataPlatforms/p/workspaces/w"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://mine", "http://mine:80"),
        ("https://mine", "https://mine:443"),
        ("https://mine:443/prefix", "https://MINE/other"),
        ("HTTPS://mine", "https://mine"),
        ("http://[::1]:5000", "http://[::1]:5000/x"),
        ("http://bücher.example", "http://bücher.example"),
        ("oracle-aidp://eu-1/p/w", ORACLE),
        ("oracle-aidp://eu-1/p/w?profile=A", "oracle-aidp://eu-1/q/v"),
        ("oracle-aidp://eu-1/p/w?endpoint=https://gateway", "https://gateway:443"),
    ],
)
def test_the_same_server(one: str, other: str) -> None:
    """Scheme, host and port are compared; ports that are left out are the scheme's, the path does not count."""
    assert same_server(one, other)
    assert same_server(other, one)


@pytest.mark.parametrize(
    "theirs",
    [
        "http://mine:443",
        "https://mine:444",
        "https://mine.theirs",
        "https://mine.",
        "https://theirs/mine",
        "https://127.0.0.1",
        "https://mine@theirs",
        "https://theirs@mine",
        "https://theirs\\@mine",
        "https://theirs\\.mine",
        "https://mine\\@theirs",
        "https://theirs?@mine",
        "https://theirs#@mine",
        "https://mine:@theirs",
        "https://theirs:1@mine:443",
        "https://mine%2e",
        "https://mine\t.theirs",
        "https://m\nine",
        " https://mine",
        "https://mine ",
        "https://\uff4dine",
        "https:///mine",
        "https:/mine",
        "https:mine",
        "//mine",
        "mine",
        "",
        "https://[mine",
        "https://mine:port",
        "https://mine:٤٤٣",
        "ftp://mine",
        "databricks",
        "oracle-aidp://mine/p/w",
        "oracle-aidp://eu-1/p/w?endpoint=https://theirs",
        "oracle-aidp://eu-1/p/w?endpoint=https://theirs%5C.mine",
        "oracle-aidp://broken",
    ],
)
def test_another_server(theirs: str) -> None:
    """What libraries may read differently from each other is no server of ours."""
    assert not same_server(theirs, "https://mine")
    assert not same_server(theirs, ORACLE)


def test_origin() -> None:
    """Is told with its port."""
    assert (origin("https://Mine/x"), origin("http://mine")) == ("https://mine:443", "http://mine:80")
    assert (origin("http://[::1]"), origin("sqlite:///x")) == ("http://[::1]:80", None)


@pytest.mark.parametrize("destination", ["https://mine:443", "https://mine/prefix"])
def test_the_named_server_gets_all(destination: str) -> None:
    """By the environment, or by an argument whatever the environment names."""
    by_environment = from_arguments(environ=SECRETS | {"MLFLOW_TRACKING_URI": "https://mine"})
    assert access_to(destination, by_environment, SECRETS) == access(by_environment, SECRETS)
    by_argument = from_arguments(
        tracking_uri="https://bob:pw@mine", environ=SECRETS | {"MLFLOW_TRACKING_URI": "http://other"}
    )
    found = access_to(destination, by_argument, SECRETS)
    assert (found.username, found.password, found.token, found.withheld) == ("bob", "pw", "canary", None)


@pytest.mark.parametrize(("uri", "owner"), [("https://mine", "https://mine:443"), (None, None)])
def test_another_server_gets_nothing(uri: str | None, owner: str | None) -> None:
    """But certificates of servers and time-outs, which are no secrets; what is kept from it is named."""
    plain = {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    environ = SECRETS | plain | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
    found = access_to("https://theirs", from_arguments(environ=environ), environ)
    withheld = Withheld(tuple(SECRETS), owner, "https://theirs")
    assert found == Access(server_certificate="/ca", timeout=5.0, withheld=withheld)
    assert "canary" not in repr(found)
    insecure = access_to("https://theirs", from_arguments(environ={}), {"MLFLOW_TRACKING_INSECURE_TLS": "1"})
    assert insecure == Access(insecure_tls=True)


@pytest.mark.parametrize("name", SECRETS)
def test_each_kind_alone(name: str) -> None:
    """Is kept, and named."""
    found = access_to("https://theirs", from_arguments(environ={}), {name: SECRETS[name]})
    assert found == Access(withheld=Withheld((name,), None, "https://theirs"))


def test_without_credentials_nothing_is_withheld() -> None:
    """Then there is nothing to say."""
    environ = {"MLFLOW_TRACKING_URI": "https://mine"}
    assert access_to("https://theirs", from_arguments(environ=environ), environ) == Access()


def test_those_of_the_uri() -> None:
    """Are no variables to send elsewhere: the command leaves room for others."""
    environ = SECRETS | {"MLFLOW_TRACKING_URI": "https://bob:canary@mine"}
    withheld = access_to("https://theirs/x", from_arguments(environ=environ), environ).withheld
    assert withheld is not None
    assert withheld.what == ("MLFLOW_TRACKING_URI", *list(SECRETS)[2:])
    assert withheld.address == "https://USER:PASSWORD@theirs/x"


def test_oracle() -> None:
    """Its keys lie in a file: there is always something to withhold, and no use in asking without."""
    found = access_to(f"{ORACLE}?profile=A", from_arguments(environ={}), {})
    assert found.withheld == Withheld(("Oracle's configuration",), None, f"{ORACLE}?profile=A", needed=True)


def test_databricks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace that only a run directory names gets no token, also where ``databricks`` stands for it."""
    environ = {"DATABRICKS_HOST": "https://workspace.example", "DATABRICKS_TOKEN": "canary"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = access_to("https://workspace.example", from_arguments(environ=environ), environ)
    assert found == Access(withheld=Withheld(("Databricks' configuration",), None, "databricks"))
    assert access_to("https://theirs", from_arguments(environ=environ), environ) == Access()
    named = from_arguments(environ=environ | {"MLFLOW_TRACKING_URI": "databricks"})
    assert access_to("https://workspace.example", named, environ).password == "canary"
    assert access_to("https://theirs", named, environ).password is None


def test_the_environment_names() -> None:
    """The same server, by whatever spelling; without a URI none."""
    environ = {"MLFLOW_TRACKING_URI": "https://u:p@mine:443/x"}
    assert environment_names("https://mine", environ)
    assert not environment_names("https://theirs", environ)
    assert not environment_names("https://mine", {})
    assert not environment_names("https://mine", {"MLFLOW_TRACKING_URI": "sqlite:///x"})
