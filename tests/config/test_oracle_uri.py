"""The two spellings of an Oracle tracking URI, and what is kept of them."""

from __future__ import annotations

import pytest

from mlops_integrations.config import oracle_uri
from mlops_integrations.config.oracle_uri import OracleAddress
from mlops_integrations.config.settings import Access, access, from_arguments
from mlops_integrations.config.tracking_uri import split_credentials

PLACE = "/20260430/aiDataPlatforms/ocid1.x.oc1/workspaces/key"
HOST = "https://aidp.us-ashburn-1.oci.oraclecloud.com"


@pytest.mark.parametrize(
    ("uri", "kept", "base"),
    [
        (f"{HOST}{PLACE}", f"{HOST}{PLACE}", f"{HOST}{PLACE}"),
        (f"{HOST}{PLACE}/mlops", f"{HOST}{PLACE}", f"{HOST}{PLACE}"),
        (f"{HOST}{PLACE}/mlops/api/2.0/mlflow/", f"{HOST}{PLACE}", f"{HOST}{PLACE}"),
        (f" HTTPS://Host:8443/gw/api{PLACE}/ ", f"https://host:8443/gw/api{PLACE}", f"https://host:8443/gw/api{PLACE}"),
        (f"http://[::1]:80{PLACE}", f"http://[::1]:80{PLACE}", f"http://[::1]:80{PLACE}"),
        (f"{HOST}{PLACE}?profile=P&auth=api_key", f"{HOST}{PLACE}?auth=api_key&profile=P", f"{HOST}{PLACE}"),
        (
            f"{HOST}/20260430/aiDataPlatforms/a%2Fb%20c/workspaces/k:%25",
            f"{HOST}/20260430/aiDataPlatforms/a%2Fb%20c/workspaces/k%3A%25",
            f"{HOST}/20260430/aiDataPlatforms/a%2Fb%20c/workspaces/k%3A%25",
        ),
        ("oracle-aidp://us-ashburn-1/ocid1.x.oc1/key", "oracle-aidp://us-ashburn-1/ocid1.x.oc1/key", f"{HOST}{PLACE}"),
        (
            "oracle-aidp://US-Ashburn-1/ocid1.x.oc1/key/?auth=security_token&profile=my%20own",
            "oracle-aidp://us-ashburn-1/ocid1.x.oc1/key?auth=security_token&profile=my+own",
            f"{HOST}{PLACE}",
        ),
        (
            "oracle-aidp://r/a%2Fb/k?api_version=20250101&prefix=/gw/api/&endpoint=https://H:1/",
            "oracle-aidp://r/a%2Fb/k?endpoint=https%3A%2F%2Fh%3A1&prefix=%2Fgw%2Fapi%2F&api_version=20250101",
            "https://h:1/gw/api/20250101/aiDataPlatforms/a%2Fb/workspaces/k",
        ),
    ],
)
def test_spellings(uri: str, kept: str, base: str) -> None:
    """Each leads to one address, and to one spelling under which it is remembered and read again."""
    assert (kept, None, None) == split_credentials(uri, {})
    assert split_credentials(kept, {})[0] == kept
    address = oracle_uri.parse(uri)
    assert address is not None
    assert address == oracle_uri.parse(kept)
    assert address.base() == base


def test_what_it_says() -> None:
    """Names as they are, options by their names; the domain is that of the region's realm."""
    address = oracle_uri.parse("oracle-aidp://us-gov-1/a%2Fb/k?auth=instance_principal&profile=P")
    expected = OracleAddress("us-gov-1", None, "/20260430", "a/b", "k", "instance_principal", "P")
    assert address == expected
    assert expected.base("oraclegovcloud.com").startswith("https://aidp.us-gov-1.oci.oraclegovcloud.com/20260430/")


