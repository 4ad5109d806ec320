"""What the queues are called, how they are made, and how a group gets what was published before it was there.

A topic is an exchange and a stream that keeps what was published; a group is a quorum queue bound to the exchange.
Sources: https://www.rabbitmq.com/docs/quorum-queues, https://www.rabbitmq.com/docs/streams (feature names and arguments).
"""

from __future__ import annotations

import asyncio
import datetime
import re
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from erp.providers.bus.rabbitmq.link import MARKER, Link
from erp.providers.bus.rabbitmq.wire import unavailable
from erp.runtime.spi import Config, ErrorCode, FieldError, ProviderError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage
    from pamqp.common import FieldTable

POSITION = "erp-position"
LONGEST_NAME = 255
AHEAD = 200
CLOCK_SLACK = datetime.timedelta(minutes=5)
NANOSECONDS = 10**9
SILENCE_SECONDS = 5.0
"""A stream whose node starts again may take a consumer and deliver nothing."""
SETTLE_SECONDS = 1.2
"""How long a node may take to write down which queues it has: its register saves itself in the second half-second
after the last change (``auto_save`` of ``dets``). Killed before, it starts a new quorum queue empty, whatever that
has confirmed, and knows no stream if this was its first (seen with RabbitMQ 3.10.8)."""


class Place(NamedTuple):
    """A group of a topic."""

    topic: str
    group: str


class Names:
    """The names of one connection of one tenant."""

    def __init__(self, prefix: str, tenant: str, connection: str) -> None:
        self.root = ":".join(map(_word, (prefix, tenant, connection)))

    def exchange(self, topic: str) -> str:
        return _short(f"{self.root}:x:{topic}", "/params/topic")

    def stream(self, topic: str) -> str:
        return _short(f"{self.root}:t:{topic}", "/params/topic")

    def queue(self, place: Place) -> str:
        return _short(f"{self.root}:g:{place.topic}:{place.group}:ready", "/params/group").removesuffix(":ready")

    @property
    def dead(self) -> str:
        return f"{self.root}:d"

    def place(self, queue: str) -> Place:
        """Return whose a queue is."""
        return Place(*queue.removeprefix(f"{self.root}:g:").split(":", 1))


def _word(text: str) -> str:
    """Return ``text`` in the letters that names may have; ``:`` stands between words, ``#XX`` for other bytes."""
    return re.sub(r"[^A-Za-z0-9_.-]", lambda found: "".join(f"#{byte:02X}" for byte in found[0].encode()), text)


def _short(name: str, pointer: str) -> str:
    if len(name.encode()) <= LONGEST_NAME:
        return name
    most = LONGEST_NAME - len(":g:::ready")
    error = FieldError(pointer, f"Prefix, tenant, connection, topic and group may have {most} characters together.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A name is too long for RabbitMQ.", errors=[error])


