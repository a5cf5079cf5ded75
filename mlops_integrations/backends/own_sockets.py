"""The adapter of a session whose sockets are out of the way of a host program that closes all descriptors.

Where a thread of the training process delivers, its sockets are the program's, too. The number of one that was closed
is soon another file's; a connection that is to be used again would find it broken, and close what is not ours. A high
number is nobody's then: the request fails, and is made again through another connection.
"""

from __future__ import annotations

import functools
import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection

from mlops_integrations.journal import files


class OwnSocketsAdapter(HTTPAdapter):
    """An adapter like any other, whose sockets have high numbers."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """The connections to servers."""
        super().init_poolmanager(*arguments, **options)
        _out_of_the_way(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> PoolManager:
        """The connections through a proxy."""
        return _out_of_the_way(super().proxy_manager_for(proxy, **options))


class _OutOfTheWay(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()
        if type(made) is not socket.socket:  # some proxies have a kind of their own
            return made
        timeout = made.gettimeout()
        moved = socket.socket(made.family, made.type, made.proto, fileno=files.out_of_the_way(made.detach()))
        moved.settimeout(timeout)
        return moved


def _out_of_the_way(pools: PoolManager) -> PoolManager:
    pools.pool_classes_by_scheme = {scheme: _moved(kind) for scheme, kind in pools.pool_classes_by_scheme.items()}
    return pools


@functools.cache
def _moved(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """A kind of pool whose connections do so; the names stay, since failures show them."""
    connection = pool.ConnectionCls
    if issubclass(connection, _OutOfTheWay):
        return pool
    moved = type(connection.__name__, (_OutOfTheWay, connection), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": moved})
