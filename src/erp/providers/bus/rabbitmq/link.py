"""Connections to RabbitMQ with their channels; the next call connects again when one broke."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from erp.runtime.spi import Config, ErrorCode, ProviderError
from erp.vendor_clients.guarded_tcp import permitted_address

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractMessage

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 2.0
LOOK_SECONDS = 0.05
MAX_ATTEMPTS = 10
NOT_FOUND, LOCKED = 404, 405


class Wire:
    """One connection with a channel that is kept, made when they are first asked for, and anew when they broke."""

    def __init__(self, config: Config, *, confirms: bool) -> None:
        self._config = config
        self._confirms = confirms
        self._connection: AbstractConnection | None = None
        self._kept: AbstractChannel | None = None
        self._making = asyncio.Lock()
        self._is_closed = False
        self.version = 0
        """Grows with every channel that is kept."""

    async def _open(self) -> AbstractConnection:
        """Return the connection. Called with the lock held."""
        if self._is_closed:
            raise unavailable("The connection to RabbitMQ is closed.")
        if self._connection is not None and not _is_alive(self._connection):
            broken, self._connection = self._connection, None
            await _let_go(broken)
        if self._connection is None:
            self._connection = await _connected(self._config)
            self._kept = None
        return self._connection

    async def kept(self) -> AbstractChannel:
        """Return the channel that is kept."""
        async with self._making:
            connection = await self._open()
            if self._kept is None or self._kept.is_closed:
                self._kept = await _channel(connection, confirms=self._confirms)
                self.version += 1
            return self._kept

    async def channel(self) -> AbstractChannel:
        """Return a new channel, on which messages are confirmed."""
        async with self._making:
            return await _channel(await self._open(), confirms=True)

    @property
    def server(self) -> tuple[str, str]:
        """Name and version of the server as it said them when the connection was made; empty without one."""
        transport = self._connection and self._connection.transport
        told = getattr(transport and transport.connection, "server_properties", None) or {}
        return str(told.get("product", "RabbitMQ")), str(told.get("version", ""))

    async def require_taking(self) -> None:
        """Raise ``unavailable`` while RabbitMQ reads nothing from this connection (``connection.blocked``)."""
        transport = self._connection and self._connection.transport
        if transport is None:
            return
        try:
            async with asyncio.timeout(0):
                await transport.ready()  # returns without waiting unless it is blocked
        except TimeoutError:
            raise unavailable("RabbitMQ takes no events now: its disk or its memory is full.") from None

    async def close(self) -> None:
        """Let go of the connection. Safe twice."""
        self._is_closed = True
        async with self._making:
            connection, self._connection = self._connection, None
        if connection is not None:
            await _let_go(connection)


class Link:
    """What is published goes over a connection of its own: RabbitMQ stops reading from it when it has no room."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._outward = Wire(config, confirms=True)
        self._inward = Wire(config, confirms=False)

    @property
    def version(self) -> int:
        """Grows with every receiving channel: what was received on an earlier one has gone back to its queue."""
        return self._inward.version

    @property
    def server(self) -> tuple[str, str]:
        """Name and version of the server; the version is empty before it was reached."""
        return self._inward.server

    async def publishing(self) -> AbstractChannel:
        """Return the channel on which every message is confirmed."""
        return await self._outward.kept()

    async def receiving(self) -> AbstractChannel:
        """Return the channel on which deliveries are held."""
        return await self._inward.kept()

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """Have a channel of one's own; what was received on it and not confirmed goes back at the end.

        Raises:
            ProviderError: ``unavailable`` when RabbitMQ closes the channel, or the connection breaks.
        """
        from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

        made = await self._inward.channel()
        try:
            yield made
        except (AMQPError, ChannelInvalidStateError) as error:
            raise unavailable("RabbitMQ cannot serve the request now.", repr(error)) from error
        finally:
            if not made.is_closed:
                await made.close()

    @contextlib.asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Be the only one, in whatever process, who holds ``name``: a queue that only its connection may use."""
        from aiormq.exceptions import ChannelLockedResource

        while True:
            async with self.channel() as channel:
                try:
                    queue = await channel.declare_queue(name, exclusive=True, auto_delete=True)
                except ChannelLockedResource:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                try:
                    yield
                finally:
                    await queue.delete(if_unused=False, if_empty=False)
                return

    async def exists(self, queue: str) -> bool:
        """Return whether there is a queue of this name."""
        from aiormq.exceptions import ChannelNotFoundEntity

        async with self.channel() as channel:
            try:
                await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return False
            return True

    async def publish(self, message: AbstractMessage, *, exchange: str = "", routing_key: str = "") -> None:
        """Publish a message; it is in every queue it belongs to when this returns.

        Raises:
            ProviderError: ``unavailable`` when RabbitMQ refuses it, ``outcome_unknown`` when the connection broke first.
        """
        from aio_pika.exceptions import AMQPError, DeliveryError

        channel = await self.publishing()
        await self._outward.require_taking()
        place = channel.default_exchange if not exchange else await channel.get_exchange(exchange, ensure=False)
        try:
            await place.publish(message, routing_key, mandatory=True)
        except DeliveryError as error:
            raise unavailable("RabbitMQ did not take the message.", repr(error)) from error
        except (AMQPError, OSError, asyncio.InvalidStateError, RuntimeError) as error:
            text = "The connection to RabbitMQ broke before it confirmed; the event may have been published."
            raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, text, detail=repr(error)) from error

    async def prove(self, queue: str, message: AbstractMessage) -> None:
        """Publish to a queue that may be new until it takes it, on connections that nothing else uses.

        RabbitMQ 3 ends the connection of who publishes to a stream whose leader has not started.
        """
        from aio_pika.exceptions import AMQPError

        for attempt in range(MAX_ATTEMPTS):
            connection = await _connected(self._config)
            try:
                channel = await connection.channel(publisher_confirms=True)
                await channel.default_exchange.publish(message, queue, mandatory=True)
            except (AMQPError, RuntimeError):
                await asyncio.sleep(LOOK_SECONDS * (attempt + 1))
            else:
                return
            finally:
                await _let_go(connection)
        raise unavailable("RabbitMQ made a stream and does not start it.")

    async def close(self) -> None:
        """Let go of the connections. Safe twice."""
        # Both at once: one from which RabbitMQ reads nothing takes its time to close.
        await _to_the_end(self._close())

    async def _close(self) -> None:
        await asyncio.gather(self._outward.close(), self._inward.close())


def _is_alive(connection: AbstractConnection) -> bool:
    transport = connection.transport
    return not connection.is_closed and transport is not None and not transport.connection.is_closed


async def _channel(connection: AbstractConnection, *, confirms: bool) -> AbstractChannel:
    from aio_pika.exceptions import AMQPError

    try:
        return await connection.channel(publisher_confirms=confirms)
    except (AMQPError, OSError, RuntimeError) as error:
        raise unavailable("The connection to RabbitMQ broke.", repr(error)) from error


_ending: set[asyncio.Task[None]] = set()
"""What is being closed; a loop remembers its tasks only weakly."""


async def _to_the_end(closing: Coroutine[Any, Any, None]) -> None:
    """Wait for ``closing``, which goes on though whoever waits is cancelled.

    What was let go of without an end is closed by aio-pika when it is collected, where no loop may be running any more.
    """
    task = asyncio.create_task(closing, name="bus-rabbitmq ending")
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    await asyncio.shield(task)


async def _let_go(connection: AbstractConnection) -> None:
    """Close a connection, whatever state it is in."""
    await _to_the_end(_end(connection))


async def _end(connection: AbstractConnection) -> None:
    for _ in range(2):  # a close that fails has given its transport up and is not over
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()


async def _connected(config: Config) -> AbstractConnection:
    from aio_pika.connection import Connection, make_url

    url = urlsplit(config["url"])
    port = url.port or (5671 if url.scheme == "amqps" else 5672)
    await permitted_address(url.hostname or "", port)
    address = make_url(
        host=url.hostname or "",
        port=port,
        login=config.get("user", "guest"),
        password=config.get("password", "guest"),
        virtualhost=config.get("virtual_host", "/"),
        ssl=url.scheme == "amqps",
    )
    authority = config.get("tls_ca")
    made = Connection(address, ssl_context=ssl.create_default_context(cadata=authority) if authority else None)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await made.connect()
    except BaseException as error:
        await _let_go(made)
        if isinstance(error, Exception):
            raise _connect_failure(error) from error
        raise
    return made


def _connect_failure(error: Exception) -> ProviderError:
    from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError

    refused = AuthenticationError, ProbableAuthenticationError
    if isinstance(error, refused) or "ACCESS_REFUSED" in str(error):
        return ProviderError(ErrorCode.UNAUTHENTICATED, "RabbitMQ refuses the credentials.", detail=str(error))
    if isinstance(error, ssl.SSLError):
        message = "The server's certificate is not trusted; give its authority as tls_ca."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=str(error))
    return unavailable("RabbitMQ cannot be reached.", repr(error))


def unavailable(message: str, detail: str | None = None) -> ProviderError:
    """Return the failure of a call that has had no effect."""
    return ProviderError(ErrorCode.UNAVAILABLE, message, detail=detail, retry_after_seconds=1.0)
