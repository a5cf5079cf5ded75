"""Detects a server's dialect by asking it; for an uploader only once, since the run's cursor stores the result.

A status alone proves nothing: the oldest servers answer any request with 200 and a web page. So only JSON counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import requests

from mlops_integrations.backends.protocol import Kind, Outcome
from mlops_integrations.backends.rest.replies import is_reply_of, outcome_of
from mlops_integrations.backends.transport import Reply, Transport

if TYPE_CHECKING:
    from mlops_integrations.backends.protocol import Backend

MLFLOW: Final = "mlflow"
EARLY: Final = "mlflow-1.0"
"""Up to 1.2: a newline in a parameter ruins a run on file stores, and experiments can't be found by name."""
PREVIEW: Final = "mlflow-preview"

_NO_SUCH_CALL: Final = frozenset({requests.codes.not_found, requests.codes.method_not_allowed})


def detect(tracking_uri: str, transport: Transport) -> Outcome[str]:
    """Return the dialect of a server. An early one (up to 1.2) must be detected twice.

    The reason: a gateway whose server is just starting answers as if there were no such call.
    """
    found = _detect(tracking_uri, transport)
    if found.value in {EARLY, PREVIEW}:
        again = _detect(tracking_uri, transport)
        if again.value not in {found.value, MLFLOW}:
            return Outcome(Kind.RETRY, None, again.message or f"the server spoke {found.value}, then {again.value}")
        return again
    return found


def _detect(tracking_uri: str, transport: Transport) -> Outcome[str]:
    base = tracking_uri.rstrip("/")
    modern = transport.get(f"{base}/api/2.0/mlflow/experiments/get", {"experiment_id": "0"})
    if _is_mlflow(modern, "experiments/get"):
        by_name = transport.get(f"{base}/api/2.0/mlflow/experiments/get-by-name", {"experiment_name": "Default"})
        return Outcome(Kind.OK, EARLY if by_name.body is None and by_name.status in _NO_SUCH_CALL else MLFLOW)
    if modern.status not in {requests.codes.ok, *_NO_SUCH_CALL}:
        return _retyped(outcome_of(modern, "experiments/get"))
    preview = transport.get(f"{base}/api/2.0/preview/mlflow/experiments/list", {})
    if _is_mlflow(preview, "experiments/list"):
        return Outcome(Kind.OK, PREVIEW)
    if preview.status == requests.codes.not_found:
        return _retyped(outcome_of(modern, "experiments/get"))
    return _retyped(outcome_of(preview, "experiments/list"))


def _is_mlflow(reply: Reply, call: str) -> bool:
    """True if the API itself answered: with the requested object, or with an error code that there is none."""
    if reply.body is None:
        return False
    if reply.status == requests.codes.ok:
        return is_reply_of(call, reply.body)
    code = reply.body.get("error_code")
    refused = outcome_of(reply, call).kind is Kind.REFUSED
    return isinstance(code, str) and code != "ENDPOINT_NOT_FOUND" and refused


def _retyped(outcome: Outcome[dict[str, Any]]) -> Outcome[str]:
    kind = outcome.kind if outcome.kind is Kind.DENIED else Kind.RETRY
    return replace(outcome.failed(), kind=kind)


class Recognizing:
    """A backend that takes the server's dialect once ``recognize`` has found it; unusable before."""

    def __init__(
        self, tracking_uri: str, transport: Transport, dialects: Mapping[str, Callable[[str, Transport], Backend]]
    ) -> None:
        self._uri = tracking_uri
        self._transport = transport
        self._dialects = dialects
        self._known: Backend | None = None

    def recognize(self, known: str | None) -> Outcome[str]:
        """Ask the server for its dialect, unless it is known."""
        if self._known is not None:
            return Outcome(Kind.OK, self._known.dialect)
        found = Outcome(Kind.OK, known) if known in self._dialects else detect(self._uri, self._transport)
        if found.ok and found.value is not None:
            self._known = self._dialects[found.value](self._uri, self._transport)
        return found

    def __getattr__(self, name: str) -> Any:
        if self._known is None:
            raise AttributeError(f"{name}: the server's dialect is not known yet")
        return getattr(self._known, name)
