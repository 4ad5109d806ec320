"""Outgoing HTTP to addresses that tenants choose, without letting them reach into our own network (SSRF).

GuardedHttp(rule)        one client with its connections
  .check_url(url)        refuses what can be refused without the network
  .send(...)             one request, one bounded answer; redirects are answers, never followed
  .probe(url)            resolves and connects (with TLS for https), sends nothing
  .aclose()

A name is resolved once per connection, every address is judged by the rule, and the connection is opened to a
judged address itself, so a second, different answer of the name server changes nothing. Host header and TLS
server name remain those of the URL. Proxies and certificates named in the environment are not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from erp.vendor_clients.egress import EgressRefusedError, EgressRule

if TYPE_CHECKING:
    import httpcore2

    from erp.vendor_clients.guarded_transport import GuardedBackend

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,16384}")

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Name and port -> IP addresses, best first; raises ``OSError`` when there are none."""


class ConnectFailedError(Exception):
    """No connection could be opened; the request was not sent."""


class AnswerLostError(Exception):
    """The request was sent, at least in part, and the connection broke before the answer was complete."""


class AnswerTimedOutError(Exception):
    """No complete answer came in time; the request may have been received."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one client may use."""

    connect_seconds: float = 5.0
    total_seconds: float = 15.0
    max_answer_bytes: int = 1_048_576
    max_connections: int = 50
    keepalive_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    truncated: bool = False
    """True when the answer was longer than ``max_answer_bytes``; ``body`` has its beginning."""


async def resolve_by_system(host: str, port: int) -> list[str]:
    """Ask the resolver of the operating system, which also reads every spelling of a numeric address."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedHttp:
    """An HTTP client that connects only where its ``EgressRule`` permits."""

    def __init__(
        self,
        rule: EgressRule,
        *,
        limits: HttpLimits | None = None,
        resolve: Resolve = resolve_by_system,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Keep the arguments; ``tls`` replaces the default verification of certificates."""
        self._rule = rule
        self._limits = limits or HttpLimits()
        self._resolve = resolve
        self._tls = tls
        self._pool: httpcore2.AsyncConnectionPool | None = None
        self._backend: GuardedBackend | None = None
        self._is_closed = False

    def check_url(self, url: str) -> None:
        """Refuse what can be refused without the network; a name is judged when it is connected to.

        Raises:
            EgressRefusedError: not http or https, no host, a user name, or a numeric address that is not permitted.
        """
        from erp.vendor_clients.guarded_transport import host_of, not_public, numeric_addresses, parse_url, port_of

        target = parse_url(url)
        host, port = host_of(target), port_of(target)
        if not all(self._rule.permits(address, port) for address in numeric_addresses(host)):
            raise not_public(host)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Send one request and read the answer up to the limit.

        Raises:
            EgressRefusedError: the address is not permitted, or a header could smuggle another; nothing was sent.
            ConnectFailedError: nothing was sent.
            AnswerTimedOutError, AnswerLostError: the request may have been received.
        """
        from erp.vendor_clients.guarded_transport import request_to, target_of

        target = target_of(url)
        _check_headers(headers or {})
        pool = self._opened()
        seconds = self._limits.total_seconds if timeout_seconds is None else timeout_seconds
        request = request_to(target, method, headers or {}, body, self._limits)
        with _own_errors(target.host):
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._exchange(pool, request)

    async def probe(self, url: str, *, timeout_seconds: float | None = None) -> float:
        """Open and close a connection, with a TLS handshake for https. Returns the milliseconds it took.

        Raises:
            EgressRefusedError, ConnectFailedError: it cannot be reached.
        """
        from erp.vendor_clients.guarded_transport import GuardedBackend, host_of, parse_url, port_of

        target = parse_url(url)
        seconds = self._limits.connect_seconds if timeout_seconds is None else timeout_seconds
        backend = GuardedBackend(self._rule, self._resolve)
        started = time.monotonic()
        with _own_errors(target.host):
            stream = await backend.connect_tcp(host_of(target), port_of(target), timeout=seconds)
            if target.scheme == "https":
                stream = await stream.start_tls(self._tls_context(), host_of(target), timeout=seconds)
            await stream.aclose()
        return (time.monotonic() - started) * 1000

    async def aclose(self) -> None:
        """Close all connections, for good; safe twice and without use."""
        self._is_closed = True
        pool, self._pool = self._pool, None
        if self._backend is not None:
            self._backend.is_closed = True
        if pool is not None:
            await pool.aclose()

    def _opened(self) -> httpcore2.AsyncConnectionPool:
        if self._is_closed:
            raise ConnectFailedError("The client is closed.")
        if self._pool is None:
            from erp.vendor_clients.guarded_transport import GuardedBackend, guarded_pool

            self._backend = GuardedBackend(self._rule, self._resolve)
            self._pool = guarded_pool(self._backend, self._limits, self._tls_context())
        return self._pool

    def _tls_context(self) -> ssl.SSLContext:
        from erp.vendor_clients.guarded_transport import system_tls

        return self._tls or system_tls()

    async def _exchange(self, pool: httpcore2.AsyncConnectionPool, request: httpcore2.Request) -> Answer:
        from erp.vendor_clients.guarded_transport import headers_of

        limit = self._limits.max_answer_bytes
        answer = await pool.handle_async_request(request)
        body = bytearray()
        try:
            # As it came: a small compressed body must not grow beyond the limit.
            async for chunk in answer.aiter_stream():
                body += chunk
                if len(body) > limit:
                    break
        finally:
            await answer.aclose()
        return Answer(answer.status, headers_of(answer), bytes(body[:limit]), len(body) > limit)


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what is no header field (RFC 9110, sections 5.1 and 5.5): a line end in it would begin another one."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise EgressRefusedError("A header is malformed.")


@contextlib.contextmanager
def _own_errors(host: str) -> Iterator[None]:
    import httpcore2

    try:
        yield
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout) as error:
        raise ConnectFailedError(f"No connection to {host} could be opened.") from error
    except (TimeoutError, httpcore2.TimeoutException) as error:
        raise AnswerTimedOutError(f"{host} did not answer in time.") from error
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        raise AnswerLostError(f"The connection to {host} broke before its answer was complete.") from error
