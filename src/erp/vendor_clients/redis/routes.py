"""How a command reaches the server that must answer it: directly, through sentinels, or through a cluster's map of slots.

Every route does exactly one attempt: what may be repeated is for the layer to know. Redirections of a cluster (``MOVED``,
``ASK``) are followed, because the node that redirects has done nothing.

Imported when a connection is opened: redis-py is heavy.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.maint_notifications import MaintNotificationsConfig

from erp.vendor_clients.redis.connecting import guarded
from erp.vendor_clients.redis.failures import after_sending, explained
from erp.vendor_clients.redis.settings import Address, Settings

PROTOCOL = 3
"""RESP3: since Redis 6 and in every Valkey."""


class Route(Protocol):
    """One way to the servers."""

    async def ask(self, command: tuple[Any, ...], *, repeatable: bool) -> Any:
        """Send one command and return its answer.

        Raises:
            ProviderError: what its failure means (``failures``); replies that are errors included.
            redis.exceptions.NoScriptError: the server does not know the script; nothing was done.
        """

    async def ask_owner(self, key: str, command: tuple[Any, ...]) -> Any:
        """Ask the node that holds ``key``; for commands that name no key."""

    async def close(self) -> None:
        """Hang up. Safe twice."""


def route_of(settings: Settings) -> Route:
    """Return the route that the settings describe; nothing is connected yet."""
    return ClusterRoute(settings) if settings.mode == "cluster" else PoolRoute(settings)


class PoolRoute:
    """A pool of connections to one server: the named one, or the master that the sentinels name."""

    def __init__(self, settings: Settings) -> None:
        self._answer_seconds = settings.answer_timeout_seconds
        self._is_closed = False
        self._sentinel = _sentinel(settings) if settings.mode == "sentinel" else None
        self._pool = _pool(settings) if self._sentinel is None else _pool_of_master(settings, self._sentinel)

    async def ask(self, command: tuple[Any, ...], *, repeatable: bool) -> Any:
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py annotates most
        except Exception as error:
            raise explained(error) from error
        try:
            return await self._exchange(connection, command, repeatable=repeatable)
        finally:
            await self._pool.release(connection)
            if self._is_closed:  # it was still connecting when the pool was closed
                await self.close()

    async def ask_owner(self, key: str, command: tuple[Any, ...]) -> Any:  # noqa: ARG002  (there is one server)
        return await self.ask(command, repeatable=True)

    async def _exchange(self, connection: Connection, command: tuple[Any, ...], *, repeatable: bool) -> Any:
        try:
            async with asyncio.timeout(self._answer_seconds):
                await connection.send_packed_command(connection.pack_command(*command), check_health=False)
                return await connection.read_response()
        except NoScriptError:
            raise
        except Exception as error:
            raise after_sending(error, repeatable=repeatable) from error

    async def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(Exception):  # a connection that is broken is closed as well
            await self._pool.aclose()
        if self._sentinel is not None:
            with contextlib.suppress(Exception):
                await self._sentinel.aclose()


class ClusterRoute:
    """The cluster client of redis-py, which knows the slots and follows redirections."""

    def __init__(self, settings: Settings) -> None:
        common = _common(settings)
        del common["db"], common["retry"]
        nodes = [ClusterNode(*address) for address in settings.addresses]
        self._client = RedisCluster(
            startup_nodes=nodes, retry=_never(), socket_timeout=settings.answer_timeout_seconds, **common
        )
        kind = guarded(Connection, settings)
        self._client.connection_kwargs["connection_class"] = kind  # of every node that will be learnt
        for node in self._client.nodes_manager.startup_nodes.values():
            node.connection_class = kind
        self._initialising: asyncio.Future[Any] | None = None
        self._is_closed = False

    async def ask(self, command: tuple[Any, ...], *, repeatable: bool) -> Any:
        await self._initialised()
        try:
            return await self._client.execute_command(*command)
        except NoScriptError:
            raise
        except Exception as error:
            raise after_sending(error, repeatable=repeatable) from error
        finally:
            if self._is_closed:  # it was still connecting when the client was closed
                await self.close()

    async def ask_owner(self, key: str, command: tuple[Any, ...]) -> Any:
        await self._initialised()
        try:
            node = self._client.get_node_from_key(key)
            return await self._client.execute_command(*command, target_nodes=node)
        except Exception as error:
            raise explained(error) from error

    async def _initialised(self) -> None:
        """Know the slots, so that a failure to learn them is no lost answer.

        A caller that leaves does not interrupt it: the client would forget connections that it has just opened.
        """
        if self._client.get_default_node() is not None:
            return
        if self._initialising is None or self._initialising.done():
            self._initialising = asyncio.ensure_future(self._client.initialize())
        try:
            await asyncio.shield(self._initialising)
        except Exception as error:
            raise explained(error) from error

    async def close(self) -> None:
        self._is_closed = True
        if self._initialising is not None:
            await asyncio.gather(self._initialising, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._client.aclose()
        for nodes in ("nodes_cache", "startup_nodes"):  # which it leaves open when it has not learnt the slots
            with contextlib.suppress(Exception):
                await self._client.nodes_manager.aclose(nodes)


def _pool(settings: Settings) -> ConnectionPool:
    host, port = settings.addresses[0]
    return ConnectionPool(guarded(Connection, settings), host=host, port=port, **_common(settings))


def _pool_of_master(settings: Settings, sentinel: Sentinel) -> ConnectionPool:
    kind = guarded(SentinelManagedConnection, settings)
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        settings.sentinel_service, sentinel, connection_class=kind, **_common(settings)
    )


def _sentinel(settings: Settings) -> Sentinel:
    made = Sentinel([])  # type: ignore[no-untyped-call]
    made.sentinels = [_sentinel_at(address, settings) for address in settings.addresses]
    return made


def _sentinel_at(address: Address, settings: Settings) -> Redis:
    host, port = address
    pool = ConnectionPool(
        guarded(Connection, settings),
        host=host,
        port=port,
        password=settings.sentinel_password,
        socket_timeout=settings.connect_timeout_seconds,
        socket_connect_timeout=settings.connect_timeout_seconds,
        retry=_never(),
    )
    return Redis.from_pool(pool)


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "db": settings.database,
        "username": settings.username,
        "password": settings.password,
        "protocol": PROTOCOL,
        "client_name": "erp",
        "driver_info": None,
        "max_connections": settings.max_connections,
        "socket_connect_timeout": settings.connect_timeout_seconds,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "retry": _never(),
    }


def _never() -> Retry:
    return Retry(NoBackoff(), 0)
