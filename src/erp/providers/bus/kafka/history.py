"""Where in a topic a time is, and the dead letters, which are a topic of their own.

Dead letters are records by id in a compacted topic: taking one back is a record without content.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.bus import CloudEvent, DeadLetter
from erp.providers.bus.kafka.cluster import MILLISECONDS, Cluster, Names
from erp.runtime.spi import UNSET
from erp.vendor_clients import cloudevents

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

READ_MILLISECONDS = 200


class Corpse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is kept of a dead event."""

    topic: str
    group: str
    position: str
    deliveries: int
    event: msgspec.Raw
    key: str | None = None
    reason: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Corpse).decode


async def offsets_since(cluster: Cluster, partitions: Iterable[TopicPartition], milliseconds: int) -> dict[Any, int]:
    """Return for each partition the offset of its first record published since a time, or its end."""
    consumer = await cluster.consumer(auto_offset_reset="earliest")
    try:
        mine = list(partitions)
        consumer.assign(mine)
        starts, ends = await consumer.beginning_offsets(mine), await consumer.end_offsets(mine)
        found = await consumer.offsets_for_times(dict.fromkeys(mine, milliseconds))
        targets = {}
        for one in mine:
            known = found.get(one)
            if known is not None:
                targets[one] = known.offset
            else:  # nothing is as young, or this server does not look up times
                targets[one] = await _searched(consumer, one, (starts[one], ends[one]), milliseconds)
        return targets
    finally:
        await consumer.stop()


async def time_of(cluster: Cluster, place: TopicPartition, offset: int) -> int:
    """Return when the record at an offset was published, in milliseconds; 0 when it is gone."""
    consumer = await cluster.consumer(auto_offset_reset="earliest")
    try:
        consumer.assign([place])
        starts, ends = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
        if not starts[place] <= offset < ends[place]:
            return 0
        consumer.seek(place, offset)
        found = (await consumer.getmany(place, timeout_ms=READ_MILLISECONDS, max_records=1)).get(place)
        return int(found[0].timestamp) if found else 0
    finally:
        await consumer.stop()


async def _searched(consumer: AIOKafkaConsumer, one: TopicPartition, bounds: tuple[int, int], milliseconds: int) -> int:
    low, high = bounds
    while low < high:
        middle = (low + high) // 2
        consumer.seek(one, middle)
        found = (await consumer.getmany(one, timeout_ms=READ_MILLISECONDS, max_records=1)).get(one)
        if not found or found[0].offset >= high or found[0].timestamp >= milliseconds:
            high = middle
        else:
            low = found[0].offset + 1
    return low


class DeadLetters:
    """Sets events aside, lists them, gives them back to their group and forgets them."""

    def __init__(self, cluster: Cluster, names: Names) -> None:
        self._cluster = cluster
        self._names = names

    async def bury(self, corpse: Corpse) -> None:
        """Keep a dead event."""
        await self._cluster.topic(self._names.dead)
        producer = await self._cluster.producer()
        id_ = f"{secrets.token_hex(8)}".encode()
        await producer.send_and_wait(self._names.dead, _encode(corpse), key=id_, partition=0)

    async def _all(self) -> dict[str, Any]:
        """Return id -> record of every dead event, oldest first."""
        from aiokafka import TopicPartition

        await self._cluster.topic(self._names.dead)
        place = TopicPartition(self._names.dead, 0)
        consumer = await self._cluster.consumer(auto_offset_reset="earliest")
        found: dict[str, Any] = {}
        try:
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            while await consumer.position(place) < end:
                for record in (await consumer.getmany(place, timeout_ms=READ_MILLISECONDS)).get(place, ()):
                    id_ = (record.key or b"").decode()
                    found.pop(id_, None)
                    if record.value is not None:
                        found[id_] = record
        finally:
            await consumer.stop()
        return found

    async def page(self, topic: str | None, group: str | None) -> list[tuple[int, DeadLetter]]:
        """Return the dead letters of a topic or group, or all of them, each with its place among them."""
        letters = [(record.offset, _letter(id_, record)) for id_, record in (await self._all()).items()]
        return [one for one in letters if topic in {None, one[1].topic} and group in {None, one[1].group}]

    async def requeue(self, ids: set[str]) -> list[Corpse]:
        """Deliver dead events to their groups again, and forget them, in one transaction; return them."""
        wanted = {id_: _decode(record.value) for id_, record in (await self._all()).items() if id_ in ids}
        if wanted:
            for corpse in wanted.values():
                await self._cluster.topic(self._names.requeued(corpse.topic, corpse.group))
            async with self._cluster.transaction() as producer:
                for id_, corpse in wanted.items():
                    key = corpse.key.encode() if corpse.key is not None else None
                    headers = [("erp-position", corpse.position.encode())]
                    target = self._names.requeued(corpse.topic, corpse.group)
                    await producer.send(target, bytes(corpse.event), key=key, headers=headers)
                    await producer.send(self._names.dead, None, key=id_.encode(), partition=0)
        return list(wanted.values())

    async def discard(self, ids: set[str]) -> int:
        """Forget dead events; return how many there were."""
        wanted = [id_ for id_ in await self._all() if id_ in ids]
        producer = await self._cluster.producer()
        for id_ in wanted:
            await producer.send_and_wait(self._names.dead, None, key=id_.encode(), partition=0)
        return len(wanted)


def event_of(body: bytes | None, position: str) -> CloudEvent:
    """Return the event of a record; what is not a CloudEvent is handed on as data of one that says so."""
    try:
        return cloudevents.decode(body or b"")
    except ValueError:
        data: Any = (body or b"").decode(errors="replace")
        return CloudEvent(id=position, source="urn:kafka", type="undecodable", data=data)


def _letter(id_: str, record: Any) -> DeadLetter:
    corpse = _decode(record.value)
    return DeadLetter(
        id=id_,
        topic=corpse.topic,
        group=corpse.group,
        position=corpse.position,
        event=event_of(bytes(corpse.event), corpse.position),
        deliveries=corpse.deliveries,
        died_at=datetime.datetime.fromtimestamp(record.timestamp / MILLISECONDS, datetime.UTC),
        reason=UNSET if corpse.reason is None else corpse.reason,
    )
