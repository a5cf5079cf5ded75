"""Oracle AI Data Platform as its documents describe it, in front of a real MLflow server that keeps the data.

Each signature is verified; what is not documented is refused, and remembered as a violation; a write is done once for
each retry token. It can throttle, fail after a write, forget tokens, and page as a test wants it.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import json
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from oracle_schema import CALLS, documented, faults

VERSION = "20260430"
PLATFORM = "ocid1.aidataplatform.oc1.iad.amaaaaaa/odd id"
WORKSPACE = "8a5f2f5e-0d3c/4b"
"""Both with a slash: each is one segment of the path, whatever is in it."""

CLOCK_SECONDS = 300.0
TOKEN_SECONDS = 24 * 3600.0

_SIGNED = ["date", "(request-target)", "host"]
_SIGNED_WITH_BODY = [*_SIGNED, "content-length", "content-type", "x-content-sha256"]
_HTTP_HEADERS = {
    *("host", "user-agent", "accept", "accept-encoding", "connection", "date", "authorization", "content-length"),
    *("content-type", "x-content-sha256"),
}
_SDK_HEADERS = {"opc-client-info", "opc-client-retries"}
"""What Oracle's own client says about itself."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_STATUSES = {
    "RESOURCE_DOES_NOT_EXIST": (404, "NotAuthorizedOrNotFound"),
    "RESOURCE_ALREADY_EXISTS": (409, "NotAuthorizedOrResourceAlreadyExists"),
    "INVALID_PARAMETER_VALUE": (400, "InvalidParameter"),
    "BAD_REQUEST": (400, "InvalidParameter"),
}


@dataclass
class Answer:
    """What goes back."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def error(status: int, code: str, message: str = "because", **headers: str) -> Answer:
        """An error in Oracle's shape."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Answer(status, {"code": code, "message": message}, named)


@dataclass
class Seen:
    """One request that came in."""

    verb: str
    call: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    key_id: str = ""
    status: int = 0
    request_id: str = ""

    @property
    def token(self) -> str | None:
        """Its retry token."""
        return self.headers.get("opc-retry-token")


Fault = Callable[[Seen, Callable[[], Answer]], "Answer | None"]
"""Given a request, and what does it: an answer to give, or None to lose the reply. ``PassOnError`` leaves it alone."""


class PassOnError(Exception):
    """This request is none of the fault's."""


