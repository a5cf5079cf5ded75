"""What each documented answer of Oracle AI Data Platform means for the one who asked."""

from __future__ import annotations

from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from mlops_integrations.backends.oracle.replies import oracle_outcome_of
from mlops_integrations.backends.protocol import Kind, Outcome
from mlops_integrations.backends.transport import Reply


def reply(status: int | None, body: dict[str, Any] | None = None, text: str = "", **headers: str) -> Reply:
    """A reply, with the service's name for the request."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body, text, headers=CaseInsensitiveDict({"opc-request-id": "name-1", **named}))


def error(status: int, code: str = "SomeCode", **headers: str) -> Outcome[dict[str, Any]]:
    """What an error in Oracle's shape means."""
    return oracle_outcome_of(reply(status, {"code": code, "message": "because"}, **headers), "runs/search")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidParameter", Kind.REFUSED),
        (401, "NotAuthenticated", Kind.DENIED),
        (403, "NotAllowed", Kind.DENIED),
        (404, "NotAuthorizedOrNotFound", Kind.REFUSED),
        (404, "NotFound", Kind.REFUSED),
        (408, "Timeout", Kind.RETRY),
        (409, "IncorrectState", Kind.RETRY),
        (409, "LockConflict", Kind.RETRY),
        (409, "InvalidatedRetryToken", Kind.RETRY),
        (409, "Conflict", Kind.REFUSED),
        (409, "NotAuthorizedOrResourceAlreadyExists", Kind.REFUSED),
        (412, "NoEtagMatch", Kind.REFUSED),
        (413, "RequestEntityTooLarge", Kind.REFUSED),
        (429, "TooManyRequests", Kind.RETRY),
        (500, "InternalServerError", Kind.RETRY),
        (501, "MethodNotImplemented", Kind.REFUSED),
        (503, "ServiceUnavailable", Kind.RETRY),
    ],
)
def test_errors(status: int, code: str, kind: Kind) -> None:
    """By status and code; each keeps the code, the message and the request's name."""
    found = error(status, code)
    assert (found.kind, found.code, found.request_id) == (kind, code, "name-1")
    assert f"{code}: because" in found.message


def test_the_name_of_the_request() -> None:
    """Stands in the message of what is final; in that of what is tried again it would be another each time."""
    assert error(400).message == "SomeCode: because (request name-1)"
    assert error(503).message == "SomeCode: because"
    assert error(401).message.startswith("SomeCode: because. Are Oracle's configuration")


def test_not_there_or_not_allowed() -> None:
    """The service does not say which, so both are said."""
    assert "not there, or these credentials may not see it" in error(404, "NotAuthorizedOrNotFound").message


def test_what_may_have_been_done() -> None:
    """After a failure of the service, or of the way to it."""
    assert [error(status).ambiguous for status in (400, 404, 408, 409, 429, 500, 503)] == [
        *(False, False, True, False, False, True, True)
    ]
    assert oracle_outcome_of(Reply(None, None, "reset"), "runs/search").ambiguous
    assert not oracle_outcome_of(Reply(None, None, "no route", sent=False), "runs/search").ambiguous
    forgotten = error(409, "InvalidatedRetryToken")
    assert (forgotten.forgotten, forgotten.ambiguous) == (True, True)
    assert not error(409, "IncorrectState").forgotten


def test_a_pause_that_is_asked_for() -> None:
    """Is kept."""
    throttled = Reply(429, {"code": "TooManyRequests", "message": "m"}, "", retry_after=7.0)
    assert oracle_outcome_of(throttled, "runs/search").retry_after == 7.0


def test_an_error_that_is_not_oracles() -> None:
    """MLflow's code is read, too; a page or nothing is shown as it is; a lonely 404 is the wrong address."""
    of_mlflow = oracle_outcome_of(reply(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "m"}), "runs/search")
    assert (of_mlflow.kind, of_mlflow.code) == (Kind.REFUSED, "INVALID_PARAMETER_VALUE")
    page = oracle_outcome_of(Reply(502, None, "<html>bad gateway"), "runs/search")
    assert (page.kind, page.message, page.request_id) == (Kind.RETRY, "HTTP 502: <html>bad gateway", None)
    nobody = oracle_outcome_of(Reply(404, None, "<html>"), "runs/search")
    assert nobody.kind is Kind.RETRY
    assert "API version and prefix" in nobody.message
    moved = oracle_outcome_of(Reply(302, None, "", location="https://login"), "runs/search")
    assert moved.kind is Kind.RETRY
    assert "https://login" in moved.message


def test_the_next_page() -> None:
    """Stands in the body or in a header; the body's counts."""
    assert oracle_outcome_of(reply(200, {}, opc_next_page="h"), "runs/search").value == {"next_page_token": "h"}
    assert oracle_outcome_of(reply(200, {"next_page_token": "b"}, opc_next_page="h"), "runs/search").value == {
        "next_page_token": "b"
    }
    assert oracle_outcome_of(reply(200, {"next_page_token": ""}, opc_next_page="h"), "runs/search").value == {
        "next_page_token": "h"
    }


def test_the_etag() -> None:
    """Belongs to the one thing that was asked for."""
    run = oracle_outcome_of(reply(200, {"run": {"info": {}}}, etag="v1"), "runs/get").value
    assert run == {"run": {"info": {}, "etag": "v1"}}
    experiment = oracle_outcome_of(reply(200, {"experiment": {"name": "a"}}, etag="v1"), "experiments/get").value
    assert experiment == {"experiment": {"name": "a", "etag": "v1"}}
    assert oracle_outcome_of(reply(200, {"runs": []}, etag="v1"), "runs/search").value == {"runs": []}


def test_an_answer_with_nothing_to_say() -> None:
    """Is one if it names the request; else anybody may have given it."""
    assert oracle_outcome_of(reply(200), "runs/search").value == {}
    assert oracle_outcome_of(Reply(200, None, ""), "runs/search").kind is Kind.RETRY
    assert oracle_outcome_of(reply(200, None, "<html>login"), "runs/search").kind is Kind.RETRY
