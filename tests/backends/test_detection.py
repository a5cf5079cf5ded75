"""What a server speaks is found out by asking, and what only looks like an old server is not taken for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlops_integrations.backends.detection import EARLY, MLFLOW, PREVIEW, detect
from mlops_integrations.backends.protocol import Kind
from mlops_integrations.backends.transport import Transport
from mlops_integrations.config.settings import Access

if TYPE_CHECKING:
    from .conftest import Server

PAGE = (404, b"<title>default backend - 404</title>")
SIGN_IN = (200, b"<title>Sign in</title>")
EXPERIMENT = (200, b'{"experiment": {"experiment_id": "0"}}')
LIST = (200, b'{"experiments": []}')
NONE = (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": ""}')
NO_CALL = (404, b'{"error_code": "ENDPOINT_NOT_FOUND", "message": ""}')

SERVERS = {
    "of today": ([EXPERIMENT, NONE], MLFLOW),
    "before 1.3": ([EXPERIMENT, PAGE, EXPERIMENT, PAGE], EARLY),
    "of 2018": ([PAGE, LIST, PAGE, LIST], PREVIEW),
    "of 2018, which answers 200 to anything": ([SIGN_IN, LIST, SIGN_IN, LIST], PREVIEW),
    "1.30, which knows the calls of 2018 too, behind a gateway that knew nothing of it yet": (
        [PAGE, LIST, EXPERIMENT, NONE],
        MLFLOW,
    ),
    "1.30, behind a sign-in page that is passed": ([SIGN_IN, LIST, EXPERIMENT, NONE], MLFLOW),
    "of today, one call of which has met the gateway": ([EXPERIMENT, PAGE, EXPERIMENT, NONE], MLFLOW),
    "neither one nor the other": ([PAGE, LIST, EXPERIMENT, PAGE], None),
    "with error codes of its own for calls that it has not": ([NO_CALL, NO_CALL], None),
    "not there yet": ([PAGE, PAGE], None),
}


@pytest.mark.parametrize(("answers", "dialect"), SERVERS.values(), ids=SERVERS)
def test_what_a_server_speaks(server: Server, answers: list[tuple[int, bytes]], dialect: str | None) -> None:
    """An early dialect is concluded only from what the server says twice; where nothing is sure, it is asked again."""
    for status, body in answers:
        server.answer(status, body)

    found = detect(server.url, Transport(Access(timeout=5.0)))

    assert dialect == found.value
    assert (Kind.OK if dialect else Kind.RETRY) is found.kind
    assert len(answers) == len(server.requests)
