"""Runs scripts in forks of a Python that has imported a framework: its seconds of imports once, not for each script.

A script runs as by ``python script.py``: as ``__main__``, in a process of its own, with its own arguments, directory,
environment and streams, up to the real exit of the interpreter. It is not for scripts that are about importing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OUR_FRAME = re.compile(rf'  File "{re.escape(__file__)}".*\n(?:    .*\n)*')


class WarmPython:
    """A Python that has imported these modules; a context manager."""

    def __init__(self, *modules: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._address = str(Path(self._directory.name) / "socket")
        self._program = subprocess.Popen(
            [sys.executable, __file__, self._address, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._program.stdout is not None
        assert self._program.stdout.readline() == b"ready\n", f"{modules} could not be imported"

    def run(
        self, script: Path, *arguments: str, cwd: Path, env: Mapping[str, str], timeout: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, as ``subprocess.run`` does; several threads may do so at once."""
        with tempfile.TemporaryDirectory(dir=self._directory.name) as streams, socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(timeout)
            asked.connect(self._address)
            wanted = {"script": str(script), "arguments": arguments, "directory": str(cwd), "environment": dict(env)}
            asked.sendall(json.dumps(wanted | {"streams": streams}).encode() + b"\n")
            answers = asked.makefile()
            pid = int(answers.readline())
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            out, err = (Path(streams, name).read_text("utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([str(script), *arguments], code, out, _OUR_FRAME.sub("", err))

    def __enter__(self) -> WarmPython:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()
        self._program.communicate()
        self._directory.cleanup()


def next_script(address: str) -> str:
    """Wait for scripts to run. Returns in a fork only, with the script that this process is to become."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        print("ready", flush=True)
        while True:
            waiting, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in waiting:  # the tests are gone
                os._exit(0)
            asked, _ = listening.accept()
            if os.fork() == 0:
                break
            asked.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    wanted = json.loads(asked.makefile().readline())
    pid = os.fork()
    if pid:
        asked.sendall(f"{pid}\n".encode())
        asked.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
        os._exit(0)
    asked.close()
    become(wanted)
    return str(wanted["script"])


def become(wanted: Mapping[str, Any]) -> None:
    """Make this process what ``python script.py`` would be."""
    os.chdir(wanted["directory"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    streams = Path(wanted["streams"])
    for descriptor, path in enumerate((Path(os.devnull), streams / "stdout", streams / "stderr")):
        with path.open("wb" if descriptor else "rb") as stream:
            os.dup2(stream.fileno(), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    sys.argv = [wanted["script"], *wanted["arguments"]]
    sys.path[0] = str(Path(wanted["script"]).parent)


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    path = next_script(sys.argv[1])
    sys.modules["warm_python"] = sys.modules["__main__"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = path
    exec(compile(Path(path).read_bytes(), path, "exec"), main.__dict__)
