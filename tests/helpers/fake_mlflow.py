"""A small server that stands for MLflow where a real one would be too slow or too well-behaved."""

from __future__ import annotations

import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_API = "/api/2.0/mlflow/"
_DEADLINE = 30.0


@dataclass
class FakeRun:
    """One run as the server keeps it."""

    run_id: str
    experiment_id: str
    name: str
    start_time: int
    status: str = "RUNNING"
    end_time: int | None = None
    deleted: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: set[tuple[str, float | str, int, int]] = field(default_factory=set)
    """Key, value, time, step: the same point twice is one, as in MLflow's own store."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Artifacts by their paths; tests put them here."""


class RefusedError(Exception):
    """The answer is an error of MLflow's kind."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class FakeStore:
    """What the endpoints that the uploader calls do."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, FakeRun] = {}
        self._poison: dict[str, tuple[int, str]] = {}
        self._changed = threading.Condition()

    def run(self, name: str) -> FakeRun:
        """The only run of this name that is not deleted."""
        (found,) = [run for run in self.runs.values() if run.name == name and not run.deleted]
        return found

    def refuse_metric(self, key: str, status: int = 400, code: str = "INVALID_PARAMETER_VALUE") -> None:
        """Refuse every batch with a metric of this name."""
        self._poison[key] = status, code

    def do(self, call: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Do one call ("runs/create"); status and body of the answer."""
        endpoint = getattr(self, "_" + re.sub(r"\W", "_", call), None)
        if endpoint is None:
            return 404, {"error_code": "ENDPOINT_NOT_FOUND", "message": call}
        with self._changed:
            try:
                return 200, endpoint(body)
            except RefusedError as error:
                return error.status, {"error_code": error.code, "message": str(error)}

    def _experiments_get_by_name(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["experiment_name"]
        if name not in self.experiments:
            raise _missing(f"experiment {name}")
        return {"experiment": {"experiment_id": self.experiments[name], "name": name, "lifecycle_stage": "active"}}

    def _experiments_get(self, body: dict[str, Any]) -> dict[str, Any]:
        number = body["experiment_id"]
        if number not in self.experiments.values():
            raise _missing(f"experiment {number}")
        return {"experiment": {"experiment_id": number, "lifecycle_stage": "active"}}

    def _experiments_create(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["name"] in self.experiments:
            raise RefusedError(400, "RESOURCE_ALREADY_EXISTS", f"experiment {body['name']} exists")
        number = self.experiments[body["name"]] = str(len(self.experiments) + 1)
        return {"experiment_id": number}

    def _runs_create(self, body: dict[str, Any]) -> dict[str, Any]:
        run = FakeRun(uuid.uuid4().hex, body["experiment_id"], body.get("run_name", ""), body["start_time"])
        run.tags.update({tag["key"]: tag["value"] for tag in body.get("tags", [])})
        self.runs[run.run_id] = run
        return {"run": _json_of(run)}

    def _runs_get(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"run": _json_of(self._known(body))}

    def _runs_search(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = re.fullmatch(r"tags\.`(.+)` = '(.*)'", body["filter"])
        assert wanted is not None, f"a filter that this server does not know: {body['filter']}"
        key, value = wanted.groups()
        runs = [run for run in self.runs.values() if run.tags.get(key) == value and not run.deleted]
        return {"runs": [_json_of(run) for run in runs if run.experiment_id in body["experiment_ids"]]}

    def _runs_update(self, body: dict[str, Any]) -> dict[str, Any]:
        run = self._known(body)
        run.status = body.get("status", run.status)
        run.end_time = body.get("end_time", run.end_time)
        return {"run_info": _json_of(run)["info"]}

    def _runs_delete(self, body: dict[str, Any]) -> dict[str, Any]:
        self._known(body).deleted = True
        return {}

    def _runs_log_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        run = self._known(body)
        if run.deleted:
            raise RefusedError(400, "INVALID_PARAMETER_VALUE", f"The run {run.run_id} must be in the 'active' state")
        for param in body.get("params", []):
            if run.params.get(param["key"], param["value"]) != param["value"]:
                raise RefusedError(400, "INVALID_PARAMETER_VALUE", "Changing param values is not allowed")
        for metric in body.get("metrics", []):
            if metric["key"] in self._poison:
                raise RefusedError(*self._poison[metric["key"]], "Invalid value for a metric")
        run.params.update({param["key"]: param["value"] for param in body.get("params", [])})
        run.tags.update({tag["key"]: tag["value"] for tag in body.get("tags", [])})
        run.metrics.update((one["key"], one["value"], one["timestamp"], one["step"]) for one in body.get("metrics", []))
        return {}

    def _metrics_get_history(self, body: dict[str, Any]) -> dict[str, Any]:
        rows = sorted((row for row in self._known(body).metrics if row[0] == body["metric_key"]), key=str)
        first, most = int(body.get("page_token") or 0), int(body.get("max_results") or len(rows))
        page = rows[first : first + most]
        told = {"metrics": [dict(zip(("key", "value", "timestamp", "step"), row, strict=True)) for row in page]}
        return told | ({"next_page_token": str(first + most)} if first + most < len(rows) else {})

    def _artifacts_list(self, body: dict[str, Any]) -> dict[str, Any]:
        above = body.get("path", "")
        files = self._known(body).files
        return {
            "files": [
                {"path": path, "is_dir": False, "file_size": len(content)}
                for path, content in files.items()
                if path.rpartition("/")[0] == above
            ]
        }

    def _known(self, body: dict[str, Any]) -> FakeRun:
        run = self.runs.get(body["run_id"])
        if run is None:
            raise _missing(f"run {body['run_id']}")
        return run


class FakeMlflow(FakeStore):
    """The endpoints on a port of their own. A context manager.

    ``requests`` lists the calls as they came ("runs/create"), ``authorizations`` what these hold of that, ``headers``
    all that they hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self._scripted: dict[str, list[tuple[int, dict[str, Any], bool]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fake-mlflow")

    @property
    def uri(self) -> str:
        """The tracking URI."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeMlflow:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer_next(
        self, call: str, status: int, times: int = 1, body: dict[str, Any] | None = None, *, done: bool = False
    ) -> None:
        """Answer the next calls of this name ("runs/create") with this status; they are done only if ``done``."""
        with self._changed:
            self._scripted.setdefault(call, []).extend([(status, body or {}, done)] * times)

    def forget_answers(self) -> None:
        """Do again what is asked for."""
        with self._changed:
            self._scripted.clear()

    def wait_for(self, call: str, times: int = 1) -> None:
        """Wait until a call of this name has come so many times."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.requests.count(call) >= times, _DEADLINE)
        assert came, f"{call} did not come {times} times: {self.requests}"

    def answer(self, call: str, body: dict[str, Any], authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Do one call, or what the test wants instead; status and body of the answer."""
        with self._changed:
            self.requests.append(call)
            self.authorizations.append(authorization)
            self._changed.notify_all()
            scripted = self._scripted.get(call)
            if not scripted:
                return self.do(call, body)
            status, answer, done = scripted.pop(0)
            if done:
                self.do(call, body)
            return status, answer


def _missing(what: str) -> RefusedError:
    return RefusedError(404, "RESOURCE_DOES_NOT_EXIST", f"there is no {what}")


def _json_of(run: FakeRun) -> dict[str, Any]:
    return {
        "info": {
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "status": run.status,
            "lifecycle_stage": "deleted" if run.deleted else "active",
        },
        "data": {
            "metrics": [{"key": key} for key, *_ in sorted(run.metrics, key=str)],
            "params": [{"key": key, "value": value} for key, value in run.params.items()],
            "tags": [{"key": key, "value": value} for key, value in run.tags.items()],
        },
    }


def _handler(server: FakeMlflow) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes: the second would wait for the client's word

        def do_GET(self) -> None:
            query = dict(parse_qsl(urlsplit(self.path).query))
            if urlsplit(self.path).path == "/get-artifact":
                self._send(200, server.runs[query["run_uuid"]].files[query["path"]])
            else:
                self._reply(query)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self._reply(json.loads(self.rfile.read(length) or b"{}"))

        def _reply(self, body: dict[str, Any]) -> None:
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            call = urlsplit(self.path).path.removeprefix(_API)
            status, answer = server.answer(call, body, self.headers.get("Authorization"))
            self._send(status, json.dumps(answer).encode())

        def _send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    return Handler
