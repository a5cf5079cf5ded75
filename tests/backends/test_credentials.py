"""Credentials: which go along, when they are read again, and that none is ever shown."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest

from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access

CANARY = "s3cr3t-canary"


def basic(user: str, password: str) -> str:
    """The header for a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("access", "header"),
    [
        (Access(), None),
        (Access(username="u", password="p:q"), basic("u", "p:q")),
        (Access(username="ключ", password="пароль"), basic("ключ", "пароль")),
        (Access(username="u", password=""), basic("u", "")),
        (Access(token="t"), "Bearer t"),
        (Access(username="u", password="p", token="t"), basic("u", "p")),
        (Access(username="u", token="t"), "Bearer t"),
    ],
)
def test_header(
    server: Any, access: Access, header: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """User and password win over a token, as in MLflow; without credentials a stranger's ``.netrc`` is not asked."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login stranger password x\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    server.answer(200)
    Transport(access).get(server.url, {})
    assert header == server.requests[0].headers.get("Authorization")


@pytest.mark.parametrize("status", [401, 403])
def test_token_file_is_read_again_when_refused(server: Any, tmp_path: Path, status: int) -> None:
    """A token that was renewed meanwhile is found, and the same request repeated once."""
    file = tmp_path / "token"
    file.write_text("old\n")
    transport = Transport(Access(token_file=str(file)))
    file.write_text("new\n")
    server.answer(status)
    server.answer(200, b'{"a": 1}')
    assert transport.post(server.url, b'{"x": 1}').status == 200
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer old", "Bearer new"]
    assert [request.body for request in server.requests] == [b'{"x": 1}'] * 2


def test_same_token_is_not_tried_again(server: Any, tmp_path: Path) -> None:
    """If the file holds what was refused, the refusal stands."""
    file = tmp_path / "token"
    file.write_text("same")
    server.answer(401)
    assert Transport(Access(token_file=str(file))).get(server.url, {}).status == 401
    assert len(server.requests) == 1


def test_token_file_that_vanishes(server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While it can't be read the last token goes on, and that is said."""
    file = tmp_path / "token"
    file.write_text("t")
    transport = Transport(Access(token_file=str(file)))
    file.unlink()
    server.answer(401)
    assert transport.get(server.url, {}).status == 401
    assert server.requests[0].headers["Authorization"] == "Bearer t"
    assert "MLOPS_TOKEN_FILE can't be read" in caplog.text


def test_token_command(server: Any, tmp_path: Path) -> None:
    """Its output is the token; after a refusal it is run again."""
    script = tmp_path / "count.py"
    script.write_text(
        "from pathlib import Path\n"
        "file = Path(__file__).with_name('count')\n"
        "number = int(file.read_text()) + 1 if file.exists() else 1\n"
        "file.write_text(str(number))\n"
        "print('token', number, sep='-')\n"
    )
    server.answer(401)
    server.answer(200)
    Transport(Access(token_command=f"{sys.executable} -S '{script}'")).get(server.url, {})
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("command", [f"false {CANARY}", f"/no/such/program {CANARY}", f"'{CANARY}"])
def test_failing_token_command_is_not_shown(command: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its text and output may hold a secret: only the kind of failure is said."""
    Transport(Access(token_command=command))
    assert "MLOPS_TOKEN_COMMAND failed" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "content",
    [f"{CANARY}\nsecond line", f"\ufeff{CANARY}", f"{CANARY}\u2014", f"{CANARY}\x00"],
    ids=["two lines", "byte order mark", "dash", "NUL"],
)
def test_token_that_fits_no_header(server: Any, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file that holds more than a token is a failed reply, not an exception, and its content is not shown."""
    file = tmp_path / "token"
    file.write_text(content, "utf-8")
    server.answer(401)
    reply = Transport(Access(token_file=str(file))).get(server.url, {})
    assert reply.status in {None, 401}
    assert CANARY not in reply.text
    assert CANARY not in caplog.text


def test_header_is_never_shown(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither replies nor logs of any level tell the credentials."""
    caplog.set_level(0)
    server.answer(401, b"no")
    server.answer(500, b"no")
    header = basic("user", CANARY)
    transport = Transport(Access(username="user", password=CANARY))
    shown = " ".join(repr(transport.post(server.url, b"{}")) for _ in range(2)) + caplog.text + repr(transport)
    assert header == server.requests[0].headers["Authorization"]
    assert CANARY not in shown
    assert header not in shown
