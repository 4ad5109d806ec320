"""Holds the connections of a library that opens its own ones to the egress rule.

``obstore`` resolves names and connects by itself, so it is given a proxy: this gate, which listens on the loopback
interface, lets through to one endpoint alone, resolves its name for each connection, has every address judged and
connects to a judged one. It passes bytes on and reads none of them behind the first request line: https stays
encrypted from end to end (CONNECT, RFC 9110 section 9.3.6), http is passed as it is (absolute form, RFC 9112
section 3.2.2). An endpoint that is an IP address needs no gate: it is judged once, and cannot become another one.
The library follows redirects of reads; behind a gate they end at it, and without one at a proxy that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast
from urllib.parse import urlsplit

from erp.vendor_clients.egress import EgressRefusedError, EgressRule
from erp.vendor_clients.guarded_http import Resolve, resolve_by_system

_HEAD_BYTES = 65_536
_CONNECT_SECONDS = 10.0
_REFUSED = b"<Error><Code>GateRefused</Code></Error>"
_UNREACHABLE = b"<Error><Code>GateUnreachable</Code></Error>"
_MAXIMUM_ADDRESSES = 4


class EgressGate:
    """``open`` it, give its ``url`` to the library as proxy, ``close`` it."""

    def __init__(self, host: str, port: int, rule: EgressRule, *, resolve: Resolve = resolve_by_system) -> None:
        self._target = (host, port)
        self._rule = rule
        self._resolve = resolve
        self._server: asyncio.Server | None = None
        self._piped: set[_Side] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None  # noqa: S101  (asked for after open)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        """Listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Front(self), "127.0.0.1", 0)

    async def close(self) -> None:
        """Stop listening and end what is open; safe twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for side in list(self._piped):
                side.abort()

    async def connect(self, host: str, port: int, back: _Back) -> None:
        """Connect ``back`` to the endpoint.

        Raises:
            EgressRefusedError: it is another endpoint, or has no permitted address.
            OSError: no address of it answers.
        """
        if (host, port) != self._target:
            raise EgressRefusedError(f"{host} is not the endpoint of this connection.")
        found = await self._resolve(host, port)
        permitted = [address for address in found if self._rule.permits(address, port)][:_MAXIMUM_ADDRESSES]
        if not permitted:
            raise EgressRefusedError(f"{host} is not a public address.")
        last: OSError = ConnectionError(f"{host} has no address.")
        for address in permitted:
            try:
                await asyncio.get_running_loop().create_connection(lambda: back, address, port)
            except OSError as error:
                last = error
            else:
                return
        raise last

    def keep(self, side: _Side) -> None:
        """Remember what has to end with the gate."""
        self._piped.add(side)

    def forget(self, side: _Side) -> None:
        """It has ended."""
        self._piped.discard(side)


class _Side(asyncio.Protocol):
    """One end of a pipe: what it receives goes to its peer, at the pace of the peer."""

    peer: _Side | None = None
    transport: asyncio.Transport | None = None

    def __init__(self, gate: EgressGate) -> None:
        self._gate = gate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._gate.keep(self)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._gate.forget(self)
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()

    def abort(self) -> None:
        """Close without waiting for what is still to be sent."""
        if self.transport is not None:
            self.transport.abort()


class _Back(_Side):
    """The connection to the endpoint."""


class _Front(_Side):
    """The connection of the library: its first request says where it wants to go."""

    def __init__(self, gate: EgressGate) -> None:
        super().__init__(gate)
        self._head = bytearray()
        self._connecting: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            super().data_received(data)
            return
        self._head += data
        if self._connecting is None and b"\r\n\r\n" in self._head:
            self._connecting = asyncio.ensure_future(self._connect())
        elif len(self._head) > _HEAD_BYTES and self._connecting is None:
            self.abort()
        elif self.transport is not None and len(self._head) > _HEAD_BYTES:
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._connecting is not None:
            self._connecting.cancel()

    async def _connect(self) -> None:
        back = _Back(self._gate)
        back.peer = self
        try:
            is_tunnel, host, port = _wanted(bytes(self._head))
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._gate.connect(host, port, back)
        except (EgressRefusedError, ValueError):
            self._answer(b"403 Forbidden", _REFUSED)
        except (OSError, UnicodeError, TimeoutError):
            self._answer(b"421 Misdirected Request", _UNREACHABLE)
        except BaseException:
            back.abort()
            raise
        else:
            self._begin(back, is_tunnel=is_tunnel)

    def _begin(self, back: _Back, *, is_tunnel: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            back.abort()
            return
        waiting, self.peer = bytes(self._head), back
        self._head.clear()
        if is_tunnel:
            self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            waiting = waiting.partition(b"\r\n\r\n")[2]
        super().data_received(waiting)
        with contextlib.suppress(RuntimeError):  # it was not paused
            self.transport.resume_reading()

    def _answer(self, status: bytes, body: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            head = b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body))
            self.transport.write(head + body)
            self.transport.close()


def _wanted(head: bytes) -> tuple[bool, str, int]:
    """Return whether a tunnel is asked for, and host and port."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    target = rest.partition(" ")[0]
    is_tunnel = method == "CONNECT"
    url = urlsplit(f"//{target}" if is_tunnel else target)
    if not url.hostname or (not is_tunnel and url.scheme != "http"):
        raise ValueError("It is no request to a proxy.")
    return is_tunnel, url.hostname, url.port or (443 if is_tunnel else 80)
