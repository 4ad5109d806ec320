"""One connection to RabbitMQ with its channels; the next call connects again when it broke."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from erp.runtime.spi import Config, ErrorCode, ProviderError
from erp.vendor_clients.guarded_tcp import permitted_address

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 2.0


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
        self.connections = 0
        """Grows with every connection."""

    async def _open(self) -> AbstractConnection:
        """Return the connection. Called with the lock held."""
        if self._is_closed:
            raise unavailable("The connection to RabbitMQ is closed.")
        if self._connection is not None and not _is_alive(self._connection):
            broken, self._connection = self._connection, None
            await let_go(broken)
        if self._connection is None:
            self._connection = await connected(self._config)
            self._kept = None
            self.connections += 1
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

    def carries(self, channel: AbstractChannel, connection: int) -> bool:
        """Return whether a channel of the connection with this number can be used."""
        is_current = self._connection is not None and connection == self.connections and _is_alive(self._connection)
        return is_current and not channel.is_closed

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
            await let_go(connection)


def _is_alive(connection: AbstractConnection) -> bool:
    transport = connection.transport
    return not connection.is_closed and transport is not None and not transport.connection.is_closed


async def _channel(connection: AbstractConnection, *, confirms: bool) -> AbstractChannel:
    from aio_pika.exceptions import AMQPError

    try:
        # Without the second a message that belongs to no queue passes for a published one.
        return await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
    except (AMQPError, OSError, RuntimeError) as error:
        raise unavailable("The connection to RabbitMQ broke.", repr(error)) from error


_ending: set[asyncio.Task[None]] = set()
"""What is being closed; a loop remembers its tasks only weakly."""


async def to_the_end(closing: Coroutine[Any, Any, None]) -> None:
    """Wait for ``closing``, which goes on though whoever waits is cancelled.

    What was let go of without an end is closed by aio-pika when it is collected, where no loop may be running any more.
    """
    await asyncio.shield(_remembered(closing))


def _remembered(closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(closing, name="bus-rabbitmq ending")
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    return task


def leave(channel: AbstractChannel) -> None:
    """Close a channel of a connection that goes on, without waiting: RabbitMQ may be reading nothing from it."""

    async def closing() -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await channel.close()

    if not channel.is_closed:
        _remembered(closing())


async def let_go(connection: AbstractConnection) -> None:
    """Close a connection, whatever state it is in."""
    await to_the_end(_end(connection))


async def _end(connection: AbstractConnection) -> None:
    for _ in range(2):  # a close that fails has given its transport up and is not over
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.close()


async def connected(config: Config) -> AbstractConnection:
    """Return a new connection.

    Raises:
        ProviderError: ``unauthenticated``, ``failed_precondition`` for a certificate that is not trusted, or ``unavailable``.
    """
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
        await let_go(made)
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
