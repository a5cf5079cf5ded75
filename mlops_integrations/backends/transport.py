"""The transport: one request, one reply. It never raises for a failure of the network or the server.

The exception: the blocks of ``stream``. It never retries, except once after a 401 or 403 if refreshing the credentials
may help. Redirects are not followed: they would turn a POST into a GET, and may carry credentials to another host.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import requests
from urllib3.exceptions import HTTPError, LocationParseError, NewConnectionError

from mlops_integrations.backends.connections import ConnectionAdapter
from mlops_integrations.backends.credentials import Credentials, NotSignedError, PluginCredentials, Signs
from mlops_integrations.backends.redaction import secrets_of, told, without_secrets
from mlops_integrations.config.settings import Access
from mlops_integrations.untrusted import one_line
from mlops_integrations.version import VERSION

_CONNECT_SECONDS: Final = 10.0
_SHOWN_CHARACTERS: Final = 300
_BLOCK_BYTES: Final = 64 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of a reply, decompressed: far more than any sensible reply has."""
_TOLD_BYTES: Final = 64 * 1024
"""Only this much of a reply is cleaned of secrets for the text to show."""
_CONNECTION: Final = re.compile(r"^(<.*?>|HTTPS?Connection(Pool)?\(.*?\)): ")
_SLOWEST_FACTOR: Final = 4.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply, or the failure in its place."""

    status: int | None
    """None: no HTTP reply."""
    body: dict[str, Any] | None
    """The JSON object of the body, if it is one."""
    text: str
    """The text to show for the body or failure, on one line and without control characters."""
    sent: bool = True
    """False: the request surely did not reach the server."""
    retry_after: float | None = None
    location: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Names are case-insensitive."""
    withheld: bool = False
    """The user's credentials were not sent along: they are for another server."""

    @property
    def is_html(self) -> bool:
        """True if the reply is an HTML page."""
        return "html" in self.headers.get("Content-Type", "")


class Content(Protocol):
    """A file that is being sent, block by block."""

    def __len__(self) -> int:
        """Its size in bytes."""

    def __iter__(self) -> Iterator[bytes]:
        """Its blocks."""

    def read(self, count: int = -1, /) -> bytes:
        """One block."""

    def __enter__(self) -> Content: ...
    def __exit__(self, *_: object) -> None: ...


