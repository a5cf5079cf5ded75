"""Delivers a run's artifacts: through MLflow's artifact proxy, or into a local directory.

A server names a run's artifact root as a URI. ``mlflow-artifacts:`` means that the server takes files itself. A local
path is used only if it exists already (its last three levels may be missing): it is the server's path, and on another
machine it would be a different directory.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final
from urllib.parse import quote, unquote, urlsplit

from mlops_integrations.backends.protocol import Kind, Outcome
from mlops_integrations.backends.transport import Reply, Transport
from mlops_integrations.untrusted import one_line

NO_WAY: Final = "no way to the artifact store"

_BLOCK_BYTES: Final = 1024 * 1024
_OWN_LEVELS: Final = 3
"""So many directories at the end of a local artifact root may be missing: EXPERIMENT/RUN/artifacts."""


def deliver(
    transport: Transport,
    tracking_uri: str,
    artifact_uri: str,
    path: str,
    file: Path,
    glance: Callable[[], None],
    outcome_of: Callable[[Reply, str], Outcome[dict[str, Any]]],
) -> Outcome[None]:
    """Send a file to a run's artifacts; through the proxy, also verify that it arrived in full length.

    Args:
        transport: the way to the tracking server.
        tracking_uri: the tracking server.
        artifact_uri: the run's artifact root, as the server names it.
        path: the artifact's path below that root.
        file: the local file.
        glance: called again and again during the transfer; an exception from it ends the transfer.
        outcome_of: interprets a reply of this dialect to a call.
    """
    root = urlsplit(artifact_uri)
    if root.scheme == "mlflow-artifacts":
        if root.netloc and root.netloc != urlsplit(tracking_uri).netloc:
            # Our credentials are for the tracking server.
            return _no_way(f"artifacts belong to another host, {one_line(root.netloc)}")
        base = f"{tracking_uri}/api/2.0/mlflow-artifacts/artifacts"
        place = PurePosixPath(root.path.lstrip("/")) / path
        sent = transport.put(f"{base}/{quote(str(place))}", lambda: _watched(file, glance))
        if sent.status is not None and sent.status < 300:
            listed = transport.get(base, {"path": str(place.parent)})
            return _seen(outcome_of(listed, "artifacts/list"), place.name, file)
        return outcome_of(sent, "artifacts/list").bare()
    if root.scheme in {"", "file"} and not root.netloc:
        return _copy(Path(unquote(root.path)), path, file, glance)
    return _no_way(f"artifacts belong to {one_line(root.scheme)}: this version can't write there")


def _no_way(message: str) -> Outcome[None]:
    return Outcome(Kind.REFUSED, None, message, NO_WAY)


def _seen(listed: Outcome[dict[str, Any]], name: str, file: Path) -> Outcome[None]:
    """OK if the proxy lists the file in full length, else RETRY or the failure of the listing."""
    if not listed.ok or listed.value is None:
        return listed.bare()
    wanted = file.stat().st_size
    for entry in listed.value.get("files", ()):
        if isinstance(entry, dict) and PurePosixPath(str(entry.get("path"))).name == name:
            size = int(entry.get("file_size") or 0)
            if size == wanted:
                return Outcome(Kind.OK)
            return Outcome(Kind.RETRY, None, f"{size:,} of {wanted:,} bytes have arrived")
    return Outcome(Kind.RETRY, None, "the file has not arrived")


def _copy(root: Path, path: str, file: Path, glance: Callable[[], None]) -> Outcome[None]:
    target = root / path
    above = root
    for _ in range(_OWN_LEVELS + 1):
        if above.is_dir():
            break
        above = above.parent
    else:
        text = f"the server's artifact directory {one_line(str(root))} is not on this machine, or not made yet"
        return _no_way(f"{text}: make it, or start the server with --serve-artifacts")
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _watched(file, glance) as reading, fresh.open("wb") as writing:
                shutil.copyfileobj(reading, writing, _BLOCK_BYTES)
            fresh.replace(target)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink()
    except PermissionError as error:
        return _no_way(str(error))
    except OSError as error:
        return Outcome(Kind.RETRY, None, str(error))
    return Outcome(Kind.OK)


class _Watched:
    """A file that calls ``glance`` before each block is read."""

    def __init__(self, file: IO[bytes], size: int, glance: Callable[[], None]) -> None:
        self._file = file
        self._size = size
        self._glance = glance

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(_BLOCK_BYTES):
            yield block

    def read(self, count: int = -1) -> bytes:
        """Read one block."""
        self._glance()
        return self._file.read(_BLOCK_BYTES if count < 0 else count)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _watched(file: Path, glance: Callable[[], None]) -> _Watched:
    return _Watched(file.open("rb"), file.stat().st_size, glance)
