"""The connections of a session: they acknowledge answers at once, and keep their sockets out of the host's way.

* Many servers write the head and the body of an answer one after the other, and hold the body back until the head is
  acknowledged (Nagle's algorithm); we, having nothing to send, would acknowledge it after 40 ms. So does MLflow with
  several workers, its default. Linux can be asked to acknowledge at once.
* Where a thread of the training process delivers, its sockets are the host program's, too. A program that closes all
  descriptors, as daemons do, gives their numbers to files of its own; a connection that is to be used again would find
  it broken, and close what is not ours. A high number is nobody's then: the request fails, and is made again through
  another connection.
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
    """An adapter of requests whose connections are of our kind, to servers and through proxies."""

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
        if type(made) is not socket.socket:  # some proxies have a kind of their own
            return made
        timeout = made.gettimeout()
        moved = socket.socket(made.family, made.type, made.proto, fileno=descriptors.out_of_the_way(made.detach()))
        moved.settimeout(timeout)
        return moved

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it was closed under us
            super().close()

    def getresponse(self) -> Any:
        # Each time: the system forgets it as soon as something is sent.
        if hasattr(socket, "TCP_QUICKACK"):
            # A socket within another one may have no options; one that is closed is for whoever reads from it.
            with contextlib.suppress(OSError, AttributeError):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


def _use_ours(pools: PoolManager) -> PoolManager:
    pools.pool_classes_by_scheme = {scheme: _ours(kind) for scheme, kind in pools.pool_classes_by_scheme.items()}
    return pools


@functools.cache
def _ours(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """A kind of pool whose connections are ours; the names stay, since failures show them."""
    connection = pool.ConnectionCls
    if issubclass(connection, _Connection):
        return pool
    ours = type(connection.__name__, (_Connection, connection), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": ours})
