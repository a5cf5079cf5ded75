"""The transport: whatever the network and the server do is a reply, never an exception."""

from __future__ import annotations

import socket
import struct
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from mlops_integrations.backends.transport import (
    Reply,
    Transport,
    patience_after,
    retry_after,
)
from mlops_integrations.config.settings import Access
from mlops_integrations.untrusted import one_line
from mlops_integrations.version import VERSION
from real_mlflow import free_port

CANARY = "s3cr3t-canary"


@pytest.fixture
def transport() -> Transport:
    """Without credentials, soon out of patience."""
    return Transport(Access(timeout=5.0))


def test_get_and_post(server: Any, transport: Transport) -> None:
    """Method, path, query, body and headers arrive; the JSON object comes back."""
    server.answer(200, '{"ключ": [1]}'.encode())
    assert Reply(200, {"ключ": [1]}, '{"ключ": [1]}') == transport.get(f"{server.url}/prefix/a", {"b": "c d&e"})
    assert transport.post(f"{server.url}/b", b'{"x": 1}').body == {"ключ": [1]}
    get, post = server.requests
    assert (get.method, get.path, get.body) == ("GET", "/prefix/a?b=c+d%26e", b"")
    assert (post.method, post.path, post.body) == ("POST", "/b", b'{"x": 1}')
    assert post.headers["Content-Type"] == "application/json"
    assert f"mlops-integrations/{VERSION}" == get.headers["User-Agent"]


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 502, 503, 504])
def test_status(server: Any, transport: Transport, status: int) -> None:
    """Every status is a reply, with the object that came along; nothing is tried twice here."""
    server.answer(status, b'{"error_code": "X"}')
    reply = transport.post(server.url, b"{}")
    assert (status, {"error_code": "X"}, True) == (reply.status, reply.body, reply.sent)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>login</html>", id="html"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"{", id="torn"),
        pytest.param(b'{"a": NaN}', id="bare NaN"),
        pytest.param(b'{"a": "\xff"}', id="text that is none"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param(b"[" * 100_000, id="nested list"),
        pytest.param(b'{"a":' * 50_000, id="nested object"),
    ],
)
def test_body_that_is_no_json_object(server: Any, transport: Transport, body: bytes) -> None:
    """200 with something else is told from an answer."""
    server.answer(200, body)
    reply = transport.get(server.url, {})
    assert (reply.status, reply.body) == (200, None)


def test_wrong_charset(server: Any, transport: Transport) -> None:
    """A character set that nobody knows is no failure."""
    server.answer(500, b"sorry", Content_Type="text/html; charset=nonsense")
    assert transport.get(server.url, {}).text == "sorry"


def test_redirect_is_not_followed(server: Any) -> None:
    """It is a reply with its address; nobody else gets the credentials."""
    server.answer(302, b"", Location="http://127.0.0.1:1/login")
    reply = Transport(Access(token=CANARY)).post(server.url, b"{}")
    assert (reply.status, reply.location, reply.body) == (302, "http://127.0.0.1:1/login", None)
    assert len(server.requests) == 1


def test_cookies_of_a_login_page_do_no_harm(server: Any, transport: Transport) -> None:
    """The kept session carries on after answers of every kind."""
    server.answer(302, b"", Location="/login", Set_Cookie="session=1")
    server.answer(200, b'{"a": 1}')
    transport.get(server.url, {})
    assert transport.get(server.url, {}).body == {"a": 1}


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Cut the connection hard."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def reset_in_the_middle(handler: BaseHTTPRequestHandler) -> None:
    """Cut it after half of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"half": ')
    handler.wfile.flush()
    reset(handler)


def close_in_the_middle(handler: BaseHTTPRequestHandler) -> None:
    """Close it after half of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"half": ')
    handler.close_connection = True


def close_without_answer(handler: BaseHTTPRequestHandler) -> None:
    """Close it at once."""
    handler.close_connection = True


def no_http(handler: BaseHTTPRequestHandler) -> None:
    """Answer with something that is not HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    handler.close_connection = True


def broken_gzip(handler: BaseHTTPRequestHandler) -> None:
    """Announce an encoding and don't keep to it."""
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", "4")
    handler.end_headers()
    handler.wfile.write(b"oops")


@pytest.mark.parametrize(
    "answer", [reset, reset_in_the_middle, close_in_the_middle, close_without_answer, no_http, broken_gzip]
)
def test_reply_that_is_lost(server: Any, transport: Transport, answer: Any) -> None:
    """The request may have been done: it is told as sent, with a text to show. The session goes on."""
    server.answers.append(answer)
    server.answer(200, b'{"a": 1}')
    reply = transport.post(server.url, b"{}")
    assert (reply.status, reply.body, reply.sent) == (None, None, True)
    assert reply.text
    assert transport.post(server.url, b"{}").body == {"a": 1}


