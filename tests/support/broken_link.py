"""A link to a server that can fall silent: what is sent is swallowed, and nobody is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class BrokenLink:
    """Passes bytes to a server on 127.0.0.1 and back until it is told not to."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.swallows_answers = False
        """Requests arrive, answers do not."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._accepted, "127.0.0.1", 0)

    async def cut(self) -> None:
        """End every connection there is."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._connections.clear()

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self.cut()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            back, forth = await asyncio.open_connection("127.0.0.1", self._server_port)
            try:
                await asyncio.gather(self._pass(reader, forth), self._pass(back, writer, is_answer=True))
            finally:
                forth.close()
                writer.close()

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        while data := await source.read(65536):
            if is_answer and self.swallows_answers:
                continue
            target.write(data)
            await target.drain()
        target.close()


@contextlib.asynccontextmanager
async def broken_link(port: int) -> AsyncIterator[BrokenLink]:
    """Have a link to ``port`` for the length of a block."""
    made = BrokenLink(port)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
