"""Interprets replies of an Oracle AI Data Platform: errors, pages, request ids. Pure.

The status decides first, the error code where the status leaves it open. Unlike MLflow's, these statuses are reliable.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import requests

from mlops_integrations.backends.protocol import Kind, Outcome
from mlops_integrations.backends.rest.replies import is_reply_of, unacknowledged
from mlops_integrations.backends.transport import Reply
from mlops_integrations.untrusted import one_line

FORGOTTEN: Final = "InvalidatedRetryToken"
"""The object has been changed since then: the service can no longer tell whether this write was done."""

_AGAIN_LATER: Final = frozenset({"IncorrectState", "LockConflict"})
"""Codes of temporary conflicts."""
_REQUEST_ID: Final = "opc-request-id"
_NO_API: Final = "no AI Data Platform answers at this address: are endpoint, API version and prefix right?"
_NOT_THERE: Final = "not there, or these credentials may not see it: the service does not say which"
_DENIED: Final = "Are Oracle's configuration, the token and this machine's clock right?"


def oracle_outcome_of(reply: Reply, call: str) -> Outcome[dict[str, Any]]:
    """Interpret a reply to this call. The next page's token and the ``etag`` are copied from headers to the body."""
    status = reply.status
    if status is None:
        return Outcome(Kind.RETRY, None, reply.text, ambiguous=reply.sent)
    name = reply.headers.get(_REQUEST_ID)
    if requests.codes.ok <= status < requests.codes.multiple_choices:
        body = _body(reply)
        if body is None or not is_reply_of(call, {} if reply.body is None else reply.body):
            return replace(unacknowledged(reply, call), request_id=name)
        return Outcome(Kind.OK, body, request_id=name)
    code = code_of(reply)
    kind = _kind(status, code)
    text = _text(reply, status, code)
    if kind is Kind.REFUSED and name is not None:  # not for retries: each has a new id and would be reported anew
        text = f"{text} (request {one_line(name)})"
    forgotten = code == FORGOTTEN
    done = status >= requests.codes.internal_server_error or status == requests.codes.request_timeout or forgotten
    suspect = status == requests.codes.internal_server_error
    return Outcome(kind, None, text, code, reply.retry_after, done, suspect, forgotten, name)


def code_of(reply: Reply) -> str | None:
    """The service's error code, or the one in MLflow's field, which a gateway may send."""
    code = (reply.body or {}).get("code") or (reply.body or {}).get("error_code")
    return code if isinstance(code, str) else None


def _body(reply: Reply) -> dict[str, Any] | None:
    if reply.body is None:
        # An empty reply counts only with a request id, which only the service itself sends.
        return {} if not reply.text and _REQUEST_ID in reply.headers else None
    body = dict(reply.body)
    following, etag = reply.headers.get("opc-next-page"), reply.headers.get("etag")
    if following and not body.get("next_page_token"):
        body["next_page_token"] = following
    for what in ("experiment", "run"):
        if etag is not None and isinstance(body.get(what), dict):
            body[what] = {**body[what], "etag": etag}
    return body


def _kind(status: int, code: str | None) -> Kind:
    if status in {requests.codes.unauthorized, requests.codes.forbidden}:
        return Kind.DENIED
    if status == requests.codes.conflict:
        return Kind.RETRY if code in _AGAIN_LATER or code == FORGOTTEN else Kind.REFUSED
    if status == requests.codes.not_found:
        return Kind.RETRY if code is None else Kind.REFUSED
    passing = {requests.codes.request_timeout, requests.codes.too_many_requests}
    fails = status >= requests.codes.internal_server_error and status != requests.codes.not_implemented
    redirected = status < requests.codes.bad_request
    return Kind.RETRY if status in passing or fails or redirected else Kind.REFUSED


def _text(reply: Reply, status: int, code: str | None) -> str:
    if status < requests.codes.bad_request:
        return f"HTTP {status}: redirected to {one_line(reply.location or '?')}; give that address as tracking URI"
    if code is None:
        if status == requests.codes.not_found:
            return f"HTTP 404: {_NO_API}"
        return f"HTTP {status}: {reply.text}" if reply.text else f"HTTP {status}"
    text = f"{one_line(code)}: {one_line(str((reply.body or {}).get('message', '')))}"
    if status == requests.codes.not_found:
        return f"{text} ({_NOT_THERE})"
    return f"{text}. {_DENIED}" if status == requests.codes.unauthorized else text
