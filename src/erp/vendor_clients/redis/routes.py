"""How a command reaches the server that must answer it: directly, through sentinels, or through a cluster's map of slots.

Every route does exactly one attempt: what may be repeated is for the layer to know. Redirections of a cluster (``MOVED``,
``ASK``) are followed, because the node that redirects has done nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from erp.runtime.spi import ProviderError
from erp.vendor_clients.redis.failures import explained, lost
from erp.vendor_clients.redis.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio.cluster import RedisCluster
    from redis.asyncio.connection import Connection, ConnectionPool
    from redis.asyncio.sentinel import Sentinel

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
    if settings.mode == "cluster":
        return ClusterRoute(settings)
    return PoolRoute(settings)


class PoolRoute:
    """A pool of connections to one server: the named one, or the master that the sentinels name."""

    def __init__(self, settings: Settings) -> None:
        self._answer_seconds = settings.answer_timeout_seconds
        self._is_closed = False
        self._sentinel: Sentinel | None = None
        self._pool: ConnectionPool = self._to_master(settings) if settings.mode == "sentinel" else _to_server(settings)

    def _to_master(self, settings: Settings) -> ConnectionPool:
        from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

        asked = {
            **_security(settings),
            "password": settings.sentinel_password,
            "socket_timeout": settings.connect_timeout_seconds,
            "socket_connect_timeout": settings.connect_timeout_seconds,
            "retry": _never(),
            "ssl": settings.tls,
        }
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py annotates most, not this
            list(settings.addresses), sentinel_kwargs=asked
        )
        return SentinelConnectionPool(  # type: ignore[no-untyped-call]
            settings.sentinel_service, self._sentinel, ssl=settings.tls, **_common(settings), **_security(settings)
        )

    async def ask(self, command: tuple[Any, ...], *, repeatable: bool) -> Any:
        try:
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
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
        from redis.exceptions import NoScriptError

        try:
            async with asyncio.timeout(self._answer_seconds):
                await connection.send_packed_command(connection.pack_command(*command), check_health=False)
                return await connection.read_response()
        except NoScriptError:
            raise
        except Exception as error:
            raise (lost(error, repeatable=repeatable) if _is_lost(error) else explained(error)) from error

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
        from redis.asyncio.cluster import ClusterNode, RedisCluster

        common = _common(settings)
        del common["db"], common["retry"]
        self._client: RedisCluster = RedisCluster(
            startup_nodes=[ClusterNode(*address) for address in settings.addresses],
            retry=_never(),
            socket_timeout=settings.answer_timeout_seconds,
            ssl=settings.tls,
            **common,
            **_security(settings),
        )
        self._initialising: asyncio.Future[Any] | None = None
        self._is_closed = False

    async def ask(self, command: tuple[Any, ...], *, repeatable: bool) -> Any:
        from redis.exceptions import NoScriptError

        await self._initialised()
        try:
            return await self._client.execute_command(*command)
        except NoScriptError:
            raise
        except Exception as error:
            raise (lost(error, repeatable=repeatable) if _is_lost(error) else explained(error)) from error
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


def _to_server(settings: Settings) -> ConnectionPool:
    from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection

    host, port = settings.addresses[0]
    kind = SSLConnection if settings.tls else Connection
    return ConnectionPool(kind, host=host, port=port, **_common(settings), **_security(settings))


def _common(settings: Settings) -> dict[str, Any]:
    from redis.maint_notifications import MaintNotificationsConfig

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


def _security(settings: Settings) -> dict[str, Any]:
    """The server's certificate and name are always verified."""
    return {"ssl_ca_data": settings.tls_ca, "ssl_cert_reqs": "required"} if settings.tls else {}


def _never() -> Any:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Retry(NoBackoff(), 0)


def _is_lost(error: Exception) -> bool:
    """Whether the request was sent and no answer came; an answer that is an error is another matter."""
    from redis import exceptions

    if isinstance(error, ProviderError):
        return False
    return type(error) in {exceptions.ConnectionError, exceptions.TimeoutError} or isinstance(error, OSError)
