"""The gateway, keys to sign with, and Oracle's configuration file. Needs Oracle's ``oci`` and an MLflow server."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("oci")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import mlops_integrations as mlops

if TYPE_CHECKING:
    from oracle_gateway import Gateway
    from real_mlflow import MlflowServer

TENANCY = "ocid1.tenancy.oc1..aaaatenancy"
USER = "ocid1.user.oc1..aaaauser"
FINGERPRINT = ":".join(["ab"] * 16)
API_KEY_ID = f"{TENANCY}/{USER}/{FINGERPRINT}"


@dataclass
class Keys:
    """A key pair, and where a configuration file names it."""

    private: rsa.RSAPrivateKey
    directory: Path

    @property
    def pem(self) -> bytes:
        """The private key as files hold it."""
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def config(self) -> Path:
        """Oracle's configuration file."""
        return self.directory / "config"

    @property
    def token(self) -> Path:
        """The file with the security token of the profile SESSION."""
        return self.directory / "token"


@pytest.fixture(scope="session")
def private_key() -> rsa.RSAPrivateKey:
    """A key to sign with."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def keys(private_key: rsa.RSAPrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A configuration file with an API key (DEFAULT) and a security token (SESSION), named by OCI_CONFIG_FILE."""
    for name in os.environ:
        if name.startswith("OCI_"):
            monkeypatch.delenv(name)
    made = Keys(private_key, tmp_path / "oci")
    made.directory.mkdir()
    (made.directory / "key.pem").write_bytes(made.pem)
    made.token.write_text("first-token\n")
    key_file = f"key_file={made.directory / 'key.pem'}"
    common = f"tenancy={TENANCY}\nregion=us-ashburn-1\nfingerprint={FINGERPRINT}\n{key_file}\n"
    made.config.write_text(f"[DEFAULT]\nuser={USER}\n{common}\n[SESSION]\n{common}security_token_file={made.token}\n")
    for path in made.directory.iterdir():
        path.chmod(0o600)
    monkeypatch.setenv("OCI_CONFIG_FILE", str(made.config))
    return made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """MLflow's own server, which keeps what comes through the gateway."""
    from real_mlflow import MlflowServer

    if "TEST_SERVER_PYTHON" not in os.environ and importlib.util.find_spec("mlflow") is None:
        pytest.skip("there is no MLflow server here: TEST_SERVER_PYTHON names an interpreter that has one")
    running = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def gateway(server: MlflowServer, keys: Keys) -> Iterator[Gateway]:
    """The service. Whoever sends it anything that is not documented fails the test."""
    from oracle_gateway import Gateway

    public = keys.private.public_key()
    running = Gateway(server.uri, {API_KEY_ID: public, "ST$first-token": public})
    yield running
    running.close()
    assert running.violations == []


@pytest.fixture
def client(gateway: Gateway) -> mlops.TrackingClient:
    """A client of the service."""
    return mlops.TrackingClient(gateway.uri)


@pytest.fixture
def experiment(client: mlops.TrackingClient, tmp_path: Path) -> str:
    """An experiment of the test's own."""
    return client.create_experiment(tmp_path.name)
