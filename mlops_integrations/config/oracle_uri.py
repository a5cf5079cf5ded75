"""Parses the two spellings of an Oracle AI Data Platform's tracking URI. Imports nothing of ours.

``https://host/20260430/aiDataPlatforms/{id}/workspaces/{key}[/mlops]`` is complete. In
``oracle-aidp://{region}/{id}/{key}`` the host follows from the region. Options may follow either; none of them is a
secret: they are stored in the journal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

SCHEME: Final = "oracle-aidp"
API_VERSION: Final = "20260430"
DOMAIN: Final = "oraclecloud.com"
AUTH_KINDS: Final = ("api_key", "security_token", "instance_principal", "resource_principal", "ambient")

_PATH: Final = re.compile(r"(?P<prefix>.*)/aiDataPlatforms/(?P<id>[^/]+)/workspaces/(?P<key>[^/]+)(?P<rest>/.*)?")
_RESTS: Final = ("", "/mlops", "/mlops/api/2.0/mlflow")
_EVERYWHERE: Final = ("auth", "profile")
_BY_REGION: Final = (*_EVERYWHERE, "endpoint", "prefix", "api_version")
_REGION: Final = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class OracleAddress:
    """One workspace of one platform, and how to authenticate."""

    region: str | None
    """None: the endpoint is given instead."""
    endpoint: str | None
    """``https://host[:port]``; None: the region's."""
    prefix: str
    """The path before ``/aiDataPlatforms``: the version of the API, after any prefix of a gateway."""
    platform: str
    workspace: str
    auth: str | None = None
    """One of ``AUTH_KINDS``; None: as the environment and the profile suggest."""
    profile: str | None = None
    """The section of the configuration file; None: as the environment suggests."""

    def base(self, domain: str = DOMAIN) -> str:
        """Return the address that the paths of API calls are appended to.

        Args:
            domain: the second-level domain of the region's realm.
        """
        endpoint = self.endpoint or f"https://aidp.{self.region}.oci.{domain}"
        platform, workspace = _segment(self.platform), _segment(self.workspace)
        return f"{endpoint}{self.prefix}/aiDataPlatforms/{platform}/workspaces/{workspace}"


def parse(uri: str) -> OracleAddress | None:
    """Return the parsed URI; None if it is not one of an Oracle AI Data Platform.

    Raises:
        ValueError: it is meant to be one, but malformed. The text holds nothing of the URI's user and password.
    """
    parts = urlsplit(uri.strip())
    if parts.scheme.lower() == SCHEME:
        return _by_region(parts)
    if parts.scheme.lower() in {"http", "https"} and "/aiDataPlatforms/" in parts.path:
        return _by_endpoint(parts)
    return None


def canonical(uri: str) -> str | None:
    """Return the one spelling under which a workspace is stored; None if the URI is not one of Oracle's.

    Raises:
        ValueError: as ``parse`` says.
    """
    parts, address = urlsplit(uri.strip()), parse(uri)
    if address is None:
        return None
    given = _options(parts)
    if "endpoint" in given:
        given["endpoint"] = address.endpoint or ""
    query = urlencode([(name, given[name]) for name in _BY_REGION if name in given])
    if address.region is None:
        return f"{address.base()}?{query}" if query else address.base()
    path = f"/{_segment(address.platform)}/{_segment(address.workspace)}"
    return urlunsplit((SCHEME, address.region, path, query, ""))


def _by_endpoint(parts: SplitResult) -> OracleAddress:
    found = _PATH.fullmatch(parts.path.rstrip("/"))
    if found is None or (found["rest"] or "") not in _RESTS:
        raise ValueError("an Oracle tracking URI reads https://host/…/aiDataPlatforms/{id}/workspaces/{key}[/mlops]")
    options = _checked(parts, _EVERYWHERE)
    return OracleAddress(
        region=None,
        endpoint=_endpoint(parts),
        prefix=found["prefix"],
        platform=unquote(found["id"]),
        workspace=unquote(found["key"]),
        auth=options.get("auth"),
        profile=options.get("profile"),
    )


def _by_region(parts: SplitResult) -> OracleAddress:
    names = [unquote(name) for name in parts.path.strip("/").split("/") if name]
    options = _checked(parts, _BY_REGION)
    region = parts.netloc.lower()
    if len(names) != 2 or not _REGION.fullmatch(region):
        raise ValueError("an Oracle tracking URI reads oracle-aidp://{region}/{aiDataPlatformId}/{workspaceKey}")
    endpoint = options.get("endpoint")
    if endpoint is not None and urlsplit(endpoint).path.strip("/"):
        raise ValueError("the endpoint of an Oracle tracking URI has no path: put that into prefix=…")
    before = options.get("prefix", "").strip("/")
    version = options.get("api_version", API_VERSION).strip("/")
    return OracleAddress(
        region=region,
        endpoint=None if endpoint is None else _endpoint(urlsplit(endpoint)),
        prefix="".join(f"/{part}" for part in (before, version) if part),
        platform=names[0],
        workspace=names[1],
        auth=options.get("auth"),
        profile=options.get("profile"),
    )


def _endpoint(parts: SplitResult) -> str:
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        raise ValueError("the endpoint of an Oracle tracking URI reads https://host[:port]")
    if "@" in parts.netloc:
        raise ValueError("Oracle AI Data Platform takes no user and password: requests are signed")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port of an Oracle tracking URI is no number from 0 to 65535") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.lower()}://{host}" + ("" if port is None else f":{port}")


def _checked(parts: SplitResult, allowed: tuple[str, ...]) -> dict[str, str]:
    options = _options(parts)
    for name in options:
        if name not in allowed:
            # The value is not shown, and nothing of it kept: it may be a secret.
            raise ValueError(f"an Oracle tracking URI has no option {name!r}: use {', '.join(allowed)}")
    if options.get("auth", "api_key") not in AUTH_KINDS:
        raise ValueError(f"auth={options['auth']!r} in an Oracle tracking URI: use one of {', '.join(AUTH_KINDS)}")
    return options


def _options(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query))


def _segment(name: str) -> str:
    """Return a name as one segment of a path, whatever it contains."""
    return quote(name, safe="")
