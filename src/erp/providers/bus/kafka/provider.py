"""Events in Kafka: a topic for each topic, a consumer group for each group, acknowledgements of single events on top."""

from __future__ import annotations

import asyncio
import datetime
import re
import time
import zlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

import msgspec

from erp.contracts.models.bus import (
    AckRequest,
    AckResult,
    CloudEvent,
    Delivery,
    DiscardDeadLettersRequest,
    DiscardDeadLettersResult,
    ListDeadLettersRequest,
    ListDeadLettersResult,
    NackRequest,
    NackResult,
    PublishBatchRequest,
    PublishBatchResult,
    Published,
    PublishRequest,
    PublishResult,
    PullRequest,
    PullResult,
    ReplayRequest,
    ReplayResult,
    RequeueDeadLettersRequest,
    RequeueDeadLettersResult,
    SubscribeRequest,
    SubscribeResult,
)
from erp.providers.bus.kafka.cluster import MILLISECONDS, Cluster, Names, publish_failure
from erp.providers.bus.kafka.history import Corpse, DeadLetters, event_of, offsets_since, time_of
from erp.providers.bus.kafka.member import Member, Place
from erp.providers.bus.kafka.tracking import Entry
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
    UnsetType,
)
from erp.vendor_clients import cloudevents

STREAM_BATCH = 20
LOOK_SECONDS = 0.1
POSITION = "erp-position"
SINCE = "at-"
_POSITION = re.compile(r"\d{1,9}-\d{1,18}|at-\d{1,15}")


