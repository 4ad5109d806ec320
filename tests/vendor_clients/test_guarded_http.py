"""The outgoing HTTP client against real local servers."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.vendor_clients.http_peer import LOOPBACK, answering, client, listening

from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.guarded_http import (
    AnswerLostError,
    AnswerTimedOutError,
    ConnectFailedError,
    GuardedHttp,
    HttpLimits,
)

pytestmark = pytest.mark.anyio


async def test_only_the_permitted_ones_of_several_addresses_are_used() -> None:
    resolve = answering(["169.254.169.254", "127.0.0.2", "127.0.0.1", "::1"])
    async with listening() as peer, client(resolve=resolve) as http:
        assert (await http.send("POST", f"http://mixed.example:{peer.port}/")).status == 204
        assert peer.connections == 1


async def test_a_host_header_that_a_signature_covers_is_sent_once() -> None:
    async with listening() as peer, client(resolve=answering(["127.0.0.1"])) as http:
        url = f"http://bucket.example:{peer.port}/"
        assert (await http.send("GET", url, headers={"Host": f"bucket.example:{peer.port}"})).status == 204
        assert peer.heads[0].lower().count("host: ") == 1


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


async def test_a_client_that_is_closed_while_it_connects_keeps_no_connection() -> None:
    resolving, closed = asyncio.Event(), asyncio.Event()

    async def slow(host: str, port: int) -> list[str]:
        resolving.set()
        await closed.wait()
        return ["127.0.0.1"]

    async with listening() as peer, client(resolve=slow) as http:
        call = asyncio.ensure_future(http.send("POST", f"http://slow.example:{peer.port}/"))
        await resolving.wait()
        await http.aclose()
        closed.set()
        with pytest.raises(ConnectFailedError):
            await call
        with pytest.raises(ConnectFailedError):
            await http.send("POST", peer.url)
        assert peer.heads == []


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
