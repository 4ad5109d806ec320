"""The outgoing HTTP client against real local servers and the attack list for server-side request forgery."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import (
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)

pytestmark = pytest.mark.anyio

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


async def test_only_the_permitted_ones_of_several_addresses_are_used() -> None:
    resolve = answering(["169.254.169.254", "127.0.0.2", "127.0.0.1", "::1"])
    async with listening() as peer, client(resolve=resolve) as http:
        assert (await http.send("POST", f"http://mixed.example:{peer.port}/")).status == 204
        assert peer.connections == 1


async def test_a_name_is_resolved_once_per_connection_and_the_judged_address_is_the_one_connected_to() -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    async with listening() as peer, client(resolve=rebinding) as http:
        assert (await http.send("POST", f"http://rebind.example:{peer.port}/")).status == 204
        assert asked == ["rebind.example"]
        assert f"host: rebind.example:{peer.port}" in peer.heads[0].lower()
        with pytest.raises(EgressRefusedError):
            await http.probe(f"http://rebind.example:{peer.port}/")
        assert peer.connections == 1


async def test_a_redirect_is_an_answer_and_never_followed() -> None:
    async with listening() as inner:
        redirect = f"HTTP/1.1 302 Found\r\nlocation: {inner.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with listening(redirect) as outer, client() as http:
            answer = await http.send("POST", outer.url)
        assert (answer.status, answer.headers["location"], inner.connections) == (302, inner.url, 0)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as peer, listening() as proxy, client() as http:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(variable, proxy.url)
        assert (await http.send("POST", peer.url)).status == 204
        assert (peer.connections, proxy.connections) == (1, 0)


async def test_connections_are_used_again() -> None:
    async with listening() as peer, client() as http:
        for _ in range(3):
            assert (await http.send("POST", peer.url, body=b"{}")).status == 204
        assert (peer.connections, len(peer.heads)) == (1, 3)


async def test_the_answer_comes_with_status_headers_and_body() -> None:
    async with (
        listening(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\ncontent-length: 4\r\n\r\nbusy") as peer,
        client() as http,
    ):
        answer = await http.send("POST", peer.url, headers={"x-test": "1"}, body=b"{}")
    assert (answer.status, answer.headers["retry-after"], answer.body, answer.truncated) == (503, "7", b"busy", False)
    assert "x-test: 1" in peer.heads[0].lower()
    assert "content-length: 2" in peer.heads[0].lower()


async def test_a_long_answer_is_cut_and_the_next_request_still_works() -> None:
    long = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * 100_000
    async with listening(long) as peer, client(limits=HttpLimits(max_answer_bytes=1000)) as http:
        for _ in range(2):
            answer = await http.send("GET", peer.url)
            assert (len(answer.body), answer.truncated) == (1000, True)


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


async def test_an_answer_of_exactly_the_limit_is_not_cut() -> None:
    exact = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n" + b"x" * 10
    async with listening(exact) as peer, client(limits=HttpLimits(max_answer_bytes=10)) as http:
        answer = await http.send("GET", peer.url)
    assert (answer.body, answer.truncated) == (b"x" * 10, False)


async def test_a_refused_connection_says_that_nothing_was_sent() -> None:
    async with listening() as peer:
        pass
    async with client() as http:
        with pytest.raises(ConnectFailedError):
            await http.send("POST", peer.url)
        with pytest.raises(ConnectFailedError):
            await http.probe(peer.url)


async def test_a_name_without_an_address_says_that_nothing_was_sent() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    async with client(resolve=unknown) as http:
        with pytest.raises(ConnectFailedError):
            await http.send("POST", "http://nowhere.example/")


async def test_a_silent_name_server_ends_with_the_connect_limit() -> None:
    async def silent(host: str, port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    async with client(resolve=silent, limits=HttpLimits(connect_seconds=0.05)) as http:
        with pytest.raises(ConnectFailedError):
            await http.send("POST", "http://slow.example/")


async def test_a_silent_peer_ends_with_the_limit_of_the_call() -> None:
    async with listening(None) as peer, client() as http:
        with pytest.raises(AnswerTimedOutError):
            await http.send("POST", peer.url, timeout_seconds=0.1)
        assert len(peer.heads) == 1


async def test_a_connection_closed_without_an_answer_says_that_the_answer_was_lost() -> None:
    async with listening(b"") as peer, client() as http:
        with pytest.raises(AnswerLostError):
            await http.send("POST", peer.url)
        assert len(peer.heads) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense, connection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_broken_answer_says_that_the_answer_was_lost(answer: bytes) -> None:
    async with listening(answer) as peer, client() as http:
        with pytest.raises(AnswerLostError):
            await http.send("POST", peer.url)
    async with listening() as peer, client() as http:
        assert (await http.send("POST", peer.url)).status == 204


async def test_a_cancelled_request_leaves_the_client_usable() -> None:
    async with listening(None) as silent, listening() as peer, client(limits=HttpLimits(max_connections=1)) as http:
        sending = asyncio.create_task(http.send("POST", silent.url))
        await silent.asked.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (await http.send("POST", peer.url)).status == 204


async def test_closing_is_safe_twice_and_without_use() -> None:
    http = GuardedHttp(LOOPBACK)
    await http.aclose()
    await http.aclose()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts of a server called ``shop.example`` and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    now = datetime.datetime.now(tz=datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(minutes=10))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=signed.public_bytes(serialization.Encoding.PEM).decode())


async def test_tls_names_and_verifies_the_host_of_the_url_though_the_address_is_pinned(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    server, trusting = certificate
    names: list[str | None] = []
    server.sni_callback = lambda _object, name, _context: names.append(name)
    resolve = answering(["127.0.0.1"])
    async with listening(tls=server) as peer, client(resolve=resolve, tls=trusting) as http:
        assert (await http.send("POST", f"https://shop.example:{peer.port}/")).status == 204
        assert await http.probe(f"https://shop.example:{peer.port}/") > 0
        assert names == ["shop.example", "shop.example"]
        assert f"host: shop.example:{peer.port}" in peer.heads[0].lower()
        with pytest.raises(ConnectFailedError):
            await http.send("POST", f"https://other.example:{peer.port}/")
        with pytest.raises(ConnectFailedError):
            await http.probe(f"https://other.example:{peer.port}/")
        assert len(peer.heads) == 1