def test_server_that_does_not_answer(server: Any) -> None:
    """The wait is bounded, the request may have been done, and the next try is given more time."""
    over = threading.Event()
    server.answers.append(lambda _: over.wait(30) and None)
    transport = Transport(Access(timeout=0.1))
    try:
        replies = [transport.post(server.url, b"{}") for _ in range(2)]
    finally:
        over.set()
    assert [(reply.status, reply.sent) for reply in replies] == [(None, True), (None, True)]
    assert [reply.text for reply in replies] == ["no answer within 0.1 s", "no answer within 0.2 s"]


@pytest.mark.parametrize(
    ("took", "patience"), [(0.01, 30.0), (14.0, 30.0), (25.0, 50.0), (59.0, 118.0), (500.0, 120.0)]
)
def test_a_slow_server_is_given_time(took: float, patience: float) -> None:
    """Twice what it took the last time, up to four times what is usual."""
    assert patience == patience_after(took, 30.0)


def test_refused_connection(transport: Transport) -> None:
    """The request surely did not arrive."""
    reply = transport.post(f"http://127.0.0.1:{free_port()}", b"{}")
    assert (reply.status, reply.sent) == (None, False)
    assert "refused" in reply.text


def test_unknown_host(transport: Transport) -> None:
    """Nor did it here."""
    reply = transport.get("http://no-such-host.invalid", {})
    assert (reply.status, reply.sent) == (None, False)
    assert "0x" not in reply.text


def test_plain_http_where_tls_is_expected(server: Any, transport: Transport) -> None:
    """A failed handshake sends nothing."""
    server.answer(200)
    reply = transport.post(server.url.replace("http:", "https:"), b"{}")
    assert (reply.status, reply.sent) == (None, False)


@pytest.mark.parametrize("uri", ["http://" + "x" * 300, "http://a..b", "http://[::1]:99999", "http://h:0x"])
def test_address_that_makes_no_sense(transport: Transport, uri: str) -> None:
    """Even that is a reply."""
    assert transport.get(uri, {}).status is None


def test_missing_certificate_file(tmp_path: Path, server: Any) -> None:
    """A certificate that is not there fails with a text that says so, in whatever way, but not as a success."""
    server.answer(200)
    transport = Transport(Access(server_certificate=str(tmp_path / "missing.pem")))
    reply = transport.get(server.url.replace("http:", "https:"), {})
    assert reply.status is None
    assert "missing.pem" in reply.text


def test_text_is_fit_for_a_terminal(server: Any, transport: Transport) -> None:
    """Control characters, escapes and line ends of a server don't reach the user; long texts are cut."""
    server.answer(500, b"\x1b[31mred\r\nmlops: forged\x00\x07 " + b"x" * 10_000, Content_Type="text/plain")
    text = transport.get(server.url, {}).text
    assert text.isprintable()
    assert text.startswith("[31mred mlops: forged x")
    assert len(text) <= 300


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\x00b", "\u202egpj.exe", "a\x85b", "a\u2028b", "\x9b31m"])
def test_printable(text: str) -> None:
    """Nothing that steers a terminal is left."""
    assert one_line(text).isprintable()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("", None),
        ("soon", None),
        (formatdate(1_000_030.0, usegmt=True), 30.0),
        (formatdate(999_000.0, usegmt=True), 0.0),
        ("Thu, 99 Foo 1970 99:99:99 GMT", None),
        ("9" * 400, float("inf")),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds or a date, never in the past; what is neither says nothing."""
    assert seconds == retry_after(header, 1_000_000.0)


def test_retry_after_arrives(server: Any, transport: Transport) -> None:
    """The reply carries it."""
    server.answer(429, b"{}", Retry_After="7")
    assert transport.get(server.url, {}).retry_after == 7.0


def test_a_code_is_left_as_it_is(server: Any) -> None:
    """Words of a signature, and a password that is part of the error's code, change nothing of what is decided on."""
    server.answer(409, b'{"code": "InvalidatedRetryToken", "message": "you said date"}')
    signed = (("Authorization", 'Signature headers="date host",signature="0123456789abcdef0123456789"'),)
    reply = Transport(Access(headers=signed)).get(server.url, {})
    assert {"code": "InvalidatedRetryToken", "message": "you said date"} == reply.body
    server.answer(409, b'{"code": "InvalidatedRetryToken", "message": "you said date"}')
    reply = Transport(Access(username="ann", password="date")).get(server.url, {})
    assert {"code": "InvalidatedRetryToken", "message": "you said ***"} == reply.body
