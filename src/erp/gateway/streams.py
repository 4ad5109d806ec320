"""Streaming answers: newline-delimited JSON, or server-sent events when the caller asks for them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from erp.errors import ProviderError
from erp.gateway import answers
from erp.gateway.endpoint import shutting_down

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Send

    from erp.gateway.inbound import Inbound
    from erp.runtime.call import Call
    from erp.runtime.calls import Calls

NDJSON = b"application/x-ndjson"
EVENTS = b"text/event-stream"
HEARTBEAT_SECONDS = 15.0


async def serve(calls: Calls, call: Call, inbound: Inbound, receive: Receive, send: Send) -> None:
    """Stream the items of ``call`` until they end or the caller goes away.

    A refusal is raised before anything is sent; a later failure ends the stream with a problem item.
    """
    items = await calls.stream(call)
    form = _Form(call, inbound)
    pump = asyncio.ensure_future(_pump(items, form, send))
    gone = asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _stopped(pump, gone)
        await send({"type": "http.response.body", "body": form.problem(shutting_down()), "more_body": False})
        raise
    finally:
        await _stopped(pump, gone)


class _Form:
    """How the items of one answer are written."""

    def __init__(self, call: Call, inbound: Inbound) -> None:
        self._correlation_id = inbound.request_id
        self._as_events = inbound.accept is not None and EVENTS.decode() in inbound.accept
        kind = EVENTS if self._as_events else NDJSON
        self.headers = [(b"content-type", kind), *answers.common_headers(inbound), *call.action.deprecation_headers]
        self.heartbeat = b": still here\n\n" if self._as_events else b"\n"

    def item(self, data: bytes) -> bytes:
        return b"event: item\ndata: %s\n\n" % data if self._as_events else data + b"\n"

    def problem(self, error: ProviderError) -> bytes:
        data = b'{"problem":' + answers.problem_body(error, self._correlation_id, "") + b"}"
        return b"event: problem\ndata: %s\n\n" % data if self._as_events else data + b"\n"


async def _stopped(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pump(items: AsyncGenerator[bytes], form: _Form, send: Send) -> None:
    async with aclosing(items), aclosing(_lines(items, form)) as lines:
        await send({"type": "http.response.start", "status": 200, "headers": form.headers})
        async for line in lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _lines(items: AsyncGenerator[bytes], form: _Form) -> AsyncGenerator[bytes]:
    async with aclosing(items):
        upcoming = asyncio.ensure_future(anext(items, None))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield form.heartbeat
                    continue
                item = upcoming.result()
                if item is None:
                    return
                yield form.item(item)
                upcoming = asyncio.ensure_future(anext(items, None))
        except ProviderError as error:
            yield form.problem(error)
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
