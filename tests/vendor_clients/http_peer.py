"""A local HTTP peer of any behaviour, and a guarded client that may reach it."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.guarded_http import GuardedHttp, HttpLimits

LOOPBACK = EgressRule((ipaddress.ip_network("127.0.0.1/32"),))
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Peer:
    """A TCP server that answers every request head with fixed bytes and remembers what it saw."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@asynccontextmanager
async def listening(
    answer: bytes | None = OK, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Peer]:
    """Answer every request with ``answer`` and close; ``None`` stays silent, empty closes without answering."""
    peer = Peer()
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        open_writers.add(writer)
        try:
            while True:
                peer.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                peer.asked.set()
                if answer is None:
                    continue
                writer.write(answer)
                await writer.drain()
                if not answer or b"connection: close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for writer in open_writers:
            writer.close()
        await server.wait_closed()


@asynccontextmanager
async def client(
    rule: EgressRule = LOOPBACK,
    *,
    resolve: Callable[[str, int], Awaitable[list[str]]] | None = None,
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[GuardedHttp]:
    arguments = {} if resolve is None else {"resolve": resolve}
    http = GuardedHttp(rule, limits=limits, tls=tls or ssl.create_default_context(), **arguments)
    try:
        yield http
    finally:
        await http.aclose()


def answering(*answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A name server that gives its answers one after the other and repeats the last."""
    waiting = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return resolve
