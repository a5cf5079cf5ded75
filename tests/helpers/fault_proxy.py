"""A proxy in front of a real server, that can lose, delay or withhold what passes through it."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FaultProxy:
    """Forwards requests; ``fault`` is asked for each, and may do something else instead.

    A fault is called with the handler and a function that forwards the request and returns status and body; it
    returns True when it has dealt with the request.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.fault: Callable[[Handler, Callable[[], tuple[int, bytes]]], bool] = lambda _handler, _forward: False
        self.requests: list[str] = []
        self.uploads_to_break = 0
        """This many uploads are cut off after their first bytes."""
        proxy = self

        class Bound(Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop accepting."""
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request on its way through the proxy."""

    owner: FaultProxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        if self.owner.uploads_to_break:
            self.owner.uploads_to_break -= 1
            self.rfile.read(1_000)
            self.reset()
            self.close_connection = True
            return
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = urlsplit(self.path).path.rpartition("mlflow/")[2]
        self.call = call
        self.owner.requests.append(call)

        def forward() -> tuple[int, bytes]:
            place = urlsplit(self.owner.target)
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
            try:
                connection.request(
                    self.command,
                    self.path,
                    body,
                    {"Content-Type": self.headers.get("Content-Type", "application/json")},
                )
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        if self.owner.fault(self, forward):
            self.close_connection = True
            return
        self.answer(*forward())

    def answer(self, status: int, body: bytes) -> None:
        """Reply."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """End the connection as a crashed peer does: the client sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
