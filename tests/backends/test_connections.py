"""Quick acknowledgements: asked for before each answer, since a server may hold its body back until it has ours."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access

only_where_known = pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this system has no such option")

SetOption = Callable[..., None]
set_option: SetOption = socket.socket.setsockopt


class Handler(BaseHTTPRequestHandler):
    """Answers a request only after the client has set the option for it."""

    protocol_version = "HTTP/1.1"
    options: threading.Semaphore
    clients: set[Any]

    def do_GET(self) -> None:
        self.clients.add(self.client_address)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        was_set = self.options.acquire(timeout=10)
        self.send_response(200 if was_set else 504)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class PatientServer(ThreadingHTTPServer):
    """A server of this process, plain or with TLS."""

    daemon_threads = True

    def __init__(self, options: threading.Semaphore, authority: trustme.CA | None = None) -> None:
        self.clients: set[Any] = set()
        bound = type("Bound", (Handler,), {"options": options, "clients": self.clients})
        super().__init__(("127.0.0.1", 0), bound)
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'http' if authority is None else 'https'}://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        super().__exit__(*exc)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Counts how often the option was set on any socket of this process; an answer takes one away."""
    counter = threading.Semaphore(0)

    def spy(self: socket.socket, level: int, option: int, *value: Any) -> None:
        set_option(self, level, option, *value)
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_QUICKACK):
            counter.release()

    if hasattr(socket, "TCP_QUICKACK"):
        monkeypatch.setattr(socket.socket, "setsockopt", spy)
    return counter


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, options: threading.Semaphore) -> Iterator[PatientServer]:
    """One of each kind."""
    authority = trustme.CA() if request.param == "https" else None
    with PatientServer(options, authority) as running:
        yield running


@pytest.fixture
def transport() -> Transport:
    """One that trusts every certificate."""
    return Transport(Access(insecure_tls=True))


class File(io.BytesIO):
    """A file on its way."""

    def __len__(self) -> int:
        """Its size."""
        return len(self.getvalue())


@only_where_known
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_before_each_answer_of_a_kept_connection(server: PatientServer, transport: Transport) -> None:
    """It does not stick, so that each request sets it anew, after it has been sent: GET, POST, PUT and a stream."""
    for _ in range(3):
        assert transport.get(server.url, {}).status == 200
        assert transport.post(server.url, b"{}").status == 200
        assert transport.put(server.url, lambda: File(b"content")).status == 200
        blocks = transport.stream(server.url, {})
        assert isinstance(blocks, Iterator)
        assert b"".join(blocks) == b"{}"
    assert len(server.clients) == 1


@only_where_known
def test_through_a_proxy(options: threading.Semaphore, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections come from elsewhere, and set it, too."""
    with PatientServer(options) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        for _ in range(3):
            assert transport.get("http://mlflow.example/api", {}).status == 200
        assert len(proxy.clients) == 1


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_system_without_it(
    server: PatientServer, options: threading.Semaphore, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is asked for nothing, and all goes on as before."""
    monkeypatch.setattr(socket.socket, "setsockopt", set_option)
    monkeypatch.delattr(socket, "TCP_QUICKACK", raising=False)
    options.release()
    assert transport.get(server.url, {}).status == 200


@only_where_known
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("error", [OSError("refused"), AttributeError("a socket within another one has no options")])
def test_a_socket_that_refuses_it(
    server: PatientServer,
    options: threading.Semaphore,
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """Is used as it is."""

    def refuse(self: socket.socket, level: int, option: int, *value: Any) -> None:
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_QUICKACK):
            options.release()
            raise error
        set_option(self, level, option, *value)

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    for _ in range(2):
        assert transport.get(server.url, {}).status == 200
    assert len(server.clients) == 1


def test_a_failure_is_told_without_the_connection() -> None:
    """Ours keeps the name of urllib3's, by which it is known in the text and cut off."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        reply = Transport(Access()).get(f"http://127.0.0.1:{taken.getsockname()[1]}", {})
    assert not reply.sent
    assert reply.text.startswith("Failed to establish a new connection")
