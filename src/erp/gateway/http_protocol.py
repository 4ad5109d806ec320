"""uvicorn's fast HTTP protocol, with bounded request heads and answers written in one piece."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

if TYPE_CHECKING:
    from starlette.types import Send
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain\r\nconnection: close\r\ncontent-length: 34\r\n\r\n"
    b"The request headers are too large."
)


WHOLE_RESPONSE = "erp.response"
"""ASGI extension: one message ``{"type": "erp.response", "status", "head", "body"}`` is a whole answer.

``head`` is the header block as bytes, already checked, each line ended by CRLF, without content-length.
"""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Closes connections whose request head is larger than 64 KiB or takes longer than 10 s.

    Offers ``WHOLE_RESPONSE``: header and body leave in one system call, and headers that the layer
    itself made are not checked a second time. Together they are a fifth of the cost of a small answer.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the clock for the first request head."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Count bytes, and start the clock when a head came only in part."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            self._bound_head()

    def _bound_head(self) -> None:
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()
        self.scope["extensions"] = {WHOLE_RESPONSE: {}}

    def on_headers_complete(self) -> None:
        """The head is complete: stop counting."""
        self._in_head = False
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.send = partial(_send, cycle, cycle.send)  # type: ignore[method-assign, arg-type]
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            self.transport.close()


async def _send(cycle: RequestResponseCycle, send: Send, message: Any) -> None:
    if message["type"] != WHOLE_RESPONSE:
        await send(message)
        return
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    if cycle.disconnected:
        return
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
