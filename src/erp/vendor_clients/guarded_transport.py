"""The httpx2 side of ``GuardedHttp``. Imports httpx2, so it is imported when a client is first used."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpcore2
import httpx2

from erp.vendor_clients.asyncio_sockets import AsyncioSockets
from erp.vendor_clients.egress import EgressRefusedError, EgressRule

if TYPE_CHECKING:
    from erp.vendor_clients.guarded_http import HttpLimits, Resolve

_MAXIMUM_ADDRESSES = 4
_MAXIMUM_PORT = 65535


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens sockets only to addresses that were judged; what was judged is what is connected to."""

    def __init__(self, rule: EgressRule, resolve: Resolve) -> None:
        self._rule = rule
        self._resolve = resolve
        self._sockets = AsyncioSockets()
        self.is_closed = False
        """Set when everything is closed: the pool forgets connections that are still being opened, and would leak them."""

    async def connect_tcp(  # the signature is httpcore2's
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        deadline = time.monotonic() + (60.0 if timeout is None else timeout)
        waiting = await self._permitted(host, port, deadline)
        while True:
            # A silent address must leave time for the ones after it.
            share = max(deadline - time.monotonic(), 0.0) / len(waiting)
            address = waiting.pop(0)
            try:
                stream = await self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if not waiting:
                    raise
            else:
                return await self._kept(stream)

    async def _kept(self, stream: httpcore2.AsyncNetworkStream) -> httpcore2.AsyncNetworkStream:
        if self.is_closed:
            await stream.aclose()
            raise httpcore2.ConnectError("The client was closed.")
        return stream

    async def sleep(self, seconds: float) -> None:
        await self._sockets.sleep(seconds)

    async def _permitted(self, host: str, port: int, deadline: float) -> list[str]:
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"The name server did not answer for {host}.") from error
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} has no address.") from error
        permitted = [address for address in found if self._rule.permits(address, port)]
        if not permitted:
            raise not_public(host)
        return permitted[:_MAXIMUM_ADDRESSES]


class GuardedTransport(httpx2.AsyncBaseTransport):
    """A connection pool over a ``GuardedBackend``; no proxy, no redirect, no retry."""

    def __init__(self, backend: GuardedBackend, limits: HttpLimits, tls: ssl.SSLContext) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            keepalive_expiry=limits.keepalive_seconds,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        assert isinstance(request.stream, httpx2.AsyncByteStream)  # noqa: S101  (AsyncClient sends nothing else)
        sent = httpcore2.Request(
            request.method, url, headers=request.headers.raw, content=request.stream, extensions=request.extensions
        )
        with _as_httpx2():
            answer = await self._pool.handle_async_request(sent)
        return httpx2.Response(
            answer.status, headers=answer.headers, stream=_AnswerStream(answer), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _AnswerStream(httpx2.AsyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx2():
            async for chunk in self._answer.aiter_stream():
                yield chunk

    async def aclose(self) -> None:
        await self._answer.aclose()


@contextmanager
def _as_httpx2() -> Iterator[None]:
    known = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol)
    try:
        yield
    except known as error:
        # Both libraries give the same condition the same name.
        raise getattr(httpx2, type(error).__name__)(str(error)) from error


def guarded_client(backend: GuardedBackend, limits: HttpLimits, tls: ssl.SSLContext) -> httpx2.AsyncClient:
    """A client that ignores proxies, certificates and passwords of the environment."""
    return httpx2.AsyncClient(
        transport=GuardedTransport(backend, limits, tls),
        timeout=httpx2.Timeout(limits.total_seconds, connect=limits.connect_seconds),
        headers={"accept-encoding": "identity", "user-agent": "erp-provider-layer"},
        trust_env=False,
        follow_redirects=False,
    )


@functools.cache
def system_tls() -> ssl.SSLContext:
    """Verification by the certificates of the operating system; shared, because each costs 0.8 MB and 25 ms."""
    return httpx2.create_ssl_context(trust_env=False)


def parse_url(text: str) -> httpx2.URL:
    """Read a URL that may be called at all: http or https, with a host, without a user name."""
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, TypeError, ValueError):
        raise EgressRefusedError("The url is malformed.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise EgressRefusedError("The url must start with http:// or https:// and name a host.")
    if url.userinfo:
        raise EgressRefusedError("The url must not contain a user name or password.")
    if not 1 <= port_of(url) <= _MAXIMUM_PORT:
        raise EgressRefusedError("The url has an impossible port.")
    return url


def host_of(url: httpx2.URL) -> str:
    """The host as it is looked up (internationalised names encoded)."""
    return url.raw_host.decode("ascii")


def port_of(url: httpx2.URL) -> int:
    """The port, also when the scheme implies it."""
    if url.port is not None:
        return url.port
    return 443 if url.scheme == "https" else 80


def numeric_addresses(host: str) -> list[str]:
    """The addresses ``host`` spells in any numeric form (dotted, short, decimal, octal, hexadecimal); none for a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


def not_public(host: str) -> EgressRefusedError:
    """The refusal of ``host``; says nothing about what it resolved to."""
    return EgressRefusedError(
        f"{host} is not a public address; the operator of the platform can allow private networks."
    )
