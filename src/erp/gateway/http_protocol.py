"""uvicorn's fast HTTP protocol, with bounded request heads and answers written in one piece."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway import answers
from erp.gateway.client_certificate import PEER, Network, Peer, peer_of
from erp.gateway.endpoint import shutting_down
from erp.gateway.inbound import Inbound

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
LEFTOVER_SECONDS = 5.0

WHOLE_RESPONSE = "erp.response"
"""ASGI extension: one message ``{"type": "erp.response", "status", "head", "body"}`` is a whole answer.

``head`` is the header block as bytes, already checked, each line ended by CRLF, without content-length.
"""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses requests whose head is larger than 64 KiB, and closes connections that keep it waiting.

    A head may take 10 s; what is left of a body that was answered before it was complete, 5 s.
    Nothing is ever written before the answers to earlier requests of the connection (RFC 9112, 9.3.2).

    Says who the peer is (``PEER``) when it has a certificate or is a proxy that is trusted.

    Offers ``WHOLE_RESPONSE``: header and body leave in one system call, and headers that the layer
    itself made are not checked a second time. Together they are a fifth of the cost of a small answer.
    """

    def __init__(self, *args: Any, trusted_proxies: tuple[Network, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trusted_proxies = trusted_proxies
        self._peer: Peer | None = None
        self._in_head = True
        self._chunk_bytes = 0
        """Size of what came last."""
        self._later_bytes = 0
        """Size of what came of the present head after the piece in which it began."""
        self._is_too_large = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._leftover_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock for the first request head."""
        super().connection_made(transport)
        self._peer = peer_of(transport, self._trusted_proxies)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Count bytes, and start the clock when a head came only in part."""
        self._chunk_bytes = len(data)
        if self._in_head:
            self._later_bytes += self._chunk_bytes
        super().data_received(data)
        if self._in_head:
            self._bound_head()
        elif self.timeout_keep_alive_task is None:
            self._stay_idle()

    def _bound_head(self) -> None:
        if self._later_bytes > MAX_HEAD_BYTES or self._parsed_bytes() > MAX_HEAD_BYTES:
            self._is_too_large = True
            self.send_400_response("")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _parsed_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _stay_idle(self) -> None:
        """Bytes that begin no request (an empty line, the rest of a body) do not end the idle time."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or not cycle.response_complete or self.transport.is_closing():
            return
        handler = self.timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, handler)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._later_bytes = 0
        super().on_message_begin()
        extensions: dict[str, Any] = {WHOLE_RESPONSE: {}}
        if self._peer is not None:
            extensions[PEER] = self._peer
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        """The head is complete: stop counting.

        Raises:
            ValueError: it is too large although it came at once; the parser then ends the connection.
        """
        may_be_large = self._later_bytes or self._chunk_bytes > MAX_HEAD_BYTES
        if may_be_large and self._parsed_bytes() > MAX_HEAD_BYTES:
            self._is_too_large = True
            raise ValueError
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self._leftover_timer is not None:
            self._leftover_timer.cancel()
            self._leftover_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Give the rest of a body that nobody waits for a moment: it may be endless."""
        super().on_response_complete()
        if self.cycle.more_body and self.cycle.response_complete and self._leftover_timer is None:
            self._leftover_timer = self.loop.call_later(LEFTOVER_SECONDS, self.timeout_keep_alive_handler)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.send = partial(_send, cycle, cycle.send)  # type: ignore[method-assign, arg-type]
        super()._start_asgi_task(cycle, partial(_served, cycle, app))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        for timer in (self._head_timer, self._leftover_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, _: str) -> None:
        """Answer what is no HTTP request, or one with too large a head, and close the connection."""
        if self._closes_after_answers() or self.transport.is_closing():
            return
        if self._is_too_large:
            message = f"The request line and headers are larger than {MAX_HEAD_BYTES} bytes."
            error = ProviderError(ErrorCode.INVALID_ARGUMENT, message, status=431)
        else:
            error = ProviderError(ErrorCode.INVALID_ARGUMENT, "This is not a valid HTTP/1.1 request.")
        self.transport.write(_problem(error))
        self.transport.close()

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._in_head and not self._closes_after_answers() and not self.transport.is_closing():
            self.transport.close()

    def _closes_after_answers(self) -> bool:
        """Close after the answers to complete requests, if some are still due; say whether."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not self.pipeline):
            return False
        cycle.keep_alive = False
        return True


def _problem(error: ProviderError) -> bytes:
    """Return ``error`` as the last response of a connection, for a request that never reached the application."""
    inbound = Inbound(())
    body = answers.problem_body(error, inbound.request_id, "")
    headers = [
        (b"content-type", answers.PROBLEM),
        *answers.common_headers(inbound),
        (b"connection", b"close"),
        (b"content-length", b"%d" % len(body)),
    ]
    return STATUS_LINE[error.status] + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body


async def _served(cycle: RequestResponseCycle, app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application; a request cut off at the end of the time to drain is told so."""
    try:
        await app(scope, receive, send)
    except asyncio.CancelledError:
        if not cycle.response_started:
            await answers.send_problem(scope, send, Inbound(scope["headers"]), shutting_down())


async def _send(cycle: RequestResponseCycle, send: Send, message: Any) -> None:
    if cycle.waiting_for_100_continue:
        # The body will not come now, or it will: nobody can tell, so no request can follow (RFC 9110, 10.1.1).
        cycle.keep_alive = False
    if message["type"] != WHOLE_RESPONSE:
        if cycle.scope["http_version"] == "1.0":
            _end_by_closing(cycle, message)
        await send(message)
        return
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if not cycle.disconnected:
        _send_whole(cycle, message)


def _send_whole(cycle: RequestResponseCycle, message: Any) -> None:
    body = message["body"]
    parts = [STATUS_LINE[message["status"]]]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (message["head"], b"content-length: %d\r\n" % len(body))
    parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
    if cycle.scope["method"] != "HEAD":
        parts.append(body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def _end_by_closing(cycle: RequestResponseCycle, message: Any) -> None:
    """End a body of unknown length by closing: HTTP/1.0 knows no chunks (RFC 9112, 6.1), uvicorn would send them."""
    if message["type"] == "http.response.start":
        if not any(name == b"content-length" for name, _ in message["headers"]):
            cycle.chunked_encoding = False
            cycle.expected_content_length = sys.maxsize
    elif not message.get("more_body") and cycle.expected_content_length > MAX_HEAD_BYTES * MAX_HEAD_BYTES:
        cycle.expected_content_length = len(message.get("body", b""))
