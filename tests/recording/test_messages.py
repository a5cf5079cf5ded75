"""What the uploader found out is said, each thing once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlops_integrations.journal.cursor import Cursor, Trouble
from mlops_integrations.recording.messages import Messages


def test_trouble_is_said_once_with_the_requests_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server gives each failed request another name: the trouble is the same."""
    messages = Messages(tmp_path, quiet=False)
    for name in ("first", "second"):
        messages.server_news(Cursor("http://server", trouble=Trouble("HTTP 503", 1, request_id=name)))
    (message,) = caplog.messages
    assert message.startswith("mlops: http://server does not take the records (HTTP 503, request first).")


def test_values_that_may_be_there_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Are counted, and said."""
    messages = Messages(tmp_path, quiet=True)
    messages.server_news(Cursor("http://server", doubled=100))
    messages.server_news(Cursor("http://server", doubled=200))
    (message,) = caplog.messages
    assert message.startswith("mlops: 100 values so far were sent once more")
