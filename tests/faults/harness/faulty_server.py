"""A server that fails its clients by a plan, at any request, before or after it has done what was asked.

Behind it is a store of our own, or a real MLflow server.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fault_plan import CODES, DONE_FIRST, SLOW, STATUSES, Fault, Plan

_HANG_SECONDS = 60.0
"""Far more than any client here waits."""
_PAGE = b"<!doctype html><title>Sign in</title>"


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    body: bytes

    @property
    def call(self) -> str:
        """Such as "runs/create"."""
        return urlsplit(self.path).path.removeprefix("/api/2.0/mlflow/")

    def fields(self) -> dict[str, Any]:
        """What was asked."""
        if self.method == "GET":
            return dict(parse_qsl(urlsplit(self.path).query))
        fields: dict[str, Any] = json.loads(self.body or b"{}")
        return fields


@dataclass
class _Late:
    """One that is done after its client has given up."""

    request: Request
    requests_left: int
    """Those that come before it at most."""


Answers = Callable[[Request], tuple[int, bytes]]


def passing_on(target: str) -> Answers:
    """What a real server answers."""
    place = urlsplit(target)

    def ask(request: Request) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_HANG_SECONDS)
        try:
            connection.request(request.method, request.path, request.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return ask


class FaultyServer:
    """What ``answers`` answers, by way of faults, on a port that it keeps through its restarts. A context manager.

    Args:
        answers: what is behind.
        plan: which requests fail.
        prompt: what comes late is done before anything else that is asked, since behind is a store that keeps
            duplicates: only by looking can a client know what was done, and nobody can see the future.
        ahead: seconds from now to the date of a ``Retry-After``; on a clock of its own, a client can't obey it exactly.
    """

    def __init__(self, answers: Answers, plan: Plan, *, prompt: bool = False, ahead: float = 3.0) -> None:
        self.faults: Counter[Fault] = Counter()
        self.requests: list[str] = []
        self.late_creations = 0
        self.strayed: list[str] = []
        """What came to the place that a redirection leads to."""
        self.on_request: Callable[[Request, bool], None] = lambda _request, _done: None
        """Called before and after a request is done that no fault meets."""
        self._answers = answers
        self._prompt = prompt
        self.ahead = ahead
        self._plan: Plan | None = plan
        self._lock = threading.RLock()
        self._late: list[_Late] = []
        self._foreseen: list[Fault | None] = []
        self.hung = threading.Semaphore(0)
        """Released by each request that is left without an answer, as soon as all else of it is done."""
        self._denied = 0
        self._restart_at: tuple[float, float] | None = None
        self._restart_wanted = 0
        self._connections: set[socket.socket] = set()
        self._hung_up = threading.Condition()
        self._port = 0
        self._server = self._bind()
        self._port = self._server.server_port
        self._thread = self._listen()

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def calm(self) -> None:
        """No more faults; what was to come late has come."""
        with self._lock:
            self._plan, self._denied, self._restart_wanted = None, 0, 0
            for late in self._late:
                self._answers(late.request)
            self._late.clear()
        self._come_up(float("inf"))

    def tick(self, now: float) -> None:
        """Go down or come up, if it is time to."""
        if self._restart_wanted:
            seconds, self._restart_wanted = self._restart_wanted, 0
            self._close()
            self._server = self._bind()  # the port is kept meanwhile: to connect to it is refused
            self._restart_at = now, now + seconds
        self._come_up(now)

    def _come_up(self, now: float) -> None:
        if self._restart_at is not None and now >= self._restart_at[1]:
            self._restart_at = None
            self._thread = self._listen()

    def _bind(self) -> ThreadingHTTPServer:
        owner = self

        class Bound(_Handler):
            server_in_front = owner

        server = ThreadingHTTPServer(("127.0.0.1", self._port), Bound, bind_and_activate=False)
        server.daemon_threads = True
        server.request_queue_size = 64
        server.server_bind()
        return server

    def _listen(self) -> threading.Thread:
        self._server.server_activate()
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        return thread

    def _close(self) -> None:
        if self._restart_at is None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        with self._hung_up:
            for connection in self._connections.copy():
                reset(connection)
            assert self._hung_up.wait_for(lambda: not self._connections, _HANG_SECONDS)

    def foresee(self, call: str) -> Fault | None:
        """What will become of the next request, for clients that have no time to wait for an answer in vain."""
        with self._lock:
            self._foreseen = [self._draw(call)]
            return self._foreseen[0]

    def fault_of(self, request: Request) -> Fault | None:
        """What becomes of a request that has begun to arrive."""
        with self._lock:
            self.requests.append(request.call)
            fault = self._foreseen.pop() if self._foreseen else self._draw(request.call)
            if fault is not None:
                self.faults[fault] += 1
            return fault

    def _draw(self, call: str) -> Fault | None:
        if self._plan is None:
            return None
        if self._denied:
            self._denied -= 1
            return Fault.DENIED
        fault = self._plan.draw(call)
        if fault is Fault.DENIED:
            self._denied = self._plan.some(5) - 1
        elif fault is Fault.RESTART:
            self._restart_wanted = self._plan.some(20)
        return fault

    def arrive(self, request: Request, fault: Fault | None) -> None:
        """A request has arrived as a whole: what is late and can't be overtaken by it comes first."""
        with self._lock:
            for late in self._late.copy():
                late.requests_left -= 1
                if late.requests_left <= 0 or self._prompt or _not_overtaken(late.request, request):
                    self._late.remove(late)
                    self._answers(late.request)
            if fault is Fault.LATE and self._plan is not None:
                self._late.append(_Late(request, self._plan.some(6)))
                self.late_creations += request.call == "runs/create"

    def connected(self, connection: socket.socket) -> None:
        """A client has come."""
        with self._hung_up:
            self._connections.add(connection)

    def hung_up(self, connection: socket.socket) -> None:
        """A connection is no more."""
        with self._hung_up:
            self._connections.discard(connection)
            self._hung_up.notify_all()

    def do(self, request: Request) -> tuple[int, bytes]:
        """Have it done."""
        with self._lock:
            return self._answers(request)


