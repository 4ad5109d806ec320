"""A TCP proxy that breaks connections in the ways networks do, on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

Fault = Literal["none", "silent", "lose_answers", "cut"]
CHUNK_BYTES = 65_536


class FaultyProxy:
    """Passes bytes on, unless told otherwise; the fault holds for what happens from then on."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._losing: set[asyncio.StreamWriter] = set()
        self._fronts: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.fault: Fault = "none"
        """``silent`` swallows what clients send; ``lose_answers`` passes it on, and ends the connection instead of
        answering; ``cut`` ends it after ``cut_after`` bytes of a request."""
        self.cut_after = 0
        self.bytes_down = 0
        """Bytes of answers passed on."""
        self.cut_answer_after: int | None = None
        self.lose_answer_to: bytes | None = None
        """Ends the connection instead of answering a request that holds this."""
        self.delay_seconds = 0.0
        """Before each piece of an answer."""
        self.bytes_per_second: int | None = None
        """How fast answers go on; None: as fast as they come."""
        self.answers_first = 0
        """``lose_answers``: how many pieces of answers still get through before."""
        self.accepted = 0
        """Connections of clients so far."""
        self.renamed: tuple[bytes, bytes] | None = None
        """How answers name the server, and what they name instead so that clients come here: as many bytes."""

    @property
    def open_connections(self) -> int:
        """Connections of clients that are open now."""
        return len(self._fronts)

    def lead_to(self, host: str, port: int) -> None:
        """Pass new connections on to another place: the server has been started anew."""
        self._target = (host, port)

    def heal(self) -> None:
        """Pass everything on again."""
        self.fault, self.cut_answer_after, self.delay_seconds, self.bytes_per_second = "none", None, 0.0, None
        self.bytes_down = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def vanish(self) -> None:
        """Stop listening and end every connection, as a killed server does."""
        assert self._server is not None
        self._server.close()
        self.break_all()
        await asyncio.sleep(0)

    def break_all(self) -> None:
        """End every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._fronts.add(writer)
        self.accepted += 1
        try:
            with suppress(OSError, asyncio.CancelledError):
                there, back = await asyncio.open_connection(*self._target)
                self._writers.add(back)
                await asyncio.gather(self._up(reader, back, writer), self._down(there, back, writer))
                self._writers.discard(back)
        finally:
            self._writers.discard(writer)
            self._fronts.discard(writer)
            self._losing.discard(writer)
            writer.close()

    async def _up(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, front: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(CHUNK_BYTES):
            if self.fault == "silent":
                continue
            if self.fault == "cut" and passed + len(data) > self.cut_after:
                front.transport.abort()
                back.transport.abort()
                return
            passed += len(data)
            if self.lose_answer_to is not None and self.lose_answer_to in data:
                self._losing.add(front)
            back.write(data)
            await back.drain()
        back.close()

    async def _down(self, there: asyncio.StreamReader, back: asyncio.StreamWriter, front: asyncio.StreamWriter) -> None:
        while data := await there.read(CHUNK_BYTES):
            self.bytes_down += len(data)
            is_over = self.cut_answer_after is not None and self.bytes_down > self.cut_answer_after
            is_lost = self.fault == "lose_answers" and self.answers_first == 0
            self.answers_first = max(self.answers_first - 1, 0)
            if is_lost or front in self._losing or is_over:
                front.transport.abort()
                back.transport.abort()
                return
            await asyncio.sleep(self.delay_seconds)
            await self._pass_on(data.replace(*self.renamed) if self.renamed else data, front)
        front.close()

    async def _pass_on(self, data: bytes, front: asyncio.StreamWriter) -> None:
        """Write at the pace that is set: a tenth of a second's worth at a time."""
        step = len(data) if self.bytes_per_second is None else max(self.bytes_per_second // 10, 1)
        for at in range(0, len(data), step):
            front.write(data[at : at + step])
            await front.drain()
            if self.bytes_per_second is not None:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def faulty_proxy(host: str, port: int) -> AsyncIterator[FaultyProxy]:
    """A proxy in front of a server, gone at the end."""
    proxy = FaultyProxy(host, port)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.vanish()
