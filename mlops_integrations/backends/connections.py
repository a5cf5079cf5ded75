"""The connections of a session: they acknowledge replies at once, and keep their sockets out of the host's way.

* Many servers (MLflow with several workers, its default, too) write the head and the body of a reply separately, and
  hold the body back until the head is acknowledged (Nagle's algorithm); having nothing to send, we would acknowledge
  it only after 40 ms. Linux can be told to acknowledge at once.
* If a thread of the training process delivers, its sockets are in the host program's reach. A program that closes all
  descriptors, as daemons do, soon reuses their numbers for its own files; a connection that is used again would then
  find its socket broken, and close a file that is not ours. A high number is not reused so soon: the request fails, and
  is repeated over another connection.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

from mlops_integrations import descriptors


class ConnectionAdapter(HTTPAdapter):
    """A ``requests`` adapter that uses our connections, to servers and through proxies."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make the pools of connections to servers."""
        super().init_poolmanager(*arguments, **options)
        _use_ours(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        """Make the pools of connections through a proxy."""
        return _use_ours(super().proxy_manager_for(proxy, **options))


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()
        if type(made) is not socket.socket:  # some proxies use a socket class of their own
            return made
        timeout = made.gettimeout()
        moved = socket.socket(made.family, made.type, made.proto, fileno=descriptors.out_of_the_way(made.detach()))
        moved.settimeout(timeout)
        return moved

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the host program closed it
            super().close()

    def getresponse(self) -> Any:
        # For each reply: the system resets the option as soon as something is sent.
        if hasattr(socket, "TCP_QUICKACK"):
            # A socket within another one may have no options; a closed one makes the read below fail.
            with contextlib.suppress(OSError, AttributeError):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


def _use_ours(pools: PoolManager) -> PoolManager:
    pools.pool_classes_by_scheme = {scheme: _ours(kind) for scheme, kind in pools.pool_classes_by_scheme.items()}
    return pools


@functools.cache
def _ours(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """A pool class with our connections; class names stay the same, since error messages show them."""
    connection = pool.ConnectionCls
    if issubclass(connection, _Connection):
        return pool
    ours = type(connection.__name__, (_Connection, connection), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": ours})
