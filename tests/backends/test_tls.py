"""Certificates and proxies, with real TLS: what is not trusted fails loudly, what the settings name is trusted."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access, access

Serve = Callable[..., str]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET with a JSON object, and remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def authority() -> trustme.CA:
    """Who signs certificates; nobody else knows it."""
    return trustme.CA()


@pytest.fixture
def asked() -> list[str]:
    """What was asked for."""
    return []


@pytest.fixture
def serve(authority: trustme.CA, asked: list[str]) -> Iterator[Serve]:
    """Starts a server: plain, with TLS, or with TLS for known clients only."""
    running: list[http.server.ThreadingHTTPServer] = []

    def start(*, tls: bool = True, only_known_clients: bool = False) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"asked": asked}))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            if only_known_clients:
                context.verify_mode = ssl.CERT_REQUIRED
                authority.configure_trust(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def root(authority: trustme.CA, tmp_path: Path) -> str:
    """The authority's certificate, as a file."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def client(authority: trustme.CA, tmp_path: Path) -> str:
    """A client's certificate and key, in one file."""
    path = tmp_path / "client.pem"
    authority.issue_cert("ann@example.org").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


def test_an_unknown_certificate(serve: Serve, asked: list[str]) -> None:
    """Is refused, and no request is sent."""
    reply = Transport(Access()).get(serve(), {})
    assert reply.status is None
    assert not reply.sent
    assert "certificate verify failed" in reply.text
    assert asked == []


def test_an_authority_that_is_named(serve: Serve, root: str) -> None:
    """Is trusted: MLFLOW_TRACKING_SERVER_CERT_PATH."""
    chosen = access(environ={"MLFLOW_TRACKING_SERVER_CERT_PATH": root})
    assert Transport(chosen).get(serve(), {}).status == 200


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_no_questions_asked(serve: Serve) -> None:
    """MLFLOW_TRACKING_INSECURE_TLS trusts anybody."""
    chosen = access(environ={"MLFLOW_TRACKING_INSECURE_TLS": "true"})
    assert Transport(chosen).get(serve(), {}).status == 200


def test_a_client_that_says_who_it_is(serve: Serve, root: str, client: str) -> None:
    """MLFLOW_TRACKING_CLIENT_CERT_PATH; without it such a server does not answer."""
    uri = serve(only_known_clients=True)
    environ = {"MLFLOW_TRACKING_SERVER_CERT_PATH": root}
    assert Transport(access(environ=environ)).get(uri, {}).status is None
    environ["MLFLOW_TRACKING_CLIENT_CERT_PATH"] = client
    assert Transport(access(environ=environ)).get(uri, {}).status == 200


def test_a_proxy(serve: Serve, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables name it, and what it is not for."""
    monkeypatch.setenv("HTTP_PROXY", serve(tls=False))
    monkeypatch.setenv("http_proxy", serve(tls=False))
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    assert Transport(Access()).get("http://mlflow.example/api", {}).status == 200
    assert asked == ["http://mlflow.example/api"]
