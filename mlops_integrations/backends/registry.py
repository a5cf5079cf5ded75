"""Chooses the backend or store for a server: the only module that imports those of all dialects."""

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
    """Return the backend for a server; ``recognize`` must find its dialect first. Does not contact the server.

    Raises:
        ValueError: the URI is meant to be one of Oracle's and is malformed.
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
    """Return the store for a server, to read and write its content call by call.

    Raises:
        ValueError: a malformed Oracle URI, or Oracle's dialect with a URI that is not Oracle's.
        ImportError: the package that signs requests to this server is not installed.
        UnreachableError: the server's dialect could not be detected.
        AccessDeniedError: credentials were rejected or are missing.
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
