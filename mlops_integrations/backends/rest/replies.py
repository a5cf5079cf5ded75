"""Interprets replies: maps MLflow's error codes and statuses to the next step. Pure.

A success counts only with the documented reply of its call: gateways, too, answer with 200 and JSON of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import requests

from mlops_integrations.backends.protocol import (
    EXIT_REASON_TAG,
    Batch,
    Kind,
    Metric,
    Outcome,
    ServerRun,
)
from mlops_integrations.backends.rest import entities_json
from mlops_integrations.backends.transport import Reply
from mlops_integrations.untrusted import one_line

T = TypeVar("T")

_NAME_LENGTH: Final = 1_000
_WITHHELD: Final = " (no credentials were sent to this server)"
EXPERIMENT_DELETED: Final = "EXPERIMENT_DELETED"
"""Our own code for an experiment that is in the server's trash."""

NO_SUCH_CALL: Final = "NO_SUCH_CALL"
"""Our own code for a 404 or 405 that is not MLflow's own error: this call does not exist at this address."""

_DENIED_CODES: Final = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_SUSPECT_CODES: Final = frozenset({"INTERNAL_ERROR", "BAD_REQUEST"})
"""MLflow's codes when its database fails: temporarily (no connection is left), or because of this very request."""
_TRANSIENT_CODES: Final = frozenset(
    {
        *_SUSPECT_CODES,
        "TEMPORARILY_UNAVAILABLE",
        "SERVICE_UNDER_MAINTENANCE",
        "WORKSPACE_TEMPORARILY_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "REQUEST_LIMIT_EXCEEDED",
        "COULD_NOT_ACQUIRE_LOCK",
        "IO_ERROR",
        "ABORTED",
        "CANCELLED",
    }
)
_TRANSIENT_STATUSES: Final = frozenset({408, 425, 429, 502, 503, 504})
"""A gateway's temporary failures, regardless of any error code that it adds. Without 500: old servers use it for wrong
requests, too.
"""

_EMPTY_REPLIES: Final = frozenset(
    {"runs/log-batch", "runs/log-metric", "runs/log-parameter", "runs/set-tag", "runs/delete"}
)
"""Calls whose reply is always ``{}``."""
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "experiments/create": ("experiment_id", "experimentId"),
    "experiments/get": ("experiment",),
    "experiments/get-by-name": ("experiment",),
    "runs/create": ("run",),
    "runs/get": ("run",),
    "runs/update": ("run_info",),
    "params/get": ("parameter",),
    "metrics/get": ("metric",),
    "get-artifact": (),  # its reply is a file, never JSON
}
"""Calls whose reply has at least one of these fields."""
_LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "experiments/list": ("experiments",),
    "experiments/search": ("experiments", "next_page_token"),
    "runs/search": ("runs", "next_page_token"),
    "metrics/get-history": ("metrics", "next_page_token"),
    "artifacts/list": ("files", "root_uri", "next_page_token"),
}
"""Calls whose reply has one of these fields, or is ``{}``: servers leave an empty list out."""


def is_reply_of(call: str, body: Mapping[str, Any]) -> bool:
    """True if the body is the documented reply to a call that was done."""
    if "error_code" in body:
        return False
    if call in _EMPTY_REPLIES:
        return not body
    if call in _FIELDS:
        return any(body.get(name) is not None for name in _FIELDS[call])
    return not body or any(name in body for name in _LISTS[call])


def unacknowledged(reply: Reply, call: str) -> Outcome[dict[str, Any]]:
    """The outcome of a success status without this call's reply: repeat it, after a check of the server's data."""
    text = f"HTTP {reply.status}, but no answer to {call}: {reply.text or 'nothing'}"
    hint = "is this an MLflow server, or does a gateway answer in its place?"
    return Outcome(Kind.RETRY, None, f"{text} ({hint})", None, reply.retry_after, ambiguous=True, unacknowledged=True)


