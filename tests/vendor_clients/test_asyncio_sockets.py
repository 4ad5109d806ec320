"""A kept connection is used again only while its peer is silent: what came too early must not be read as an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import httpcore2
import pytest

from erp.vendor_clients.asyncio_sockets import AsyncioSockets

pytestmark = pytest.mark.anyio


@dataclass
class Peer:
    """A server whose connections a test writes to."""

    port: int
    writers: list[asyncio.StreamWriter]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    writers: list[asyncio.StreamWriter] = []

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield Peer(server.sockets[0].getsockname()[1], writers)
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  (the other side is a socket, not an event)
            await asyncio.sleep(0.005)


async def connected(peer: Peer) -> httpcore2.AsyncNetworkStream:
    stream = await AsyncioSockets().connect_tcp("127.0.0.1", peer.port, timeout=30)
    await until(lambda: peer.writers)
    return stream


async def test_a_silent_peer_is_not_readable_and_answers_are_read_whole(peer: Peer) -> None:
    stream = await connected(peer)
    assert stream.get_extra_info("is_readable") is False
    peer.writers[0].write(b"answer")
    await until(lambda: stream.get_extra_info("is_readable"))

    assert await stream.read(100, timeout=30) == b"answer"
    assert stream.get_extra_info("is_readable") is False
    await stream.aclose()


async def test_an_answer_nobody_asked_for_makes_it_readable_though_the_peer_has_closed(peer: Peer) -> None:
    stream = await connected(peer)
    peer.writers[0].write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    peer.writers[0].close()

    await until(lambda: stream.get_extra_info("is_readable"))
    await stream.aclose()


async def test_a_peer_that_closed_makes_it_readable(peer: Peer) -> None:
    stream = await connected(peer)
    peer.writers[0].close()

    await until(lambda: stream.get_extra_info("is_readable"))
    assert await stream.read(100, timeout=30) == b""
    await stream.aclose()


async def test_what_does_not_come_in_time_is_a_read_timeout(peer: Peer) -> None:
    stream = await connected(peer)
    with pytest.raises(httpcore2.ReadTimeout):
        await stream.read(100, timeout=0.02)
    await stream.aclose()


async def test_nobody_there_is_a_connect_error(peer: Peer) -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    with pytest.raises(httpcore2.ConnectError):
        await AsyncioSockets().connect_tcp("127.0.0.1", port, timeout=30)


class Heard(asyncio.Protocol):
    """Notes what arrives together."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)


@pytest.fixture
async def heard() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Port of a server, and what it was sent."""
    parts: list[bytes] = []
    server = await asyncio.get_running_loop().create_server(lambda: Heard(parts), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], parts
    server.close()
    await server.wait_closed()


async def test_little_leaves_together_at_the_next_read(heard: tuple[int, list[bytes]]) -> None:
    port, parts = heard
    stream = await AsyncioSockets().connect_tcp("127.0.0.1", port, timeout=30)
    await stream.write(b"head ", timeout=30)
    await stream.write(b"body", timeout=30)

    reading = asyncio.ensure_future(stream.read(100, timeout=30))
    await until(lambda: parts)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    assert parts == [b"head body"]
    await stream.aclose()


async def test_much_leaves_at_once_and_in_order(heard: tuple[int, list[bytes]]) -> None:
    port, parts = heard
    stream = await AsyncioSockets().connect_tcp("127.0.0.1", port, timeout=30)
    await stream.write(b"head ", timeout=30)
    await stream.write(b"x" * 100_000, timeout=30)
    await until(lambda: len(b"".join(parts)) == 100_005)

    assert b"".join(parts) == b"head " + b"x" * 100_000
    await stream.aclose()


async def test_what_waits_is_sent_before_the_end(heard: tuple[int, list[bytes]]) -> None:
    port, parts = heard
    stream = await AsyncioSockets().connect_tcp("127.0.0.1", port, timeout=30)
    await stream.write(b"the last word", timeout=30)
    await stream.aclose()

    await until(lambda: parts)
    assert parts == [b"the last word"]
