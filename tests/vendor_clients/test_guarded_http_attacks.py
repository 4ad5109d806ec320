"""Attacks on the outgoing HTTP client: server-side request forgery, smuggling, answers without end."""

from __future__ import annotations

import asyncio
import contextlib
import gzip

import pytest
from tests.vendor_clients.http_peer import answering, client, listening

from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    HttpLimits,
)

pytestmark = pytest.mark.anyio

ATTACKS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://localhost.:{port}/",
    "http://LOCALHOST:{port}/",
    "http://127.0.0.1%2e:{port}/",
    "http://127.0.0.1%00.good.example:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://\u2460\u2461\u2466.0.0.1:{port}/",
    "http://127\u30020.0.1:{port}/",
    "http://127.0.0.1:{port}#@good.example/",
    "http://good.example#@127.0.0.1:{port}/\r\nhost: x",
    "http://user:password@127.0.0.1:{port}/",
    "http://good.example@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@good.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "//127.0.0.1:{port}/",
    "http:///",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:0/",
    "",
]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_spelling_of_an_internal_address_is_connected_to(attack: str) -> None:
    async with listening() as peer, client(EgressRule()) as http:
        url = attack.format(port=peer.port)
        with pytest.raises((EgressRefusedError, ConnectFailedError)):
            await http.send("POST", url, body=b"{}", timeout_seconds=2)
        with pytest.raises((EgressRefusedError, ConnectFailedError)):
            await http.probe(url, timeout_seconds=2)
        assert (peer.connections, peer.heads) == (0, [])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://2130706433/", "http://[::1]/", "http://10.0.0.1/", "ftp://x/"]
)
async def test_what_needs_no_name_server_is_refused_when_configured(url: str) -> None:
    async with client(EgressRule()) as http:
        with pytest.raises(EgressRefusedError):
            http.check_url(url)
        http.check_url("https://hooks.example/orders")
        http.check_url("https://1.1.1.1/orders")


async def test_a_name_that_resolves_to_an_internal_address_is_refused_without_telling_it() -> None:
    async with listening() as peer, client(EgressRule(), resolve=answering(["127.0.0.1"])) as http:
        with pytest.raises(EgressRefusedError) as refusal:
            await http.send("POST", f"http://good.example:{peer.port}/")
        assert "127.0.0.1" not in str(refusal.value)
        assert peer.connections == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-a", "1\r\nx-b: 2"), ("x-a", "1\nx-b: 2"), ("x-a\r\nx-b", "1"), ("x a", "1"), ("x-a", "1\x00")],
)
async def test_a_header_cannot_smuggle_another_line(name: str, value: str) -> None:
    async with listening() as peer, client() as http:
        with pytest.raises(EgressRefusedError):
            await http.send("POST", peer.url, headers={name: value})
        assert peer.heads == []
        assert (await http.send("POST", peer.url)).status == 204


@pytest.mark.parametrize("path", ["a\r\nx-b: 2", "a\nGET / HTTP/1.1", "a b", "\u2028"])
async def test_a_path_cannot_smuggle_another_line(path: str) -> None:
    async with listening() as peer, client() as http:
        with contextlib.suppress(EgressRefusedError):
            await http.send("POST", peer.url + path)
        assert all("x-b" not in head.lower().replace("%0d%0ax-b", "") for head in peer.heads)
        assert all(head.count("HTTP/1.1") == 1 + head.count("%20HTTP/1.1") for head in peer.heads)


async def test_a_compressed_answer_is_not_asked_for_and_never_unpacked() -> None:
    bomb = gzip.compress(b"x" * 10_000_000)
    head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n"
    async with listening(head.encode() + bomb) as peer, client(limits=HttpLimits(max_answer_bytes=1000)) as http:
        answer = await http.send("GET", peer.url)
    assert (answer.body, answer.truncated) == (bomb[:1000], True)
    assert "accept-encoding: identity" in peer.heads[0].lower()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"])
async def test_an_answer_that_trickles_ends_with_the_limit_of_the_call(start: bytes) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(start)
            while not ended.is_set():
                writer.write(b"x" if start else b"H")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        closed.set()

    ended, closed = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    async with client() as http:
        with pytest.raises((AnswerTimedOutError, AnswerLostError)):
            await http.send("POST", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_seconds=0.15)
    ended.set()
    await closed.wait()
    server.close()


async def test_endless_headers_are_not_read_to_the_end() -> None:
    endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n" + b"x-a: " + b"y" * 500_000
    async with listening(endless) as peer, client() as http:
        with pytest.raises(AnswerLostError):
            await http.send("POST", peer.url, timeout_seconds=5)
