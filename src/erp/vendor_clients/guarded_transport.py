"""The network side of ``GuardedHttp``. Imports httpx2 and httpcore2, so it is imported when a client is first used."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpcore2
import httpx2

from erp.vendor_clients.asyncio_sockets import AsyncioSockets
from erp.vendor_clients.egress import EgressRefusedError, EgressRule

if TYPE_CHECKING:
    from erp.vendor_clients.guarded_http import HttpLimits, Resolve

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_DEFAULT_HEADERS = (("accept", b"*/*"), ("accept-encoding", b"identity"), ("user-agent", b"erp-provider-layer"))
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


def guarded_pool(backend: GuardedBackend, limits: HttpLimits, tls: ssl.SSLContext) -> httpcore2.AsyncConnectionPool:
    """Connections over a ``GuardedBackend``; no proxy, no redirect, no retry, nothing from the environment."""
    return httpcore2.AsyncConnectionPool(
        ssl_context=tls,
        max_connections=limits.max_connections,
        keepalive_expiry=limits.keepalive_seconds,
        network_backend=backend,
    )


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    host: str
    url: httpcore2.URL
    authority: bytes
    """The Host header."""


@functools.lru_cache(maxsize=1024)
def target_of(text: str) -> Target:
    """Read a URL; those that are called again and again are read once.

    Raises:
        EgressRefusedError: as ``parse_url``.
    """
    url = parse_url(text)
    own = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    return Target(url.host, own, url.netloc)


def request_to(
    target: Target, method: str, headers: Mapping[str, str], body: bytes, limits: HttpLimits
) -> httpcore2.Request:
    """Return the request with the headers that HTTP asks for (RFC 9110, sections 7.2 and 8.6)."""
    given = {name.lower() for name in headers}
    own = [] if "host" in given else [(b"host", target.authority)]  # signatures cover the one that is given
    if "content-length" not in given and (body or method in _WITH_BODY):
        own.append((b"content-length", str(len(body)).encode()))
    own += [(name.encode(), value) for name, value in _DEFAULT_HEADERS if name not in given]
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    seconds = limits.total_seconds
    timeout = {"connect": limits.connect_seconds, "read": seconds, "write": seconds, "pool": seconds}
    extensions = {"timeout": timeout}
    return httpcore2.Request(method, target.url, headers=own + sent, content=body, extensions=extensions)


def headers_of(answer: httpcore2.Response) -> dict[str, str]:
    """Return headers by name in lower case; several of one name are joined (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for raw_name, raw_value in answer.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


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