def _not_overtaken(late: Request, by: Request) -> bool:
    """Whether a late request is surely done before another one.

    Nothing that a client does could mend a status, or a tag, of which an earlier value comes after a later one.
    """
    if late.call == "runs/create":
        return by.call == "runs/log-batch"
    texts = late.call == by.call == "runs/log-batch" and b'"tags"' in late.body and b'"tags"' in by.body
    return texts or late.call == by.call == "runs/update"


def reset(connection: socket.socket) -> None:
    """End a connection as a crashed peer does."""
    with contextlib.suppress(OSError):  # it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)


class _Handler(BaseHTTPRequestHandler):
    server_in_front: FaultyServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server_in_front.connected(self.connection)

    def finish(self) -> None:
        with contextlib.suppress(OSError):  # the client is gone
            super().finish()
        self.connection.close()
        self.server_in_front.hung_up(self.connection)

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client is gone
            super().handle()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server = self.server_in_front
        if self.path.startswith("/elsewhere"):
            server.strayed.append(self.path)
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length // 2)
        fault = server.fault_of(Request(self.command, self.path, body))
        if fault is Fault.RESET_IN_BODY:
            self.close_connection = True
            reset(self.connection)
            return
        request = Request(self.command, self.path, body + self.rfile.read(length - len(body)))
        server.arrive(request, fault)
        if fault is None:
            server.on_request(request, False)
            status, answer = server.do(request)
            server.on_request(request, True)
            self._reply(status, answer)
            return
        answer = server.do(request)[1] if fault in DONE_FIRST else b""
        self._fail(fault, answer)

    def _fail(self, fault: Fault, answer: bytes) -> None:
        if fault in SLOW:
            self.server_in_front.hung.release()
            self.connection.settimeout(_HANG_SECONDS)
            self.connection.recv(1)  # until the client has given up
            self.close_connection = True
        elif fault in STATUSES:
            self._say(fault)
        elif fault is Fault.HALF_JSON:
            self._reply(200, answer[: len(answer) // 2] or b"{")
        elif fault in {Fault.HALF, Fault.HALF_RESET}:
            self._reply(200, answer[: len(answer) // 2], length=len(answer) + 1)
            self.close_connection = True
        else:
            self.close_connection = True
        if fault in {Fault.LOST_RESET, Fault.HALF_RESET, Fault.RESET, Fault.RESTART}:
            reset(self.connection)

    def _say(self, fault: Fault) -> None:
        headers = {}
        if fault in {Fault.THROTTLED_SECONDS, Fault.UNAVAILABLE_SECONDS}:
            headers["Retry-After"] = "3"
        elif fault is Fault.THROTTLED_DATE:
            headers["Retry-After"] = email.utils.formatdate(time.time() + self.server_in_front.ahead, usegmt=True)
        elif fault is Fault.REDIRECT:
            headers["Location"] = f"{self.server_in_front.uri}/elsewhere"
        elif fault in {Fault.PAGE, Fault.PAGE_DONE, Fault.NOT_FOUND}:
            headers["Content-Type"] = "text/html"
        code = CODES.get(fault)
        answer = _PAGE if code is None else json.dumps({"error_code": code, "message": "by the plan"}).encode()
        self._reply(STATUSES[fault], answer, **headers)

    def _reply(self, status: int, answer: bytes, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        fields = {"Content-Type": "application/json", "Content-Length": str(length or len(answer))} | headers
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
