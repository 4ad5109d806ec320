"""Streaming answers: newline-delimited JSON, or server-sent events when the caller asks for them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from erp.errors import ProviderError
from erp.gateway import answers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Send

    from erp.gateway.inbound import Inbound
    from erp.runtime.calls import Call, Calls

NDJSON = b"application/x-ndjson"
EVENTS = b"text/event-stream"
HEARTBEAT_SECONDS = 15.0


async def serve(calls: Calls, call: Call, inbound: Inbound, receive: Receive, send: Send) -> None:
    """Stream the items of ``call`` until they end or the caller goes away.

    A refusal is raised before anything is sent; a later failure ends the stream with a problem item.
    """
    items = await calls.stream(call)
    pump = asyncio.ensure_future(_pump(items, inbound, send))
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (pump, gone):
            task.cancel()
        await asyncio.gather(pump, gone, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pump(items: AsyncGenerator[bytes], inbound: Inbound, send: Send) -> None:
    as_events = inbound.accept is not None and EVENTS.decode() in inbound.accept
    headers = [(b"content-type", EVENTS if as_events else NDJSON), *answers.common_headers(inbound)]
    async with aclosing(items), aclosing(_lines(items, inbound, as_events=as_events)) as lines:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for line in lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _lines(items: AsyncGenerator[bytes], inbound: Inbound, *, as_events: bool) -> AsyncGenerator[bytes]:
    async with aclosing(items):
        upcoming = asyncio.ensure_future(anext(items, None))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield b": still here\n\n" if as_events else b"\n"
                    continue
                item = upcoming.result()
                if item is None:
                    return
                yield _line(item, b"item", as_events=as_events)
                upcoming = asyncio.ensure_future(anext(items, None))
        except ProviderError as error:
            problem = answers.problem_body(error, inbound.request_id, "")
            yield _line(b'{"problem":' + problem + b"}", b"problem", as_events=as_events)
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)


def _line(data: bytes, kind: bytes, *, as_events: bool) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind, data) if as_events else data + b"\n"