class KafkaBus:
    """Translates the contract to topics, transactions and consumer groups."""

    translate: ClassVar[ErrorTable] = {OSError: ErrorCode.UNAVAILABLE}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._max_deliveries: int = config.get("max_deliveries", 10)
        self._names = Names(config.get("prefix", "erp"), context.tenant, context.connection)
        self._cluster = Cluster(config)
        self._dead = DeadLetters(self._cluster, self._names)
        self._members: dict[Place, asyncio.Task[Member]] = {}
        self._own = zlib.crc32(str(id(self)).encode())

    async def open(self) -> None:
        await self._cluster.producer()

    async def close(self) -> None:
        members, self._members = self._members, {}
        for task in members.values():
            if not task.done():
                task.cancel()
        joined = await asyncio.gather(*members.values(), return_exceptions=True)
        await asyncio.gather(*(one.leave() for one in joined if isinstance(one, Member)), return_exceptions=True)
        await self._cluster.close()

    async def health(self) -> Health:
        """Ask Kafka for its brokers."""
        from aiokafka.errors import KafkaError

        started = time.perf_counter()
        try:
            producer = await self._cluster.producer()
            await producer.client.fetch_all_metadata()
        except (ProviderError, KafkaError) as error:
            return Health(status="down", latency_ms=_milliseconds(started), message=str(error))
        return Health(status="ok", latency_ms=_milliseconds(started))

    # -- publishing ------------------------------------------------------------------------------

    async def publish(self, request: PublishRequest, context: CallContext) -> PublishResult:  # noqa: ARG002
        from aiokafka.errors import KafkaError

        topic = self._names.events(request.topic)
        await self._cluster.topic(topic)
        producer = await self._cluster.producer()
        key, partition = await self._where(topic, request.key)
        await self._cluster.require_reached(topic, partition)
        try:
            found = await producer.send_and_wait(topic, _body(request.event), key=key, partition=partition)
        except KafkaError as error:
            raise publish_failure(error) from error
        return PublishResult(position=_position(found), duplicate=False)

    async def publish_batch(self, request: PublishBatchRequest, context: CallContext) -> PublishBatchResult:  # noqa: ARG002
        topic = self._names.events(request.topic)
        await self._cluster.topic(topic)
        placed = [(item.event, *(await self._where(topic, item.key))) for item in request.events]
        for partition in {partition for _, _, partition in placed}:
            await self._cluster.require_reached(topic, partition)
        async with self._cluster.transaction() as producer:
            sent = [
                await producer.send(topic, _body(event), key=key, partition=partition)
                for event, key, partition in placed
            ]
            found = [await one for one in sent]
        return PublishBatchResult(published=[Published(position=_position(one), duplicate=False) for one in found])

    async def _where(self, topic: str, key: str | UnsetType) -> tuple[bytes | None, int | None]:
        """Return key and partition: what has no key keeps the order of this process, in one partition."""
        if not isinstance(key, UnsetType):
            return key.encode(), None
        partitions = sorted(await (await self._cluster.producer()).partitions_for(topic))
        return None, partitions[self._own % len(partitions)]

    # -- receiving -------------------------------------------------------------------------------

    async def _member(
        self, request: PullRequest | SubscribeRequest | ReplayRequest, *, earliest: bool = True
    ) -> Member:
        """Return this process's membership of a group. It joins to the end although its caller leaves."""
        place = Place(request.topic, request.group)
        task = self._members.get(place)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._joined(place, earliest=earliest), name="bus-kafka join")
            self._members[place] = task
        return await asyncio.shield(task)

    async def _joined(self, place: Place, *, earliest: bool) -> Member:
        made = Member(self._cluster, self._names, place, from_earliest=earliest)
        await made.join()
        return made

    async def pull(self, request: PullRequest, context: CallContext) -> PullResult:
        member = await self._member(request, earliest=request.start == "earliest")
        ends = time.monotonic() + min(request.wait_seconds, max(context.remaining_seconds() - 0.5, 0.0))
        while True:
            given = await self._taken(member, request.max_events, request.visibility_seconds, context)
            if given or time.monotonic() >= ends:
                return PullResult(deliveries=given)
            await asyncio.sleep(LOOK_SECONDS)

    async def subscribe(self, request: SubscribeRequest, context: CallContext) -> AsyncGenerator[SubscribeResult]:
        member = await self._member(request, earliest=request.start == "earliest")
        while True:
            upcoming = await self._taken(member, STREAM_BATCH, request.visibility_seconds, context)
            upcoming.reverse()
            try:
                while upcoming:
                    yield SubscribeResult(**msgspec.structs.asdict(upcoming.pop()))
            finally:
                for one in upcoming:  # nobody has seen them
                    if found := member.held(one.ack_id):
                        found[1].due_at = 0.0
                        found[1].deliveries -= 1
            await asyncio.sleep(LOOK_SECONDS)

    async def _taken(self, member: Member, limit: int, seconds: float, context: CallContext) -> list[Delivery]:
        await member.read(limit)
        given: list[Delivery] = []
        for partition, entry in member.due():
            if entry.deliveries >= self._max_deliveries:
                await self._bury(member, partition, entry, None, context)
            elif len(given) < limit:
                receipt, _ = member.give(partition, entry, seconds)
                given.append(_delivery(member.place.topic, receipt, entry))
        return given

    def _held(self, receipts: Sequence[str]) -> dict[Member, list[tuple[Any, Entry]]]:
        """Return what is good of these receipts, by member."""
        found: dict[Member, list[tuple[Any, Entry]]] = {}
        members = [task.result() for task in self._members.values() if task.done() and not _failed(task)]
        for receipt in dict.fromkeys(receipts):
            for member in members:
                if (held := member.held(receipt)) is not None:
                    found.setdefault(member, []).append(held)
        return found

    async def ack(self, request: AckRequest, context: CallContext) -> AckResult:  # noqa: ARG002
        held = self._held(request.ack_ids)
        for member, entries in held.items():
            await member.settle(entries)
        return AckResult(acknowledged=sum(map(len, held.values())))

    async def nack(self, request: NackRequest, context: CallContext) -> NackResult:
        reason = None if request.reason is UNSET else request.reason
        held = self._held(request.ack_ids)
        for member, entries in held.items():
            for partition, entry in entries:
                if entry.deliveries >= self._max_deliveries:
                    await self._bury(member, partition, entry, reason, context)
                else:
                    entry.due_at = time.monotonic() + request.delay_seconds
        return NackResult(returned=sum(map(len, held.values())))

    # -- dead letters ----------------------------------------------------------------------------

    async def _bury(
        self, member: Member, partition: Any, entry: Entry, reason: str | None, context: CallContext
    ) -> None:
        position = _given_position(entry)
        event = event_of(entry.record.value, position)
        corpse = Corpse(
            topic=member.place.topic,
            group=member.place.group,
            position=position,
            deliveries=entry.deliveries,
            event=msgspec.Raw(entry.record.value or b"null"),
            key=entry.key.decode(errors="replace") if entry.key is not None else None,
            reason=reason,
        )
        await self._dead.bury(corpse)
        await member.settle([(partition, entry)])
        facts = {"topic": corpse.topic, "group": corpse.group, "event_id": event.id, "deliveries": entry.deliveries}
        context.emit("dead_lettered", facts)

    async def list_dead_letters(self, request: ListDeadLettersRequest, context: CallContext) -> ListDeadLettersResult:  # noqa: ARG002
        topic = None if request.topic is UNSET else request.topic
        group = None if request.group is UNSET else request.group
        after = -1 if isinstance(request.cursor, UnsetType) else _number(request.cursor)
        found = [one for one in await self._dead.page(topic, group) if one[0] > after]
        result = ListDeadLettersResult(items=[letter for _, letter in found[: request.limit]])
        if len(found) > request.limit:
            result.next_cursor = str(found[request.limit - 1][0])
        return result

    async def requeue_dead_letters(
        self,
        request: RequeueDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> RequeueDeadLettersResult:
        return RequeueDeadLettersResult(requeued=len(await self._dead.requeue(set(request.ids))))

    async def discard_dead_letters(
        self,
        request: DiscardDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> DiscardDeadLettersResult:
        return DiscardDeadLettersResult(discarded=await self._dead.discard(set(request.ids)))

    # -- where a group is ------------------------------------------------------------------------

    async def replay(self, request: ReplayRequest, context: CallContext) -> ReplayResult:  # noqa: ARG002
        from aiokafka import TopicPartition

        if (request.from_time is UNSET) == (request.from_position is UNSET):
            error = FieldError("/params/from_time", "Give from_time or from_position, one of them.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Say where to replay from.", errors=[error])
        position = _target(request)
        member = await self._member(request)
        topics = self._names.events(request.topic), self._names.requeued(request.topic, request.group)
        producer = await self._cluster.producer()
        partitions = [TopicPartition(one, number) for one in topics for number in await producer.partitions_for(one)]
        if position.startswith(SINCE):
            moment = int(position.removeprefix(SINCE))
            await member.move(await offsets_since(self._cluster, partitions, moment))
            return ReplayResult(position=position)
        number, offset = position.split("-")
        place = TopicPartition(topics[0], int(number))
        if place not in partitions:
            raise _unknown_position()
        # Of the other partitions: what was published since the event at the position.
        targets = await offsets_since(self._cluster, partitions, await time_of(self._cluster, place, int(offset)))
        await member.move({**targets, place: int(offset) + 1})
        return ReplayResult(position=position)


def _failed(task: asyncio.Task[Member]) -> bool:
    return task.cancelled() or task.exception() is not None


def _body(event: CloudEvent) -> bytes:
    if event.time is UNSET:
        event.time = datetime.datetime.now(datetime.UTC)
    return cloudevents.encode(event)


def _position(found: Any) -> str:
    """Return in which partition a record is and where there; it grows within a partition."""
    return f"{found.partition}-{found.offset}"


def _given_position(entry: Entry) -> str:
    for name, value in entry.record.headers:
        if name == POSITION:
            return str(value.decode())
    return _position(entry.record)


def _delivery(topic: str, receipt: str, entry: Entry) -> Delivery:
    position = _given_position(entry)
    return Delivery(
        ack_id=receipt,
        topic=topic,
        position=position,
        key=entry.key.decode(errors="replace") if entry.key else UNSET,
        event=event_of(entry.record.value, position),
        delivery=entry.deliveries,
    )


def _target(request: ReplayRequest) -> str:
    if not isinstance(request.from_time, UnsetType):
        return f"at-{max(int(request.from_time.timestamp() * MILLISECONDS), 0)}"
    text = str(request.from_position)
    if text == "0":  # before everything, as with every bus
        return "at-0"
    if _POSITION.fullmatch(text):
        return text
    raise _unknown_position()


def _unknown_position() -> ProviderError:
    error = FieldError("/params/from_position", "Use a value that this provider gave, unchanged.")
    return ProviderError(ErrorCode.INVALID_ARGUMENT, "A position is not valid.", errors=[error])


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 19:  # noqa: PLR2004  (digits of a 64-bit number)
        return int(text)
    error = FieldError("/params/cursor", "Use a value that this provider gave, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A cursor is not valid.", errors=[error])


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
