"""Replies and requests of the 2018 preview API, where they differ from later ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import requests

from mlops_integrations.backends.protocol import Kind, Limits, Outcome
from mlops_integrations.backends.rest.replies import outcome_of
from mlops_integrations.backends.rest.store import Fields
from mlops_integrations.backends.transport import Reply

PREFIX: Final = "/api/2.0/preview/mlflow"


NO_STEPS: Final = (
    "this server keeps no steps: a metric's values are told apart by their times, and releases 0.4 to 0.6 keep 32 bits "
    "of each; the journal has steps and values as they were logged"
)


LIMITS: Final = Limits(
    metrics=1, params=1, tags=1, request_bytes=1_000_000, param_length=6_000, tag_length=5_000, one_line=True
)


def preview_outcome_of(reply: Reply, call: str) -> Outcome[dict[str, Any]]:
    """Interpret a reply; a 500 may mean a wrong request, since servers up to 0.7 have no other status for it."""
    outcome = outcome_of(reply, call)
    if reply.status == requests.codes.internal_server_error:
        code = (reply.body or {}).get("error_code")
        if isinstance(code, str) and code != "INTERNAL_ERROR":
            return outcome
        return Outcome(Kind.RETRY, None, outcome.message, outcome.code, ambiguous=True, suspect=True)
    return outcome


def twice_encoded(fields: Fields) -> bytes:
    """JSON in a JSON string: up to 0.3 nothing else is understood, and later servers still accept it."""
    return msgspec.json.encode(msgspec.json.encode(fields).decode())


def is_active(body: Mapping[str, Any]) -> bool:
    """True if an experiment or run is not deleted."""
    return bool(body.get("lifecycle_stage", "active") == "active")


def is_no_such_call(reply: Reply) -> bool:
    """True if this server has no such call: the oldest servers then answer with 200 and a web page."""
    missing = {requests.codes.not_found, requests.codes.method_not_allowed}
    return reply.body is None and (reply.status in missing or reply.status == requests.codes.ok)
