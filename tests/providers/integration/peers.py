"""A peer to deliver webhooks to, and an open provider with a clock that a test can move."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from erp.contracts.models import integration as contract
from erp.providers.integration.webhook.provider import Webhooks
from erp.runtime.spi import OpenContext
from erp.vendor_clients.standard_webhooks import generate_secret

SECRET = generate_secret()
SECONDS, MINUTES, HOURS, DAYS = 1.0, 60.0, 3600.0, 86_400.0


@dataclass
class Receiver:
    """Answers the statuses it was given, one per request, then 204; keeps verified messages."""

    secret: str = SECRET
    port: int = 0
    answers: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)
    connections: int = 0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, answers wait until it is set."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a request has come."""

    def __post_init__(self) -> None:
        self.answering.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers in self.headers]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._answered(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.headers.append(headers)
        self.messages.append(verified(self.secret, body, headers))
        self.asked.set()
        answer = self.answers.pop(0) if self.answers else "204 No Content"
        await self.answering.wait()
        if answer is None:
            return False
        if answer:
            writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
        return True


def verified(secret: str, body: bytes, headers: dict[str, str]) -> Any:
    """Check with the reference library; when the test has moved the clock, all but the age."""
    reference, sent_at = Webhook(secret), int(headers["webhook-timestamp"])
    if abs(time.time() - sent_at) < 60:
        return reference.verify(body, headers)
    moment = datetime.datetime.fromtimestamp(sent_at, datetime.UTC)
    signature = reference.sign(headers["webhook-id"], moment, body.decode())
    assert signature in headers["webhook-signature"].split(" ")
    return json.loads(body)


@asynccontextmanager
async def receiving(*answers: str | None) -> AsyncIterator[Receiver]:
    """A receiver; answers are ``STATUS REASON`` with further headers, ``None`` hangs up, empty stays silent."""
    receiver = Receiver(answers=list(answers))
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await receiver.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


class TimedWebhooks(Webhooks):
    """The provider with a clock that stands still until it is moved."""

    now = 0.0

    def _now(self) -> float:
        return round(self.now, 6)

    def pass_time(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 6)


@asynccontextmanager
async def opened(open_context: OpenContext, url: str | None = None, **config: Any) -> AsyncIterator[TimedWebhooks]:
    """An open provider; with ``url`` it has a configured endpoint."""
    configured = {} if url is None else {"url": url, "secret": SECRET}
    provider = TimedWebhooks(configured | config, open_context)
    provider.now = round(time.time(), 6)
    await provider.open()
    try:
        yield provider
    finally:
        await provider.close()


def submitted(**fields: Any) -> contract.TriggerRequest:
    return contract.TriggerRequest(name="order.submitted", **fields)
