"""Which dialect speaks to which server: the one place that knows all of them."""

from __future__ import annotations

from typing import Any, Final, cast

from mlops_integrations.backends import detection
from mlops_integrations.backends.mlflow import EarlyMlflowBackend, EarlyStore, MlflowBackend, MlflowStore
from mlops_integrations.backends.mlflow_preview.backend import PreviewBackend
from mlops_integrations.backends.mlflow_preview.store import PreviewStore
from mlops_integrations.backends.oracle.backend import OracleBackend
from mlops_integrations.backends.oracle.store import OracleStore
from mlops_integrations.backends.protocol import Backend, Kind
from mlops_integrations.backends.rest.store import RestStore
from mlops_integrations.backends.transport import Transport
from mlops_integrations.config import oracle_uri
from mlops_integrations.config.settings import Access
from mlops_integrations.errors import AccessDeniedError, UnreachableError

DIALECTS: Final = ("mlflow", "mlflow-1.0", "mlflow-preview", "oracle-aidp")


def open_backend(tracking_uri: str, access: Access, transport: Transport | None = None) -> Backend:
    """What speaks to this server, as soon as it has recognized its dialect. Does not contact it.

    Raises:
        ValueError: the settings contradict each other, or a credentials file can't be read.
    """
    oracle = oracle_uri.parse(tracking_uri)
    if oracle is not None:
        return OracleBackend.at(oracle, access, transport)
    dialects: dict[str, Any] = {
        backend.dialect: backend for backend in (MlflowBackend, EarlyMlflowBackend, PreviewBackend)
    }
    found: Any = detection.Recognizing(tracking_uri, transport or Transport(access), dialects)
    return cast("Backend", found)


def open_store(tracking_uri: str, access: Access, dialect: str | None = None) -> RestStore:
    """What this server keeps, for reading and writing call by call.

    Raises:
        ValueError: there is no such dialect, or the settings contradict each other.
        ImportError: what signs requests to this server is not installed.
        UnreachableError: the server does not tell what it speaks.
        AccessDeniedError: the credentials don't do.
    """
    oracle = oracle_uri.parse(tracking_uri)
    if oracle is not None and dialect in {None, OracleStore.dialect}:
        return OracleStore.at(oracle, access)
    if dialect == OracleStore.dialect:
        raise ValueError(f"dialect={dialect!r}: {tracking_uri} names no platform and workspace of Oracle's")
    dialects = {store.dialect: store for store in (MlflowStore, EarlyStore, PreviewStore)}
    transport = Transport(access)
    if dialect is None:
        found = detection.detect(tracking_uri, transport)
        if found.value is None:
            kind = AccessDeniedError if found.kind is Kind.DENIED else UnreachableError
            raise kind(f"{tracking_uri}: {found.message}", code=found.code)
        dialect = found.value
    return dialects[dialect](tracking_uri, transport)
