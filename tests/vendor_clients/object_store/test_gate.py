"""A library's own connections reach one endpoint, at addresses that were judged, and nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from erp.vendor_clients.egress import EgressRule
from erp.vendor_clients.object_store.gate import EgressGate

pytestmark = pytest.mark.anyio
LOOPBACK = EgressRule((ipaddress.ip_network("127.0.0.1/32"),))
PATIENCE_SECONDS = 30


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The loop of the tests and that of the layer, whose transports differ."""
    return "asyncio", {"use_uvloop": request.param}


class Echo:
    """Answers with what it receives."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@asynccontextmanager
async def gate(
    port: int, *, rule: EgressRule = LOOPBACK, addresses: list[list[str]] | None = None
) -> AsyncIterator[EgressGate]:
    answers = iter(addresses or [])

    async def resolve(host: str, port: int) -> list[str]:
        return next(answers, ["127.0.0.1"])

    made = EgressGate("store.example", port, rule, resolve=resolve)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def connect(made: EgressGate) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(made.url.rpartition(":")[2]))


async def asked(made: EgressGate, head: bytes) -> bytes:
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connect(made)
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    return answer.split(b"\r\n")[0]


def tunnel(host: str, port: int) -> bytes:
    return b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (host.encode(), port)


async def test_a_tunnel_passes_bytes_both_ways_and_ends_with_either_end(echo: Echo) -> None:
    async with gate(echo.port) as made, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connect(made)
        writer.write(tunnel("store.example", echo.port) + b"early")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        content = bytes(range(256)) * 8192

        async def send() -> None:
            writer.write(content)
            await writer.drain()

        sending = asyncio.ensure_future(send())
        assert await reader.readexactly(len(content) + 5) == b"early" + content
        await sending
        writer.close()


@pytest.mark.slow
async def test_a_slow_reader_holds_the_sender_back(echo: Echo) -> None:
    """What the gate keeps stays small, however much is sent."""
    async with gate(echo.port) as made, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connect(made)
        writer.write(tunnel("store.example", echo.port))
        await reader.readuntil(b"\r\n\r\n")
        chunk, sent = bytes(1 << 20), 0
        for _ in range(64):
            writer.write(chunk)
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                break
            sent += 1

        assert sent < 40  # the buffers of six sockets and a few of our own
        writer.transport.abort()


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1", "169.254.169.254", "localhost"])
async def test_no_other_host_is_reached(echo: Echo, host: str) -> None:
    async with gate(echo.port) as made:
        assert await asked(made, tunnel(host, echo.port)) == b"HTTP/1.1 403 Forbidden"
    assert echo.connections == 0


async def test_no_other_port_is_reached(echo: Echo) -> None:
    async with gate(echo.port + 1) as made:
        assert await asked(made, tunnel("store.example", echo.port)) == b"HTTP/1.1 403 Forbidden"
    assert echo.connections == 0


async def test_every_connection_is_judged_anew(echo: Echo) -> None:
    """A name that leads elsewhere the second time (DNS rebinding) is refused the second time."""
    async with gate(echo.port, addresses=[["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"]]) as made:
        answers = [await asked(made, tunnel("store.example", echo.port)) for _ in range(3)]

    assert [answer.split()[1] for answer in answers] == [b"200", b"403", b"200"]


async def test_an_endpoint_that_does_not_answer_is_told_from_one_that_is_not_permitted() -> None:
    async with gate(1) as made:
        assert (await asked(made, tunnel("store.example", 1))).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET ftp://store.example/ HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"CONNECT [ HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_no_request_to_a_proxy_is_refused(echo: Echo, head: bytes) -> None:
    async with gate(echo.port) as made:
        assert await asked(made, head) == b"HTTP/1.1 403 Forbidden"


async def test_an_endless_head_is_cut_off(echo: Echo) -> None:
    async with gate(echo.port) as made, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connect(made)
        writer.write(bytes(200_000))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
    assert echo.connections == 0


async def test_closing_ends_what_is_open_and_can_be_repeated(echo: Echo) -> None:
    async with gate(echo.port) as made, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connect(made)
        writer.write(tunnel("store.example", echo.port))
        await reader.readuntil(b"\r\n\r\n")
        await made.close()
        await made.close()

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
