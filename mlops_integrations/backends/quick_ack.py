"""The adapter of a session that acknowledges what it receives at once, where the system can be asked to (Linux).

Many servers write the head and the body of an answer one after the other, and hold the body back until the head is
acknowledged (Nagle's algorithm); we, having nothing to send, would acknowledge it after 40 ms. So does MLflow with
several workers, its default.
"""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection


class QuickAckAdapter(HTTPAdapter):
    """An adapter like any other, whose connections ask for quick acknowledgements before they read an answer."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """The connections to servers."""
        super().init_poolmanager(*arguments, **options)
        _hasten(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        """The connections through a proxy."""
        return _hasten(super().proxy_manager_for(proxy, **options))


class _QuickAck(HTTPConnection):
    def getresponse(self) -> Any:
        # Each time: the system forgets it as soon as something is sent.
        if hasattr(socket, "TCP_QUICKACK"):
            # A socket within another one may have no options; one that is closed is for whoever reads from it.
            with contextlib.suppress(OSError, AttributeError):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


def _hasten(pools: PoolManager) -> PoolManager:
    pools.pool_classes_by_scheme = {scheme: _hastened(kind) for scheme, kind in pools.pool_classes_by_scheme.items()}
    return pools


@functools.cache
def _hastened(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """A kind of pool whose connections are hastened; the names stay, since failures show them."""
    connection = pool.ConnectionCls
    if issubclass(connection, _QuickAck):
        return pool
    hastened = type(connection.__name__, (_QuickAck, connection), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": hastened})
