"""Peers that send too slowly: in the test's own process, where clocks can be set."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.wire import request
from tests.system.serving import serving

from erp.gateway import http_protocol, server

pytestmark = pytest.mark.anyio

SOON_SECONDS = 0.05


async def late(scope: Any, receive: Any, send: Any) -> None:
    """Answer after three times the patience for a head; ``/early`` at once, whatever the body."""
    if scope["path"] != "/early":
        await asyncio.sleep(3 * SOON_SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def peer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server with little patience."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", SOON_SECONDS)
    monkeypatch.setattr(http_protocol, "LEFTOVER_SECONDS", SOON_SECONDS)
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 2 * SOON_SECONDS)
    async with serving(late) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        yield reader, writer
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the server closes the connection."""
    async with asyncio.timeout(30):
        return await reader.read()


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: layer.test\r\n"])
async def test_a_head_that_never_ends_is_closed(peer: Peer, sent: bytes) -> None:
    reader, writer = peer
    writer.write(sent)

    assert await rest(reader) == b""


async def test_a_second_head_that_never_ends_does_not_cost_the_first_its_answer(peer: Peer) -> None:
    reader, writer = peer
    writer.write(request("/", method="GET") + b"GET / HT")

    answered = await rest(reader)

    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered.endswith(b"connection: close\r\n\r\nok")


async def test_an_idle_connection_is_closed(peer: Peer) -> None:
    reader, writer = peer
    writer.write(request("/early", method="GET"))

    assert (await rest(reader)).endswith(b"ok")


async def test_an_empty_line_does_not_keep_an_idle_connection(peer: Peer) -> None:
    reader, writer = peer
    writer.write(request("/early", method="GET"))
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")

    writer.write(b"\r\n")

    assert await rest(reader) == b""


async def test_a_body_that_goes_on_after_its_answer_is_closed(peer: Peer) -> None:
    reader, writer = peer
    writer.write(request("/early", body=b"1\r\nx\r\n", Transfer_Encoding="chunked"))
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")

    with pytest.raises(ConnectionError):
        async with asyncio.timeout(30):
            while True:
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(SOON_SECONDS / 5)


async def test_a_body_that_ends_after_its_answer_leaves_the_connection_usable(peer: Peer) -> None:
    reader, writer = peer
    writer.write(request("/early", body=b"1\r\nx\r\n", Transfer_Encoding="chunked"))
    await reader.readuntil(b"ok")

    writer.write(b"0\r\n\r\n" + request("/", method="GET"))

    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
