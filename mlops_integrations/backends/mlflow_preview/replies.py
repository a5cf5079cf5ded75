"""What replies and requests of the 2018 preview API have of their own. Pure."""

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
    """What a reply means; a 500 may be about the request, for up to 0.7 there is nothing else to say so."""
    outcome = outcome_of(reply, call)
    if reply.status == requests.codes.internal_server_error:
        code = (reply.body or {}).get("error_code")
        if isinstance(code, str) and code != "INTERNAL_ERROR":
            return outcome
        return Outcome(Kind.RETRY, None, outcome.message, outcome.code, ambiguous=True, suspect=True)
    return outcome


def twice_encoded(fields: Fields) -> bytes:
    """JSON in a JSON string: up to 0.3 nothing else is understood, and later servers still take it."""
    return msgspec.json.encode(msgspec.json.encode(fields).decode())


def is_active(body: Mapping[str, Any]) -> bool:
    """Whether an experiment or run is not deleted."""
    return bool(body.get("lifecycle_stage", "active") == "active")


def is_no_such_call(reply: Reply) -> bool:
    """Whether this server has no such call: the oldest answer 200 and a page for people then."""
    missing = {requests.codes.not_found, requests.codes.method_not_allowed}
    return reply.body is None and (reply.status in missing or reply.status == requests.codes.ok)
