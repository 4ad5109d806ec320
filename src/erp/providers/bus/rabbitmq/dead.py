"""Events that were delivered too often: one quorum queue per connection, looked through from its beginning.

RabbitMQ itself moves a message there that was returned too often, with what it knows (``x-death``); the provider
moves one there whose last consumer said why.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from erp.contracts.models.bus import CloudEvent, DeadLetter
from erp.providers.bus.rabbitmq.link import Link
from erp.providers.bus.rabbitmq.topology import Names, Place, copied, position_of
from erp.runtime.spi import UNSET
from erp.vendor_clients import cloudevents

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage

GROUP, DIED_AT, REASON, DELIVERIES = "erp-dead-of", "erp-died-at", "erp-reason", "erp-deliveries"
MOST = 10_000
"""How many are looked at; those behind them are seen when some of these are gone."""


class DeadLetters:
    """Sets events aside, lists them, gives them back to their group and forgets them."""

    def __init__(self, link: Link, names: Names, max_deliveries: int) -> None:
        self._link = link
        self._names = names
        self._max_deliveries = max_deliveries

    async def bury(self, queue: str, message: AbstractIncomingMessage, deliveries: int, reason: str | None) -> None:
        """Keep a dead event with the reason its last consumer gave."""
        now = datetime.datetime.now(datetime.UTC).isoformat()
        facts: dict[str, Any] = {GROUP: queue, DIED_AT: now, DELIVERIES: deliveries}
        if reason is not None:
            facts[REASON] = reason
        await self._link.publish(copied(message, **facts), queue=self._names.dead)

    @contextlib.asynccontextmanager
    async def _all(self) -> AsyncIterator[list[AbstractIncomingMessage]]:
        """Have all dead messages; those that are not confirmed go back. Nobody else looks meanwhile."""
        async with self._link.lock(f"{self._names.dead}:lock"), self._link.channel() as channel:
            queue = await channel.get_queue(self._names.dead, ensure=False)
            found: list[AbstractIncomingMessage] = []
            while len(found) < MOST and (message := await queue.get(fail=False)) is not None:
                found.append(message)
            yield found
            # Whoever closes the channel must know that RabbitMQ has read the confirmations before it.
            await channel.set_qos(prefetch_count=0)

    async def page(self, topic: str | None, group: str | None) -> list[DeadLetter]:
        """Return the dead letters of a topic or group, or all of them, by position and id."""
        async with self._all() as found:
            letters = [self._letter(message) for message in found]
        wanted = (one for one in letters if topic in {None, one.topic} and group in {None, one.group})
        return sorted(wanted, key=lambda one: one.id)

    async def requeue(self, ids: set[str]) -> int:
        """Deliver dead events to their groups again; return how many there were."""
        count = 0
        async with self._all() as found:
            for message in found:
                if self._letter(message).id in ids:
                    # Killed after this, it is delivered and still listed.
                    await self._link.publish(self._living(message), queue=self._queue(message))
                    await message.ack()
                    count += 1
        return count

    async def discard(self, ids: set[str]) -> int:
        """Forget dead events; return how many there were."""
        count = 0
        async with self._all() as found:
            for message in found:
                if self._letter(message).id in ids:
                    await message.ack()
                    count += 1
        return count

    @staticmethod
    def _living(message: AbstractIncomingMessage) -> Any:
        made = copied(message)
        for name in (GROUP, DIED_AT, REASON, DELIVERIES):
            made.headers.pop(name, None)
        return made

    def _queue(self, message: AbstractIncomingMessage) -> str:
        return str(message.headers.get(GROUP) or _death(message)["queue"])

    def _letter(self, message: AbstractIncomingMessage) -> DeadLetter:
        headers = message.headers
        place: Place = self._names.place(self._queue(message))
        position = str(position_of(message) or message.message_id or "0")
        died_at = (
            datetime.datetime.fromisoformat(str(headers[DIED_AT])) if DIED_AT in headers else _death(message)["time"]
        )
        sign = hashlib.blake2b(f"{place}{position}{message.message_id}".encode(), digest_size=6).hexdigest()
        return DeadLetter(
            id=f"{position:0>20}-{sign}",
            topic=place.topic,
            group=place.group,
            position=position,
            event=event_of(message.body, position),
            deliveries=int(str(headers.get(DELIVERIES, self._max_deliveries))),
            died_at=died_at,
            reason=str(headers[REASON]) if REASON in headers else UNSET,
        )


def _death(message: AbstractIncomingMessage) -> dict[str, Any]:
    """Return what RabbitMQ has noted when it moved the message."""
    deaths: Any = message.headers["x-death"]
    return dict(deaths[0])


def event_of(body: bytes, position: str) -> CloudEvent:
    """Return the event of a message; what is not a CloudEvent is handed on as data of one that says so."""
    try:
        return cloudevents.decode(body)
    except ValueError:
        data: Any = body.decode(errors="replace")
        return CloudEvent(id=position, source="urn:rabbitmq", type="undecodable", data=data)
