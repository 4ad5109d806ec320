"""``GET /providers/{domain}/{name}/events``: what a provider announces to its tenant, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import StreamingResponse

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway import answers
from erp.gateway.streams import HEARTBEAT_SECONDS
from erp.runtime.delivery import cloud_event
from erp.runtime.question import Question

if TYPE_CHECKING:
    from erp.gateway.endpoint import Visit
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.event_feed import EventFeed, Numbered
    from erp.runtime.ports import Policy

LAST_EVENT_ID = "last-event-id"
LONGEST_POSITION = 18

_encode = msgspec.json.Encoder(decimal_format="string").encode


class ProviderEvents:
    """Server-sent events, numbered by their position in the outbox, so that a listener can go on where it was cut off.

    An event is kept there for a day after it was delivered to the tenant's bus.
    """

    def __init__(self, feed: EventFeed, catalog: ProviderCatalog, policy: Policy) -> None:
        self._feed = feed
        self._catalog = catalog
        self._policy = policy

    async def listen(self, visit: Visit) -> tuple[int, Any]:
        """Send events until the caller goes away; ``Last-Event-ID`` says behind which one to begin."""
        manifest = self._catalog.provider(visit.path("domain"), visit.path("name"))
        question = Question(
            actor=visit.actor,
            area="providers",
            domain=manifest.domain,
            name=manifest.name,
            action="events",
            effect="read",
        )
        decision = self._policy.known(question) or await self._policy.decide(question)
        if not decision.allow:
            message = f"The events of {manifest.ref} are not allowed: {decision.reason}."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
        after = _position(visit.request.headers.get(LAST_EVENT_ID))
        if after is None:
            after = await self._feed.latest()  # before the answer begins: what happens after it is not missed
        headers = {name.decode(): value.decode() for name, value in answers.common_headers(visit.inbound)}
        lines = _lines(self._feed.events(visit.tenant, after), f"/providers/{manifest.ref}")
        return 200, StreamingResponse(lines, headers=headers, media_type="text/event-stream")


def _position(text: str | None) -> int | None:
    if text is None or text == "":
        return None
    if text.isascii() and text.isdigit() and len(text) <= LONGEST_POSITION:
        return int(text)
    error = FieldError("/headers/Last-Event-ID", "Use the id of the last event you have, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The event id is malformed.", errors=[error])


async def _lines(events: AsyncGenerator[Numbered], source: str) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        yield b"retry: 1000\n\n"
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while True:
                done, _ = await asyncio.wait({upcoming}, timeout=HEARTBEAT_SECONDS)
                if not done:
                    yield b": still here\n\n"
                    continue
                number, event = upcoming.result()
                upcoming = asyncio.ensure_future(anext(events))
                if event.source == source:
                    data = _encode(cloud_event(event))
                    yield b"id: %d\nevent: %b\ndata: %b\n\n" % (number, event.type.encode(), data)
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