class Topology:
    """Makes topics and groups, once for every process and then never again."""

    def __init__(self, link: Link, names: Names, config: Config) -> None:
        self._link = link
        self._names = names
        self._age = f"{config.get('retention_seconds', 604_800)}s"
        self._returns = config.get("max_deliveries", 10) - 1
        self._topics: set[str] = set()
        self._first_stream: asyncio.Task[None] | None = None
        self._places: dict[Place, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Make the queue of dead letters."""
        async with self._link.channel() as channel:
            # Looking at dead letters returns them; nobody shall run out of looks.
            arguments: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000}
            await channel.declare_queue(self._names.dead, durable=True, arguments=arguments)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [*self._places.values(), *filter(None, [self._first_stream])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def topic(self, topic: str) -> None:
        """Make a topic where there is none."""
        if topic not in self._topics:
            stream = self._names.stream(topic)
            async with self._link.channel() as channel:
                exchange = await channel.declare_exchange(self._names.exchange(topic), "fanout", durable=True)
                arguments: FieldTable = {"x-queue-type": "stream", "x-max-age": self._age}
                queue = await channel.declare_queue(stream, durable=True, arguments=arguments)
                if not queue.declaration_result.message_count:
                    await self._link.prove(stream)
                    await self._settle_streams()
                await queue.bind(exchange)
            self._topics.add(topic)

    async def _settle_streams(self) -> None:
        """Wait until the node knows for good that it has streams, which the first that it ever made brings with it."""
        if self._first_stream is None:
            self._first_stream = asyncio.create_task(asyncio.sleep(SETTLE_SECONDS), name="bus-rabbitmq settling")
        await asyncio.shield(self._first_stream)

    async def group(self, place: Place, *, from_earliest: bool) -> str:
        """Make a group where there is none; return its queue. It is made to its end although its caller leaves."""
        task = self._places.get(place)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._make(place, from_earliest=from_earliest), name="bus-rabbitmq group")
            task.add_done_callback(_heard)
            self._places[place] = task
        await asyncio.shield(task)
        return self._names.queue(place)

    async def _make(self, place: Place, *, from_earliest: bool) -> None:
        await self.topic(place.topic)
        name = self._names.queue(place)
        ready = f"{name}:ready"
        if await self._link.exists(ready):
            return
        async with self._link.lock(f"{name}:lock"):
            if await self._link.exists(ready):
                return
            async with self._link.channel() as channel:
                queue = await channel.declare_queue(name, durable=True, arguments=self._of_group())
                await queue.purge()
                await queue.bind(self._names.exchange(place.topic))
                if from_earliest:
                    await self._refill(place, 0)
                await asyncio.sleep(SETTLE_SECONDS)
                # Only now is the group whole: one whose maker or node was killed before this is made again.
                await channel.declare_queue(ready, durable=True)

    def _of_group(self) -> FieldTable:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": self._returns,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self._names.dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    async def move(self, place: Place, position: int) -> None:
        """Have the group receive what comes after ``position``."""
        name = await self.group(place, from_earliest=True)
        async with self._link.lock(f"{name}:lock"), self._link.channel() as channel:
            await (await channel.get_queue(name, ensure=False)).purge()
            await self._refill(place, position)

    async def _refill(self, place: Place, after: int) -> None:
        """Copy what the stream holds into the group's queue, up to a marker that is written now.

        The queue is bound already: what is published meanwhile may come twice, and nothing is missed.
        """
        from aio_pika import Message

        marker = uuid.uuid4().hex
        stream, queue = self._names.stream(place.topic), self._names.queue(place)
        await self._link.publish_to_stream(Message(b"", headers={MARKER: marker}), stream)
        async with self._link.channel() as channel:
            await channel.set_qos(prefetch_count=AHEAD)
            arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
            offset: FieldTable = {"x-stream-offset": _moment(after) if after else "first"}
            # Whether a stream that is starting is there, RabbitMQ denies for some seconds.
            await (await channel.get_queue(stream, ensure=False)).consume(arrived.put, arguments=offset)
            while True:
                message = await _next(arrived)
                if message.headers.get(MARKER) == marker:
                    return
                if MARKER not in message.headers and position_of(message) > after:
                    await self._link.publish(copied(message), queue=queue)
                await message.ack()


async def _next(arrived: asyncio.Queue[AbstractIncomingMessage]) -> AbstractIncomingMessage:
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await arrived.get()
    except TimeoutError:
        raise unavailable("RabbitMQ does not deliver what the topic's stream holds.") from None


def position_of(message: AbstractIncomingMessage) -> int:
    """Return the position that the publisher gave a message; 0 for one of other publishers."""
    return int(str(message.headers.get(POSITION, 0)))


def copied(message: AbstractIncomingMessage, **headers: Any) -> Any:
    """Return a message like one that arrived, without what RabbitMQ has noted on it."""
    from aio_pika import DeliveryMode, Message

    own = {name: value for name, value in message.headers.items() if name.startswith("erp-")}
    return Message(
        message.body,
        headers={**own, **headers},
        content_type=message.content_type,
        delivery_mode=DeliveryMode.PERSISTENT,
    )


def _moment(position: int) -> datetime.datetime:
    latest = datetime.datetime.now(datetime.UTC)
    found = datetime.datetime.fromtimestamp(position / NANOSECONDS, datetime.UTC)
    return min(found, latest) - CLOCK_SLACK


def _heard(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
