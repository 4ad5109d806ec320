"""Sockets for httpcore2 on asyncio's own streams: a request costs about half of what it costs through anyio."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore2

_LIMIT = 65_536
_TOGETHER = 16_384
"""Bytes: less waits for what is written next."""


class _Reader(asyncio.StreamReader):
    """Knows whether something has arrived that nobody has read."""

    unread = 0

    def feed_data(self, data: Any) -> None:
        self.unread += len(data)
        super().feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        found = await super().read(n)
        self.unread -= len(found)
        return found


class AsyncioStream(httpcore2.AsyncNetworkStream):
    """One connection.

    What is written waits for the next read, unless it is much: the head of a request and a small body leave together,
    in one system call and one packet.
    """

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting = b""

    def _send(self, more: bytes = b"") -> None:
        """Give what waits to the transport, which sends it as fast as the peer takes it."""
        written, self._waiting = self._waiting + more, b""
        if written:
            self._writer.write(written)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  (httpcore2's signature)
        with _named(httpcore2.ReadTimeout, httpcore2.ReadError):
            self._send()
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  (httpcore2's signature)
        if len(self._waiting) + len(buffer) < _TOGETHER:
            self._waiting += buffer
            return
        with _named(httpcore2.WriteTimeout, httpcore2.WriteError):
            self._send(buffer)
            async with asyncio.timeout(timeout):
                await self._writer.drain()

    async def aclose(self) -> None:
        self._send()
        self._writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore2's signature)
    ) -> httpcore2.AsyncNetworkStream:
        self._send()
        try:
            with _named(httpcore2.ConnectTimeout, httpcore2.ConnectError):
                async with asyncio.timeout(timeout):
                    await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException:
            self._writer.transport.abort()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore2 asks for; readable before a request means that the peer has closed or spoken out of turn."""
        if info == "is_readable":
            reader = self._reader
            return bool(reader.unread) or reader.at_eof() or self._writer.is_closing() or reader.exception() is not None
        names = {"ssl_object": "ssl_object", "client_addr": "sockname", "server_addr": "peername", "socket": "socket"}
        return self._writer.get_extra_info(names[info]) if info in names else None


class AsyncioSockets(httpcore2.AsyncNetworkBackend):
    """Connects over TCP."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (httpcore2's signature)
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        own = None if local_address is None else (local_address, 0)
        loop = asyncio.get_running_loop()
        reader = _Reader(_LIMIT, loop)
        with _named(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            async with asyncio.timeout(timeout):
                transport, protocol = await loop.create_connection(
                    lambda: asyncio.StreamReaderProtocol(reader), host, port, local_addr=own
                )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        for option in socket_options or ():
            writer.get_extra_info("socket").setsockopt(*option)
        return AsyncioStream(reader, writer)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def _named(late: type[Exception], failed: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except (OSError, ssl.SSLError) as error:
        raise failed(str(error)) from error