@pytest.mark.parametrize("uri", ["http://host:5000", "https://h/aiDataPlatformsX/a", "sqlite:///x", "databricks", ""])
def test_others(uri: str) -> None:
    """Are none of Oracle's."""
    assert oracle_uri.parse(uri) is None
    assert oracle_uri.canonical(uri) is None


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        (f"{HOST}/20260430/aiDataPlatforms/x", "workspaces/{key}"),
        (f"{HOST}{PLACE}/other", "workspaces/{key}"),
        (f"https://user:hunter2@host{PLACE}", "no user and password"),
        (f"https://host:99999{PLACE}", "port"),
        (f"{HOST}{PLACE}?token=hunter2", "no option 'token'"),
        (f"{HOST}{PLACE}?endpoint=x", "no option 'endpoint'"),
        (f"{HOST}{PLACE}?auth=password", "auth='password'"),
        ("oracle-aidp://us-ashburn-1/only-one", "{aiDataPlatformId}/{workspaceKey}"),
        ("oracle-aidp:///a/b", "{region}"),
        ("oracle-aidp://user:hunter2@r/a/b", "{region}"),
        ("oracle-aidp://r/a/b?endpoint=ftp://h", "https://host"),
        ("oracle-aidp://r/a/b?endpoint=https://u:hunter2@h", "no user and password"),
        ("oracle-aidp://r/a/b?endpoint=https://h/gw", "prefix="),
        ("oracle-aidp://r/a/b?password=hunter2", "no option 'password'"),
    ],
)
def test_what_is_none(uri: str, hint: str) -> None:
    """It is said how they read, without any secret that stands there."""
    with pytest.raises(ValueError) as raised:
        from_arguments(tracking_uri=uri, environ={})
    assert hint in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_workspace_of_the_environment(caplog: pytest.LogCaptureFixture) -> None:
    """It is taken as it is; one that is none is said, and the run is recorded locally."""
    found = from_arguments(environ={"MLFLOW_TRACKING_URI": f"{HOST}{PLACE}/mlops"})
    assert (found.tracking_uri, found.mode) == (f"{HOST}{PLACE}", "online")
    assert from_arguments(environ={"MLFLOW_TRACKING_URI": f"{HOST}{PLACE}?key=hunter2"}).tracking_uri is None
    assert "no option 'key'" in caplog.text
    assert "hunter2" not in caplog.text


def test_oracles_own_variables() -> None:
    """Those of its SDK and of its command lines; MLflow's for a plugin."""
    environ = {
        "OCI_CONFIG_FILE": "/c",
        "OCI_CLI_CONFIG_FILE": "/other",
        "OCI_CLI_PROFILE": "P",
        "OCI_CLI_AUTH": "security_token",
        "MLFLOW_TRACKING_AUTH": "plugin",
    }
    found = access(environ=environ)
    assert (found.oracle_config, found.oracle_profile, found.oracle_auth) == ("/c", "P", "security_token")
    assert found.request_auth == "plugin"
    assert access(environ={"OCI_CLI_CONFIG_FILE": "/other"}).oracle_config == "/other"
    assert access(environ={"OCI_CLI_AUTH": "instance_obo_user"}).oracle_auth is None
    assert Access() == access(environ={})


def test_headers() -> None:
    """As a JSON object; they are not shown with the other settings."""
    found = access(environ={"MLOPS_HEADERS": '{"dh-user-principal": "hunter2", "x-team": "a; b, c"}'})
    assert found.headers == (("dh-user-principal", "hunter2"), ("x-team", "a; b, c"))
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    "text", ['{"a b": "hunter2"}', '{"a": "hunter2\\n"}', '{"a": 1}', '["hunter2"]', "a: hunter2", '{"a": "hünter2"}']
)
def test_headers_that_are_none(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, without showing them, and none is taken."""
    assert access(environ={"MLOPS_HEADERS": text}).headers == ()
    (message,) = caplog.messages
    assert message.startswith("mlops: MLOPS_HEADERS is not used")
    assert "nter2" not in message
