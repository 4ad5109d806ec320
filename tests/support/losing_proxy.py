"""A proxy that passes requests on and loses the answers when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class LosingProxy:
    """Listens on 127.0.0.1. Requests that contain ``loses`` are carried out, and instead of an answer the connection breaks."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.loses: bytes | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._losing: set[asyncio.StreamWriter] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        forth = asyncio.create_task(self._requests(reader, server_writer))
        try:
            while data := await server_reader.read(65536):
                if server_writer in self._losing:
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):  # only close() cancels, and waits for it
            pass
        finally:
            forth.cancel()
            await asyncio.gather(forth, return_exceptions=True)
            writer.close()
            server_writer.close()
            with contextlib.suppress(OSError):
                await server_writer.wait_closed()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self.loses and self.loses in data:
                    self._losing.add(writer)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def close(self) -> None:
        """End all connections."""
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def losing_proxy(port: int) -> AsyncIterator[LosingProxy]:
    """A proxy to ``port`` for the length of a block."""
    proxy = LosingProxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
