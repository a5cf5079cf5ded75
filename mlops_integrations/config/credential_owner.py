"""Decides which server gets the user's credentials: the one that the user has named, and no other. Pure.

A run directory names a server, too, but somebody else may have written that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mlops_integrations.config import databricks, oracle_uri

_USER_AND_PASSWORD: Final = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_VARIABLES: Final = (
    *_USER_AND_PASSWORD,
    "MLFLOW_TRACKING_TOKEN",
    "MLOPS_TOKEN_FILE",
    "MLOPS_TOKEN_COMMAND",
    "MLOPS_HEADERS",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_AUTH",
)
_PORTS: Final = {"http": 80, "https": 443}
# Our own pattern, since libraries parse odd addresses differently: in "http://theirs\@mine" one sees the host "mine",
# and another connects to "theirs". An address that is not as plain as this has no origin to be compared.
_PLAIN: Final = re.compile(
    r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/.*)?", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, slots=True)
class Withheld:
    """Credentials that a server does not get. Holds no secret."""

    what: tuple[str, ...]
    """Where they come from: names of variables, or words."""
    owner: str | None
    """The server that they are for, normally as ``https://host:443``; None: the user has named none."""
    address: str
    """The URI for ``--to`` or MLFLOW_TRACKING_URI with which this server gets them."""
    needed: bool = False
    """Without them, requests to this server are useless."""


def origin(uri: str) -> str | None:
    """Return scheme, host and port of a tracking URI, as ``https://host:443``; None if they are not plain."""
    try:
        address = oracle_uri.parse(uri)
    except ValueError:
        return None
    found = _PLAIN.fullmatch(uri if address is None else address.base())
    if found is None:
        return None
    scheme, host, port = found.groups()
    return f"{scheme.lower()}://{host.lower()}:{int(port or _PORTS[scheme.lower()])}"


def same_server(one: str, other: str) -> bool:
    """True if two addresses mean the same server, whatever their paths. No host name is resolved."""
    return one == other or (origin(one) is not None and origin(one) == origin(other))


def withheld(destination: str, named: str | None, environ: Mapping[str, str], *, in_uri: bool) -> Withheld | None:
    """Return the user's credentials that are not for this server; None if there are none.

    Args:
        destination: the server, which the user has not named.
        named: the server that the user has named.
        environ: the environment.
        in_uri: True if the user's URI holds credentials, or stands for some.
    """
    what = ["MLFLOW_TRACKING_URI"] if in_uri else []
    what += [name for name in _VARIABLES if environ.get(name) and not (in_uri and name in _USER_AND_PASSWORD)]
    address = destination.replace("://", "://USER:PASSWORD@", 1) if in_uri else destination
    if _is_databricks(destination, environ):
        what, address = [*what, "Databricks' configuration"], "databricks"
    needed = _is_oracle(destination)
    if needed:
        what, address = [*what, "Oracle's configuration"], destination
    owner = None if named is None else origin(named) or named
    return Withheld(tuple(what), owner, address, needed) if what else None


def _is_databricks(uri: str, environ: Mapping[str, str]) -> bool:
    """True if this is the workspace that ``databricks`` stands for here."""
    try:
        return same_server(databricks.workspace("databricks", environ)[0], uri)
    except (ValueError, RuntimeError):  # none is configured; there is no home directory
        return False


def _is_oracle(uri: str) -> bool:
    try:
        return oracle_uri.parse(uri) is not None
    except ValueError:
        return False