def outcome_of(reply: Reply, call: str) -> Outcome[dict[str, Any]]:
    """Interpret a reply to this call: first by the server's error code, since old servers' statuses are unreliable."""
    status, body = reply.status, reply.body
    if status is None:
        return Outcome(Kind.RETRY, None, reply.text, ambiguous=reply.sent)
    if requests.codes.ok <= status < requests.codes.multiple_choices:
        acknowledged = body is not None and is_reply_of(call, body)
        return Outcome(Kind.OK, body) if acknowledged else unacknowledged(reply, call)
    code = body.get("error_code") if body else None
    if isinstance(code, str) and code not in _TRANSIENT_CODES and status not in _TRANSIENT_STATUSES:
        denied = code in _DENIED_CODES or status in {requests.codes.unauthorized, requests.codes.forbidden}
        kind = Kind.DENIED if denied else Kind.REFUSED
        text = f"{one_line(code)}: {one_line(str((body or {}).get('message', '')))}"
        return Outcome(kind, None, f"{text}{_WITHHELD}" if denied and reply.withheld else text, code)
    text = f"HTTP {status}: {reply.text}" if reply.text else f"HTTP {status}"
    if status in {requests.codes.unauthorized, requests.codes.forbidden}:
        return Outcome(Kind.DENIED, None, f"{text}{_WITHHELD}" if reply.withheld else text)
    if status == requests.codes.request_entity_too_large:
        return Outcome(Kind.REFUSED, None, text, "HTTP_413")
    if status < requests.codes.bad_request:
        text = f"HTTP {status}: redirected to {one_line(reply.location or '?')}; give that address as tracking URI"
    elif status in {requests.codes.not_found, requests.codes.method_not_allowed}:
        text = f"HTTP {status}: no MLflow API at this address (is a path prefix missing?)"
        code = NO_SUCH_CALL
    known = code if isinstance(code, str) else None
    suspect = known in _SUSPECT_CODES
    done = status >= requests.codes.internal_server_error or status == requests.codes.request_timeout or suspect
    return Outcome(Kind.RETRY, None, text, known, reply.retry_after, done, suspect)


def taken(outcome: Outcome[dict[str, Any]], what: str, extract: Callable[[dict[str, Any]], T]) -> Outcome[T]:
    """Extract the wanted part of a reply; a failure's message starts with ``what``, the request in words."""
    if not outcome.ok or outcome.value is None:
        message = f"{what}: {outcome.message}" if what else outcome.message
        return outcome.failed(message)
    try:
        return Outcome(Kind.OK, extract(outcome.value))
    except (KeyError, TypeError, AttributeError, ValueError):
        text = f"{what}: the answer is not MLflow's: is this an MLflow server?"
        return Outcome(Kind.RETRY, None, text, ambiguous=True, unacknowledged=True)


def experiment_id_of(outcome: Outcome[dict[str, Any]], shown: str) -> Outcome[str]:
    """The id of an experiment from the reply that has it; a deleted one is refused (``EXPERIMENT_DELETED``)."""
    what = f"experiment {one_line(shown)!r}"
    found = taken(outcome, what, lambda body: dict(body["experiment"]))
    if found.ok and found.value is not None and found.value.get("lifecycle_stage") == "deleted":
        text = f"{what} is deleted on the server: restore it there, or name another"
        return Outcome(Kind.REFUSED, None, text, EXPERIMENT_DELETED)
    return taken(found, "", lambda experiment: str(experiment["experiment_id"]))


def updated(outcome: Outcome[dict[str, Any]], run_id: str) -> Outcome[None]:
    """The outcome of ``runs/update``, whose reply must hold the changed run."""

    def check(body: dict[str, Any]) -> None:
        info = body["run_info"]
        if run_id not in {info.get("run_id"), info.get("run_uuid")}:
            raise ValueError("another run's")

    return taken(outcome, "changing the run's status", check)


def without_texts_of(run: Mapping[str, Any], batch: Batch) -> Batch:
    """The batch without the parameters and tags that the run, as returned by ``runs/get``, already has."""
    data = entities_json.run(run).data
    params = {(param.key, param.value) for param in data.params}
    tags = {(tag.key, tag.value) for tag in data.tags}
    return Batch(
        batch.metrics,
        [item for item in batch.params if item not in params],
        [item for item in batch.tags if item not in tags],
    )


def rows_of(history: Mapping[str, Any]) -> set[Metric]:
    """The values of one page of ``metrics/get-history``, in the form that ``comparable`` returns."""
    entries = (entities_json.metric(entry) for entry in history.get("metrics") or ())
    return {(entry.key, entities_json.comparable(entry.value), entry.timestamp, entry.step or 0) for entry in entries}


def comparable(metric: Metric) -> Metric:
    """A batch's metric in a form that can be compared with ``rows_of``."""
    key, value, time, step = metric
    return key, entities_json.comparable(entities_json.number(value)), time, step


def _name(given: object) -> str:
    """Check an id from the server, which becomes part of URLs and messages."""
    name = str(given)
    if not name.isprintable() or len(name) > _NAME_LENGTH:
        raise ValueError("that is no id")
    return name


def server_run(run: dict[str, Any]) -> ServerRun:
    """A run's JSON, reduced to the fields that the uploader needs."""
    info, data = run["info"], run.get("data", {})
    return ServerRun(
        run_id=_name(info.get("run_id") or info["run_uuid"]),
        experiment_id=_name(info["experiment_id"]),
        status=str(info.get("status", "")),
        active=info.get("lifecycle_stage", "active") == "active",
        empty=not data.get("metrics") and not data.get("params"),
        reason=next((tag.get("value") for tag in data.get("tags") or () if tag["key"] == EXIT_REASON_TAG), None),
    )
