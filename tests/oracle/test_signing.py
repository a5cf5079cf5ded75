"""Every kind of credentials signs requests that the service takes; what is missing is said with what to do."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oci
import pytest

import mlops_integrations as mlops
from mlops_integrations.backends.oracle import signing
from mlops_integrations.backends.protocol import Kind
from mlops_integrations.backends.registry import open_backend
from mlops_integrations.config.settings import access
from mlops_integrations.errors import AccessDeniedError
from mlops_integrations.journal import cursor
from oracle_gateway import Gateway
from real_mlflow import eventually

from .conftest import API_KEY_ID, Keys


def asked_by(gateway: Gateway, uri: str) -> str:
    """The key that a client at this address signs with."""
    list(mlops.TrackingClient(uri).list_experiments())
    return gateway.seen[-1].key_id


def test_an_api_key(gateway: Gateway) -> None:
    """Is what a profile has that names no token."""
    assert asked_by(gateway, gateway.uri) == API_KEY_ID


def test_a_security_token(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is found in the profile, which the URI or Oracle's own variable names."""
    assert asked_by(gateway, f"{gateway.uri}?profile=SESSION") == "ST$first-token"
    monkeypatch.setenv("OCI_CLI_PROFILE", "SESSION")
    assert asked_by(gateway, gateway.uri) == "ST$first-token"
    assert asked_by(gateway, f"{gateway.uri}?profile=DEFAULT") == API_KEY_ID


def test_a_token_is_read_again(gateway: Gateway, keys: Keys) -> None:
    """When it is refused, by the same client, within the same call."""
    client = mlops.TrackingClient(f"{gateway.uri}?profile=SESSION")
    list(client.list_experiments())
    keys.token.write_text("second-token")
    gateway.keys["ST$second-token"] = gateway.keys.pop("ST$first-token")
    list(client.list_experiments())
    assert [(seen.status, seen.key_id) for seen in gateway.seen] == [
        (200, "ST$first-token"),
        (401, "ST$first-token"),
        (200, "ST$second-token"),
    ]
    keys.token.unlink()
    gateway.keys.clear()
    with pytest.raises(AccessDeniedError, match="Oracle's configuration file"):
        list(client.list_experiments())


def test_a_resource_principal(gateway: Gateway, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what Oracle's functions and data flows put into the environment."""

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    token = f"{part({'alg': 'RS256'})}.{part({'exp': 4_000_000_000, 'res_tenant': 't'})}.c2ln"
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "2.2")
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_RPST", token)
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", keys.pem.decode())
    monkeypatch.setenv("OCI_RESOURCE_PRINCIPAL_REGION", "us-ashburn-1")
    gateway.keys[f"ST${token}"] = keys.private.public_key()
    assert asked_by(gateway, f"{gateway.uri}?auth=resource_principal") == f"ST${token}"