class Transport:
    """A keep-alive session with one server's credentials.

    Args:
        access: the server's credentials and connection settings.
        session: the session to use. Default: a new one.
        credentials: they sign the requests. Default: those of ``access``.
    """

    def __init__(
        self, access: Access, session: requests.Session | None = None, credentials: Signs | None = None
    ) -> None:
        self._credentials: Signs = credentials or (
            Credentials(access) if access.request_auth is None else PluginCredentials(access.request_auth)
        )
        self._session = session or _session()
        self._session.auth = self._credentials
        self._session.headers["User-Agent"] = f"mlops-integrations/{VERSION}"
        self._withheld = access.withheld is not None
        self._own_headers = access.headers
        self._session.headers.update(dict(access.headers))
        self._verify: bool | str = access.server_certificate or not access.insecure_tls
        self._session.cert = access.client_certificate
        self._patience = access.timeout
        self._timeout = access.timeout

    def get(self, url: str, query: Mapping[str, str]) -> Reply:
        """One GET."""
        return self._ask("GET", url, query, None)

    def post(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """One POST of a JSON text, with additional headers."""
        return self._ask("POST", url, {}, body, headers)

    def put(self, url: str, opened: Callable[[], Content]) -> Reply:
        """One PUT of a file, which is opened anew for each attempt."""

        def send() -> Reply:
            with opened() as content:
                return self._once("PUT", url, {}, content, "application/octet-stream")

        return self._with_fresh_credentials(send)

    def _ask(
        self,
        method: str,
        url: str,
        query: Mapping[str, str],
        body: bytes | None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return self._with_fresh_credentials(lambda: self._once(method, url, query, body, "application/json", headers))

    def _with_fresh_credentials(self, send: Callable[[], Reply]) -> Reply:
        reply = send()
        denied = reply.status in {requests.codes.unauthorized, requests.codes.forbidden}
        return send() if denied and self._credentials.refresh() else reply

    def _once(
        self,
        method: str,
        url: str,
        query: Mapping[str, str],
        body: bytes | Content | None,
        content_type: str,
        own_headers: Mapping[str, str] | None = None,
    ) -> Reply:
        headers = {**(own_headers or {}), **({"Content-Type": content_type} if body is not None else {})}
        began = time.monotonic()
        try:
            response = self._session.request(
                method,
                url,
                params=query,
                data=body,
                headers=headers,
                timeout=(_CONNECT_SECONDS, self._timeout),
                allow_redirects=False,
                verify=self._verify,
                stream=True,
            )
            reply = self._reply(response)
        except requests.ReadTimeout:
            text = f"no answer within {self._timeout:g} s"
            # An old store may need long for a full batch: the next try is given more time, up to a bound.
            self._timeout = min(self._timeout * 2, self._patience * _SLOWEST_FACTOR)
            return Reply(None, None, text)
        except (requests.RequestException, HTTPError, OSError) as error:
            return Reply(None, None, _failure(error), sent=not _never_sent(error))
        self._timeout = patience_after(time.monotonic() - began, self._patience)
        return reply

    def _reply(self, response: requests.Response) -> Reply:
        """Read the reply.

        Raises:
            RequestException: the reply breaks off, or is too long.
        """
        with response:
            content = _content(response)
        body = _json_object(content)
        location = response.headers.get("Location")
        # Failures are shown and stored; some servers echo the request, with its secrets, in them.
        secrets = secrets_of(response.request.headers, self._own_headers)
        content = without_secrets(content[:_TOLD_BYTES], secrets)
        if body is None or not response.ok:
            body = None if body is None else {name: told(name, value, secrets) for name, value in body.items()}
            location = (
                None if location is None else without_secrets(location.encode(), secrets).decode(errors="replace")
            )
        return Reply(
            status=response.status_code,
            body=body,
            text=one_line(_text(content[: 4 * _SHOWN_CHARACTERS], response.encoding)),
            retry_after=retry_after(response.headers.get("Retry-After"), time.time()),
            location=location,
            headers=response.headers,
            withheld=self._withheld,
        )

    def stream(self, url: str, query: Mapping[str, str]) -> Reply | Iterator[bytes]:
        """Return the content of a GET, block by block, or the reply if its status is not 200."""
        try:
            response = self._session.get(
                url,
                params=query,
                timeout=(_CONNECT_SECONDS, self._timeout),
                allow_redirects=False,
                verify=self._verify,
                stream=True,
            )
            if response.status_code == requests.codes.ok:
                return self._blocks(response)
            return self._reply(response)
        except (requests.RequestException, HTTPError, OSError) as error:
            return Reply(None, None, _failure(error), sent=not _never_sent(error))

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        with response:
            yield from response.iter_content(_BLOCK_BYTES)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, ConnectionAdapter())
    return session


def patience_after(seconds: float, patience: float) -> float:
    """The timeout (seconds) for the next reply, from the time that the last one took.

    A request to a busy server must not time out halfway: the server completes it all the same, and the request has to
    be repeated, which slows the server further.
    """
    return min(max(patience, 2 * seconds), _SLOWEST_FACTOR * patience)


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds to wait, from either form of the header: a number, or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _content(response: requests.Response) -> bytes:
    content = bytearray()
    for block in response.iter_content(_BLOCK_BYTES):
        content += block
        if len(content) > _MOST_BYTES:
            raise requests.exceptions.ContentDecodingError(f"an answer of over {_MOST_BYTES // 2**20} MiB")
    return bytes(content)


def _text(content: bytes, encoding: str | None) -> str:
    try:
        return content.decode(encoding or "utf-8", errors="replace")
    except LookupError:
        return content.decode(errors="replace")


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        body = msgspec.json.decode(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _never_sent(error: Exception) -> bool:
    if isinstance(error, (NotSignedError, requests.ConnectTimeout, requests.exceptions.SSLError, LocationParseError)):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(reason, NewConnectionError)


def _failure(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", error) if error.args else error
    # urllib3 puts the connection before the text: "HTTPConnection(host=...): Failed to establish ...".
    return one_line(_CONNECTION.sub("", str(reason))) or type(error).__name__
