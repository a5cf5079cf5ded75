"""``doctor`` of what is no tracking server."""

from __future__ import annotations

import pytest

from mlops_integrations.cli.arguments import main


def test_doctor_without_a_server(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there: exit code 3 and why; no server named, or none at all: wrong usage. No secret is shown."""
    assert main(["doctor", "http://ann:secret@127.0.0.1:9"]) == 3
    told = capsys.readouterr().out
    assert "http://127.0.0.1:9" in told
    assert "trouble" in told
    assert "secret" not in told
    assert main(["doctor"]) == 2
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert main(["doctor", "sqlite:///x.db"]) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["doctor"]) == 3


def test_doctor_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A web server that is no tracking server is told as such."""
    import http.server
    import threading

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main(["doctor", f"http://127.0.0.1:{server.server_port}"]) == 3
        server.shutdown()
    assert "trouble" in capsys.readouterr().out
