"""Splits tracking URIs into an address and credentials; refuses invalid ones without showing secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit, urlunsplit

from mlops_integrations.config import databricks, oracle_uri


def split_credentials(uri: str, environ: Mapping[str, str]) -> tuple[str, str | None, str | None]:
    """Return a tracking URI without user, password, query and fragment; the user; the password.

    Oracle's URIs keep their query: it holds options, and can hold no secret.

    Args:
        uri: the URI as given.
        environ: the environment, which may name Databricks' workspace.

    Raises:
        ValueError: this is not the URI of a supported server.
    """
    try:
        parts = urlsplit(uri.strip())
    except ValueError:  # its text may hold the password
        raise ValueError(f"tracking URI {_shown(uri)!r} can't be read") from None
    oracle = oracle_uri.canonical(uri)
    if oracle is not None:
        return oracle, None, None
    if databricks.is_meant(uri):
        address, token = databricks.workspace(uri, environ)
        return address, databricks.USER, token
    scheme = parts.scheme.lower()
    if scheme not in {"http", "https"}:
        raise ValueError(_wrong_scheme(uri, scheme))
    if not parts.hostname:
        raise ValueError(f"tracking URI {_shown(uri)!r} names no host: use http(s)://host[:port][/prefix]")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"tracking URI {_shown(uri)!r} has a port that is no number from 0 to 65535") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    bare = urlunsplit((scheme, place, parts.path.rstrip("/"), "", ""))
    return bare, _unquoted(parts.username), _unquoted(parts.password)


def _wrong_scheme(uri: str, scheme: str) -> str:
    shown = _shown(uri)
    if scheme in {"sqlite", "file", "mysql", "postgresql", "mssql"} or (not scheme and "/" in uri):
        return (
            f"tracking URI {shown!r} is a store, not a server: start one on it "
            f"(mlflow server --backend-store-uri {shown}) and give its http address"
        )
    if not uri.strip():
        return "tracking URI is empty: leave it out to record locally"
    if "://" in uri:
        return f"tracking URI {shown!r} has no scheme that we know: http, https, databricks and oracle-aidp are"
    return f"tracking URI {shown!r} has no scheme that we know: did you mean 'http://{shown}'?"


def _shown(uri: str) -> str:
    """Return any text without the parts that may be secret in a URI: user and password, query and fragment."""
    without_user = re.sub(r"^([a-zA-Z][\w+.\-]*:)?(//)?.*@", r"\1\2", uri.strip(), flags=re.DOTALL)
    return re.split(r"[?#]", without_user)[0]


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)
