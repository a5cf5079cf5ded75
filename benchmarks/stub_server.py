"""A server that takes everything and answers at once, to find out how fast we could deliver. Stores nothing.

``python -m benchmarks.stub_server`` prints its address and serves until it is ended.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import Any, Final

_RUN: Final = {"run": {"info": {"run_id": "1" * 32, "experiment_id": "0", "status": "RUNNING", "artifact_uri": ""}}}
_ANSWERS: Final[dict[str, Any]] = {
    "experiments/get": {"experiment": {"experiment_id": "0", "name": "bench", "lifecycle_stage": "active"}},
    "experiments/get-by-name": {"experiment": {"experiment_id": "0", "name": "bench", "lifecycle_stage": "active"}},
    "runs/create": _RUN,
    "runs/get": _RUN,
    "runs/update": {"run_info": _RUN["run"]["info"]},
}


def serve(connection: socket.socket) -> None:
    """Answer one connection's requests, reading no more of them than where they end."""
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            received = connection.recv(65_536)
            if not received:
                return
            buffer += received
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        left = length - len(buffer)
        buffer = buffer[length:]
        while left > 0:
            left -= len(connection.recv(min(left, 1 << 20)))
        call = head.split(b" ", 2)[1].decode().partition("/mlflow/")[2].partition("?")[0]
        body = json.dumps(_ANSWERS.get(call, {})).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)


def main() -> None:
    """Listen."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


@contextmanager
def running() -> Any:
    """One in a process of its own; gives its address."""
    command = [sys.executable, "-m", "benchmarks.stub_server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
