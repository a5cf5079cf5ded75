"""Plugins of MLflow's own client sign requests to any server; headers of the environment go along."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from requests import PreparedRequest

from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What MLflow's registry knows, where MLflow is installed."""
    known: dict[str, Any] = {}
    name = "mlflow"
    for part in ("", "tracking", "request_auth", "registry"):
        name = f"{name}.{part}" if part else name
        module = ModuleType(name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    module.fetch_auth = lambda wanted: known[wanted]() if wanted in known else None  # type: ignore[attr-defined]
    return known


def test_a_plugin_signs(server: Any, plugins: dict[str, Any]) -> None:
    """It is asked for once, and once more when the server refuses what it has signed."""
    made: list[int] = []

    def plugin() -> Any:
        made.append(1)
        number = len(made)

        def sign(request: PreparedRequest) -> PreparedRequest:
            request.headers["Authorization"] = f"Plugin {number}"
            return request

        return sign

    plugins["mine"] = plugin
    for status in (200, 401, 200):
        server.answer(status)
    transport = Transport(Access(request_auth="mine", token="unused"))
    assert transport.get(server.url, {}).status == 200
    assert transport.get(server.url, {}).status == 200
    assert [request.headers["Authorization"] for request in server.requests] == ["Plugin 1", "Plugin 1", "Plugin 2"]


def test_no_such_plugin(server: Any, plugins: dict[str, Any]) -> None:
    """Nothing is sent, and it is said why."""
    server.answer(200)
    reply = Transport(Access(request_auth="other")).get(server.url, {})
    assert (reply.status, reply.sent) == (None, False)
    assert reply.text == "MLFLOW_TRACKING_AUTH=other: MLflow knows no plugin of this name here"
    assert server.requests == []


def test_a_plugin_that_fails(server: Any, plugins: dict[str, Any]) -> None:
    """Likewise: its error does not reach the training."""
    server.answer(200)
    plugins["broken"] = lambda: 1 / 0
    reply = Transport(Access(request_auth="broken")).get(server.url, {})
    assert (reply.status, reply.sent) == (None, False)
    assert "ZeroDivisionError" in reply.text


def test_headers(server: Any) -> None:
    """Of the environment for all requests, of a request for that one; neither changes who we are to the server."""
    server.answer(200)
    transport = Transport(Access(token="t", headers=(("x-team", "vision"), ("Authorization", "no"))))
    transport.post(server.url, b"{}", {"opc-retry-token": "once"})
    transport.post(server.url, b"{}")
    sent = [{name.lower(): value for name, value in request.headers.items()} for request in server.requests]
    assert [headers.get("opc-retry-token") for headers in sent] == ["once", None]
    assert [headers["x-team"] for headers in sent] == ["vision", "vision"]
    assert [headers["authorization"] for headers in sent] == ["Bearer t", "Bearer t"]
    assert [headers["content-type"] for headers in sent] == ["application/json"] * 2
