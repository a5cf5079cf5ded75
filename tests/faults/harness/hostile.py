"""Servers that mean harm: they show what they were asked, steer terminals, and answer without end."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STEERING = "\x1b]0;owned\x07\x9b31m\u202e\r"
"""What changes a terminal's title, colours and direction of writing."""

Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    answer: Answer
    asked: list[str]

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            type(self).answer(self)
        except OSError:  # the client has had enough
            self.close_connection = True

    def do_POST(self) -> None:
        """Answer."""
        self.do_GET()

    def do_PUT(self) -> None:
        """Answer."""
        self.do_GET()

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        """An answer with these headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """Serve on a port of its own; the address, and what is asked for."""
    asked: list[str] = []
    bound = type("Bound", (Handler,), {"answer": staticmethod(answer), "asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def echo(status: int, form: str) -> Answer:
    """Shows in its answer what it was asked, with the credentials: as text, as MLflow's error, or as a redirect."""

    def answer(handler: Handler) -> None:
        seen = " ".join(f"{name}: {value}" for name, value in handler.headers.items())
        if form == "json":
            shown = (seen + STEERING).encode("unicode_escape").decode().replace("\\x", "\\u00").replace('"', "'")
            body = f'{{"error_code": "INTERNAL_ERROR", "message": "{shown}"}}'.encode()
            handler.reply(status, body, Content_Type="application/json")
        elif form == "redirect":
            handler.reply(status, b"", Location=f"http://elsewhere.example/?{seen}")
        else:
            handler.reply(status, f"<pre>{STEERING} {seen}</pre>".encode(), Content_Type="text/html; charset=utf-8")

    return answer


def endless_body(handler: Handler) -> None:
    """Never stops."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b"[" * 1_000_000)


def endless_header(handler: Handler) -> None:
    """Never comes to the body."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.close_connection = True
    while True:
        handler.wfile.write(b"X-Name: " + b"x" * 50_000 + b"\r\n")


def endless_header_line(handler: Handler) -> None:
    """Never comes to the second header."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Name: ")
    handler.close_connection = True
    while True:
        handler.wfile.write(b"x" * 1_000_000)


def gzip_bomb(handler: Handler) -> None:
    """Is small on its way, and grows to four gigabytes."""
    part = gzip.compress(b"[" * 256 * 2**20)
    handler.reply(200, part * 16, Content_Encoding="gzip", Content_Type="application/json")


def deep_json(handler: Handler) -> None:
    """Is deeper than any stack."""
    handler.reply(200, b'{"a":' * 5_000_000, Content_Type="application/json")