class Gateway:
    """The service, on a port of its own.

    Attributes:
        keys: the public key of each ``keyId`` that is known; take one away, and its owner is denied.
        seen: every request.
        done: the writes that had an effect.
        violations: what a careful client never does.
        fault: decides about each request that is in order.
        page_size: the most entries on a page.
        page_by: where the token of the next page stands: "body", "header" or "both".
        ahead: seconds that the clock of the service is ahead.
    """

    def __init__(self, target: str, keys: Mapping[str, RSAPublicKey], prefix: str = f"/{VERSION}") -> None:
        self._target = urlsplit(target)
        self.keys = dict(keys)
        self.seen: list[Seen] = []
        self.done: list[Seen] = []
        self.violations: list[str] = []
        self.fault: Fault | None = None
        self.page_size: int | None = None
        self.page_by = "body"
        self.ahead = 0.0
        self.replays = 0
        self._kept: dict[str, tuple[float, str, Answer]] = {}
        self.invalidated: set[str] = set()
        self._lock = threading.Lock()
        gateway = self

        class Bound(_Handler):
            owner = gateway

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.prefix = prefix
        place = f"/aiDataPlatforms/{quote(PLATFORM, safe='')}/workspaces/{quote(WORKSPACE, safe='')}"
        self.uri = f"{self.endpoint}{prefix}{place}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()

    def by_region(self, **options: str) -> str:
        """The same workspace by Oracle's own scheme."""
        names = f"{quote(PLATFORM, safe='')}/{quote(WORKSPACE, safe='')}"
        return f"oracle-aidp://us-ashburn-1/{names}?{urlencode({'endpoint': self.endpoint, **options})}"

    def calls(self, call: str, status: int | None = None) -> list[Seen]:
        """The requests of one call, all or those that were answered so."""
        return [seen for seen in self.seen if seen.call == call and status in {None, seen.status}]

    def points(self) -> list[tuple[str, int, int, float]]:
        """Every metric value that was written, once for each time that it was."""
        found = []
        for seen in self.done:
            values = [seen.body] if seen.call == "runs/log-metric" else seen.body.get("metrics", ())
            found += [(each["key"], each.get("step", 0), each["timestamp"], each["value"]) for each in values]
        return sorted(found)

    def forget_tokens(self) -> None:
        """As if a day had gone by."""
        self._kept.clear()

    # -- one request --------------------------------------------------------------------------------------------

    def answer(self, seen: Seen, raw: bytes) -> Answer | None:
        """What to say to it; None: nothing."""
        trouble = self._denied(seen, raw) or self._misplaced(seen) or self._wrong(seen, raw)
        if trouble is not None:
            return trouble

        def do() -> Answer:
            return self._once(seen) if CALLS[seen.call].writes else self._forward(seen)

        if self.fault is not None:
            try:
                return self.fault(seen, do)
            except PassOnError:
                pass
        return do()

    def _denied(self, seen: Seen, raw: bytes) -> Answer | None:
        """Whether the signature is that of a key that is known, and of now."""
        given = dict(re.findall(r'(\w+)="([^"]*)"', seen.headers.get("authorization", "")))
        seen.key_id = given.get("keyId", "")
        key = self.keys.get(seen.key_id)
        if not seen.headers.get("authorization", "").startswith("Signature ") or key is None:
            return Answer.error(401, "NotAuthenticated", "The required information was not provided or was incorrect.")
        wanted = _SIGNED_WITH_BODY if seen.verb == "POST" else _SIGNED
        if (given.get("version"), given.get("algorithm")) != ("1", "rsa-sha256"):
            return self._violation(401, "NotAuthenticated", "version or algorithm of the signature")
        if sorted(given.get("headers", "").split(" ")) != sorted(wanted):
            return self._violation(401, "NotAuthenticated", f"signed are {given.get('headers')}")
        now = time.time() + self.ahead
        if abs(email.utils.parsedate_to_datetime(seen.headers["date"]).timestamp() - now) > CLOCK_SECONDS:
            return Answer.error(401, "NotAuthenticated", "the date is not within five minutes of the service's")
        target = f"{seen.verb.lower()} {seen.path}"
        lines = [
            f"{name}: {target if name == '(request-target)' else seen.headers[name]}"
            for name in given["headers"].split()
        ]
        try:
            key.verify(base64.b64decode(given["signature"]), "\n".join(lines).encode(), PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return Answer.error(401, "NotAuthenticated", "the signature does not fit")
        if seen.verb == "POST":
            digest = base64.b64encode(hashlib.sha256(raw).digest()).decode()
            if seen.headers.get("x-content-sha256") != digest:
                return self._violation(401, "NotAuthenticated", "the body's hash does not fit")
        return None

    def _misplaced(self, seen: Seen) -> Answer | None:
        """Whether there is such a platform, workspace and call."""
        segments = [unquote(part) for part in urlsplit(seen.path).path.removeprefix(self.prefix).split("/")[1:]]
        place = ["aiDataPlatforms", PLATFORM, "workspaces", WORKSPACE, "mlops", "api", "2.0", "mlflow"]
        seen.call = "/".join(segments[len(place) :])
        if segments[: len(place)] != place:
            return Answer.error(404, "NotAuthorizedOrNotFound", "no such platform or workspace")
        if seen.call not in CALLS or CALLS[seen.call].verb != seen.verb:
            return self._violation(404, "NotFound", f"no such call: {seen.verb} {seen.call}")
        return None

    def _wrong(self, seen: Seen, raw: bytes) -> Answer | None:
        """Whether all that was sent is documented."""
        call = CALLS[seen.call]
        found = list(self._wrong_headers(seen, writes=call.writes))
        if seen.verb == "GET":
            numbers = {name for name, kind in call.fields.items() if kind == "int"}
            found += faults(call.fields, {k: int(v) if k in numbers else v for k, v in seen.query.items()})
            found += ["a GET with a body"] * bool(raw)
        else:
            found += [f"query {seen.query}"] * bool(seen.query)
            try:
                seen.body = json.loads(raw, parse_constant=_refuse)
                found += faults(call.fields, seen.body)
            except ValueError as error:
                found.append(f"the body is no JSON: {error}")
        return self._violation(400, "InvalidParameter", "; ".join(found)) if found else None

    def _wrong_headers(self, seen: Seen, *, writes: bool) -> list[str]:
        known = {*_HTTP_HEADERS, "opc-request-id", "dh-user-principal", *(["opc-retry-token"] if writes else [])}
        if "Oracle-PythonSDK" in seen.headers.get("user-agent", ""):
            known |= _SDK_HEADERS
        found = [f"header {name}" for name in seen.headers if name not in known]
        if not _REQUEST_ID.fullmatch(seen.headers.get("opc-request-id", "left-out")):
            found.append("opc-request-id")
        if seen.token is not None and not 1 <= len(seen.token) <= 64:
            found.append("length of opc-retry-token")
        return found

    def _violation(self, status: int, code: str, text: str) -> Answer:
        self.violations.append(text)
        return Answer.error(status, code, text)

    def _once(self, seen: Seen) -> Answer:
        """Do a write, unless one of this token was done."""
        with self._lock:
            content = json.dumps([seen.call, seen.body], sort_keys=True)
            if seen.token in self.invalidated:
                return Answer.error(409, "InvalidatedRetryToken", "the retry token is not valid any more")
            kept = self._kept.get(seen.token or "")
            if kept is not None and time.time() + self.ahead - kept[0] < TOKEN_SECONDS:
                if kept[1] != content:
                    return self._violation(400, "InvalidParameter", "a retry token for another request")
                self.replays += 1
                return kept[2]
            answer = self._forward(seen)
            if answer.status == 200:
                self.done.append(seen)
                if seen.token is not None:
                    self._kept[seen.token] = (time.time() + self.ahead, content, answer)
            return answer

    def _forward(self, seen: Seen) -> Answer:
        call = CALLS[seen.call]
        query, body = dict(seen.query), None if seen.body is None else dict(seen.body)
        if self.page_size is not None and call.lists:
            if body is not None:
                body["max_results"] = min(body.get("max_results", self.page_size), self.page_size)
            elif "max_results" in query:  # without it, a history comes whole
                query["max_results"] = str(min(int(query["max_results"]), self.page_size))
        if seen.call == "runs/delete" and body is not None:
            body.pop("is_permanent", None)
        connection = http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=60)
        try:
            place = f"{self._target.path}/api/2.0/mlflow/{seen.call}" + (f"?{urlencode(query)}" if query else "")
            sent = None if body is None else json.dumps(body)
            connection.request(seen.verb, place, sent, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            status, found = reply.status, json.loads(reply.read() or b"{}")
        finally:
            connection.close()
        if status != 200:
            told = _STATUSES.get(str(found.get("error_code")), (500, "InternalServerError"))
            return Answer.error(*told, str(found.get("message", "")))
        return self._told(seen, documented(call.answer, found))

    def _told(self, seen: Seen, body: dict[str, Any]) -> Answer:
        headers = {}
        call = CALLS[seen.call]
        if call.lists:
            token = body.get("next_page_token")
            if token and self.page_by in {"header", "both"}:
                headers["opc-next-page"] = token
            if self.page_by == "header":
                body.pop("next_page_token", None)
        else:
            headers["etag"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        return Answer(200, body, headers)


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


class _Handler(BaseHTTPRequestHandler):
    owner: Gateway
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        seen = Seen(self.command, "", self.path, query, None, headers)
        self.owner.seen.append(seen)
        try:
            answer = self.owner.answer(seen, raw)
        except Exception as error:
            self.owner.violations.append(f"the gateway itself failed: {error!r}")
            raise
        if answer is None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        seen.status = answer.status
        seen.request_id = f"service-{uuid.uuid4().hex}"
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("opc-request-id", seen.request_id)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""