def test_an_instance_principal(gateway: Gateway, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Oracle's signer for it, whose certificates only a machine of Oracle's has."""
    signer = oci.auth.signers.SecurityTokenSigner("of-the-instance", keys.private)
    monkeypatch.setattr(oci.auth.signers, "InstancePrincipalsSecurityTokenSigner", lambda: signer)
    gateway.keys["ST$of-the-instance"] = keys.private.public_key()
    assert asked_by(gateway, f"{gateway.uri}?auth=instance_principal") == "ST$of-the-instance"
    monkeypatch.setenv("OCI_CLI_AUTH", "instance_principal")
    assert asked_by(gateway, gateway.uri) == "ST$of-the-instance"


PLUGIN = """
import base64, email.utils, hashlib, os
from urllib.parse import urlsplit
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from mlflow.tracking.request_auth.abstract_request_auth_provider import RequestAuthProvider

KEY = serialization.load_pem_private_key(open(os.environ["PLUGIN_KEY"], "rb").read(), None)

def sign(request):
    values = {"date": email.utils.formatdate(usegmt=True), "host": urlsplit(request.url).netloc}
    values["(request-target)"] = f"{request.method.lower()} {request.path_url}"
    if request.method == "POST":
        values["content-length"] = str(len(request.body))
        values["content-type"] = "application/json"
        values["x-content-sha256"] = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
    text = "\\n".join(f"{name}: {value}" for name, value in values.items())
    signature = base64.b64encode(KEY.sign(text.encode(), PKCS1v15(), hashes.SHA256())).decode()
    request.headers.update({name: value for name, value in values.items() if "(" not in name})
    request.headers["authorization"] = (
        f'Signature algorithm="rsa-sha256",headers="{" ".join(values)}",keyId="ST$of-the-notebook",'
        f'signature="{signature}",version="1"'
    )
    return request

class Provider(RequestAuthProvider):
    def get_name(self):
        return "AIDP"

    def get_auth(self):
        return sign
"""

IN_A_NOTEBOOK = """
import mlops_integrations as mlops
client = mlops.TrackingClient()
print(client.dialect)
list(client.list_experiments())
with mlops.start_run(experiment_name="ambient") as run:
    run.log_metric("loss", 1.0)
print(run.finish(timeout=60))
"""


def notebook(directory: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the interpreter that has MLflow, with a plugin as Oracle's notebooks have one."""
    (directory / "aidp_plugin.py").write_text(PLUGIN)
    about = directory / "aidp_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: aidp-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mlflow.request_auth_provider]\naidp = aidp_plugin:Provider\n")
    (directory / "mlops_integrations").symlink_to(Path(mlops.__file__).parent)
    env = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    env |= {"PYTHONPATH": str(directory), **environment}
    python = os.environ.get("TEST_SERVER_PYTHON", sys.executable)
    return subprocess.run(
        [python, "-c", script], capture_output=True, text=True, cwd=directory, env=env, timeout=200, check=False
    )


@pytest.fixture
def ambient(gateway: Gateway, keys: Keys) -> dict[str, str]:
    """What an Oracle notebook finds in its environment."""
    gateway.keys["ST$of-the-notebook"] = keys.private.public_key()
    return {
        "MLFLOW_TRACKING_URI": f"{gateway.uri}/mlops",
        "MLFLOW_TRACKING_AUTH": "AIDP",
        "PLUGIN_KEY": str(keys.directory / "key.pem"),
    }


def test_ambient(gateway: Gateway, ambient: dict[str, str], tmp_path: Path) -> None:
    """In Oracle's notebooks nothing is to be set: MLflow's variables name server and plugin, no key is needed."""
    done = notebook(tmp_path, IN_A_NOTEBOOK, **ambient)
    assert done.stdout.split() == ["oracle-aidp", "True"], done.stderr
    assert {seen.key_id for seen in gateway.seen} == {"ST$of-the-notebook"}
    assert [point[0] for point in gateway.points()] == ["loss"]
    gateway.keys.clear()


def test_ambient_without_its_plugin(gateway: Gateway, ambient: dict[str, str], tmp_path: Path) -> None:
    """MLflow itself would go on unsigned; here it is said."""
    done = notebook(
        tmp_path,
        "import mlops_integrations as m; m.TrackingClient().dialect",
        **{**ambient, "MLFLOW_TRACKING_AUTH": "X"},
    )
    assert done.returncode == 1
    assert "AccessDeniedError: MLFLOW_TRACKING_AUTH=X: MLflow knows no plugin of this name here" in done.stderr
    assert gateway.seen == []


def test_ambient_without_mlflow(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is MLflow's plugin, so it takes MLflow."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "AIDP")
    with pytest.raises(AccessDeniedError, match="the package mlflow, which is not installed"):
        list(mlops.TrackingClient(gateway.uri).list_experiments())
    monkeypatch.delenv("MLFLOW_TRACKING_AUTH")
    with pytest.raises(AccessDeniedError, match="MLFLOW_TRACKING_AUTH is not set"):
        list(mlops.TrackingClient(f"{gateway.uri}?auth=ambient").list_experiments())


def test_no_oci(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error, with the command that mends it; delivery stops, for it can't mend itself."""
    monkeypatch.setitem(sys.modules, "oci", None)
    with pytest.raises(ImportError, match="pip install oci"):
        list(mlops.TrackingClient(gateway.uri).list_experiments())
    run = mlops.start_run(experiment_name="no oci", tracking_uri=gateway.uri, uploader="thread")
    run.log_metric("loss", 1)
    assert not run.finish(timeout=30)
    (state,) = cursor.load_all(run.directory)
    assert state.trouble is not None
    assert state.trouble.stopped
    assert signing.INSTALL in state.trouble.message


def damage(keys: Keys, what: str) -> None:
    """Take something away that is needed to sign."""
    text = keys.config.read_text()
    if what == "no file":
        keys.config.unlink()
    elif what == "no key":
        (keys.directory / "key.pem").unlink()
    elif what == "no token":
        keys.token.unlink()
    else:
        keys.config.write_text(text.replace("fingerprint", "finger"))


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        ("no file", "", "Could not find config file at"),
        ("no profile", "?profile=NOBODY", "Profile 'NOBODY' not found"),
        ("no key", "", "key.pem"),
        ("no token", "?profile=SESSION", "token"),
        ("no fingerprint", "", "has no fingerprint"),
        ("wrong kind", "?auth=security_token", "has no security_token_file"),
    ],
)
def test_what_is_missing(gateway: Gateway, keys: Keys, what: str, options: str, said: str) -> None:
    """Is said; nothing is asked of the service, and nothing raises in a training, where it may yet come."""
    if what not in {"no profile", "wrong kind"}:
        damage(keys, what)
    uri = gateway.uri + options
    with pytest.raises(AccessDeniedError) as caught:
        list(mlops.TrackingClient(uri).list_experiments())
    assert said in str(caught.value)
    found = open_backend(uri, access()).recognize(None)
    assert (found.kind, said in found.message) == (Kind.DENIED, True)
    assert gateway.seen == []


def test_credentials_that_come_later(gateway: Gateway, keys: Keys) -> None:
    """A training that began without them is delivered as soon as they are there."""
    aside = keys.config.rename(keys.config.with_name("aside"))
    run = mlops.start_run(experiment_name="late", tracking_uri=gateway.uri, uploader="thread")
    run.log_metric("loss", 1)
    eventually(lambda: [state.trouble for state in cursor.load_all(run.directory) if state.trouble is not None])
    aside.rename(keys.config)
    assert run.finish(timeout=60)


def test_no_secret_is_written_down(gateway: Gateway, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither token nor header nor key is in the run directory, whatever fails; URI and options are."""
    monkeypatch.setenv("MLOPS_HEADERS", '{"dh-user-principal": "hunter2"}')
    keys.token.write_text("secret-token")
    gateway.keys["ST$secret-token"] = keys.private.public_key()
    run = mlops.start_run(experiment_name="secrets", tracking_uri=f"{gateway.uri}?profile=SESSION")
    run.log_metric("loss", 1)
    assert run.flush(timeout=30)
    gateway.keys.pop("ST$secret-token")
    run.log_metric("loss", 2)
    eventually(lambda: [state.trouble for state in cursor.load_all(run.directory) if state.trouble is not None])
    written = b"".join(path.read_bytes() for path in run.directory.rglob("*") if path.is_file())
    assert b"profile=SESSION" in written
    for secret in (b"secret-token", b"hunter2", keys.pem.splitlines()[3]):
        assert secret not in written
    assert {seen.headers["dh-user-principal"] for seen in gateway.seen} == {"hunter2"}
    gateway.keys["ST$secret-token"] = keys.private.public_key()
    assert run.finish(timeout=60)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-ashburn-1", "aidp.us-ashburn-1.oci.oraclecloud.com"),
        ("us-gov-ashburn-1", "aidp.us-gov-ashburn-1.oci.oraclegovcloud.com"),
        ("xx-unheard-of-1", "aidp.xx-unheard-of-1.oci.oraclecloud.com"),
    ],
)
def test_the_host_of_a_region(keys: Keys, region: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends with the domain of the region's realm; nothing is asked to find out."""
    connected: list[object] = []
    wanted: Callable[..., None] = lambda *where: connected.append(where)  # noqa: E731
    monkeypatch.setattr("socket.create_connection", wanted)
    backend: Any = open_backend(f"oracle-aidp://{region}/platform/key", access())
    assert backend._base == f"https://{host}/20260430/aiDataPlatforms/platform/workspaces/key/mlops"
    assert connected == []
