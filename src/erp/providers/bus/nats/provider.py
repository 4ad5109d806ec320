"""Events in a JetStream stream, delivered to groups by its consumers."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar
from urllib.parse import quote, unquote

import msgspec

from erp.contracts.models.bus import (
    AckRequest,
    AckResult,
    CloudEvent,
    Delivery,
    DiscardDeadLettersRequest,
    DiscardDeadLettersResult,
    LagRequest,
    LagResult,
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
from erp.providers.bus.nats.channel import Channel, Refused
from erp.providers.bus.nats.dead import Corpse, DeadLetters, event_of
from erp.providers.bus.nats.groups import Groups, Place
from erp.providers.bus.nats.names import Names, lane, message_id
from erp.providers.bus.nats.receipts import USUAL_VISIBILITY_SECONDS, Receipt, Receipts
from erp.providers.bus.nats.stream import Ack, EventStream, New
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

if TYPE_CHECKING:
    from nats.aio.msg import Msg

T = TypeVar("T")

STREAM_BATCH = 50
WAIT_SECONDS = 20.0
SILENCE_SECONDS, MAX_SILENCES = 1.0, 5
KEY, POSITION = "Erp-Key", "Erp-Position"
ACK, TERM = b"+ACK", b"+TERM"


class NatsBus:
    """Translates the contract to one stream per connection and consumers per group."""

    translate: ClassVar[ErrorTable] = {Refused: ErrorCode.UNAVAILABLE}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._names = Names(config.get("prefix", "erp"), context.tenant, context.connection)
        self._max_deliveries: int = config.get("max_deliveries", 10)
        self._channel = Channel(config)
        self._stream = EventStream(self._channel, self._names, config)
        self._groups = Groups(self._channel, self._names, self._stream)
        self._dead = DeadLetters(self._names, self._stream)
        self._receipts = Receipts()

    async def open(self) -> None:
        await self._stream.open()

    async def close(self) -> None:
        await self._channel.close()

    async def health(self) -> Health:
        """Ask JetStream for the stream."""
        started = time.perf_counter()
        try:
            await self._stream.facts()
        except (ProviderError, Refused) as error:
            return Health(status="down", latency_ms=_milliseconds(started), message=str(error))
        return Health(status="ok", latency_ms=_milliseconds(started))

    # -- publishing ------------------------------------------------------------------------------

    async def publish(self, request: PublishRequest, context: CallContext) -> PublishResult:  # noqa: ARG002
        ack = await self._stream.publish(self._new(request.topic, request.event, request.key))
        return PublishResult(position=str(ack.seq), duplicate=ack.duplicate)

    async def publish_batch(self, request: PublishBatchRequest, context: CallContext) -> PublishBatchResult:  # noqa: ARG002
        batch = [self._new(request.topic, item.event, item.key) for item in request.events]
        acks: Sequence[Ack] = await self._stream.publish_batch(batch)
        return PublishBatchResult(published=[Published(position=str(ack.seq), duplicate=ack.duplicate) for ack in acks])

    def _new(self, topic: str, event: CloudEvent, key: str | UnsetType) -> New:
        if event.time is UNSET:
            event.time = datetime.datetime.now(datetime.UTC)
        headers = {} if isinstance(key, UnsetType) else {KEY: quote(key)}
        way = lane(None if isinstance(key, UnsetType) else key, self._stream.lanes)
        self._groups.note(topic, way)
        return New(self._names.event(topic, way), cloudevents.encode(event), message_id(topic, event.id), headers)

    # -- receiving -------------------------------------------------------------------------------

    async def pull(self, request: PullRequest, context: CallContext) -> PullResult:
        place = Place(request.topic, request.group)
        await self._groups.ensure(place, from_earliest=request.start == "earliest")
        ends = time.monotonic() + min(request.wait_seconds, max(context.remaining_seconds() - 0.5, 0.0))
        given = await self._taken(place, self._groups.fetch(place, request.max_events), request, context)
        while not given and (left := ends - time.monotonic()) > 0:
            given = await self._taken(place, self._groups.wait(place, request.max_events, left), request, context)
        return PullResult(deliveries=given)

    async def subscribe(self, request: SubscribeRequest, context: CallContext) -> AsyncGenerator[SubscribeResult]:
        place = Place(request.topic, request.group)
        await self._groups.ensure(place, from_earliest=request.start == "earliest")
        while True:
            expires_at = time.monotonic() + request.visibility_seconds
            upcoming = await self._taken(place, self._groups.wait(place, STREAM_BATCH, WAIT_SECONDS), request, context)
            upcoming.reverse()
            try:
                while upcoming and time.monotonic() < expires_at:
                    yield SubscribeResult(**msgspec.structs.asdict(upcoming.pop()))
            finally:
                if upcoming:
                    self._channel.later(self._unseen(upcoming))

    async def _unseen(self, deliveries: Iterable[Delivery]) -> None:
        """Have what was taken ahead delivered again."""
        receipts = self._receipts.take([one.ack_id for one in deliveries])
        self._receipts.use(receipts)
        for receipt in receipts:
            await self._channel.publish(receipt.subject(self._names.stream), b"-NAK")

    async def _taken(
        self,
        place: Place,
        messages: Awaitable[list[Msg]],
        request: PullRequest | SubscribeRequest,
        context: CallContext,
    ) -> list[Delivery]:
        """Hand on what was fetched; what was delivered too often is set aside."""
        found = await messages
        given: list[tuple[Receipt, Delivery]] = []
        try:
            for message in found:
                receipt = Receipt.of_reply(message.reply, request.visibility_seconds)
                if receipt.deliveries > self._max_deliveries:
                    await self._bury(place, receipt, message.data, message.headers or {}, None, context)
                    continue
                given.append((receipt, _delivery(place.topic, receipt, message)))
                if request.visibility_seconds != USUAL_VISIBILITY_SECONDS:
                    # An event given back with a delay stays with its consumer until then: that is its visibility.
                    await self._channel.publish(message.reply, _later(request.visibility_seconds))
        except BaseException:
            self._channel.later(self._groups.put_back(found))
            raise
        return [delivery for _, delivery in sorted(given, key=lambda one: one[0].seq)]

    async def ack(self, request: AckRequest, context: CallContext) -> AckResult:  # noqa: ARG002
        taken = self._receipts.take(request.ack_ids)
        return AckResult(acknowledged=await self._used(taken, self._settled([(one, ACK) for one in taken])))

    async def nack(self, request: NackRequest, context: CallContext) -> NackResult:
        taken = self._receipts.take(request.ack_ids)
        reason = None if request.reason is UNSET else request.reason
        last = [one for one in taken if one.deliveries >= self._max_deliveries]
        others = [(one, _later(request.delay_seconds)) for one in taken if one.deliveries < self._max_deliveries]

        async def work() -> int:
            buried = [await self._bury_by_receipt(one, reason, context) for one in last]
            return sum(buried) + await self._settled(others)

        return NackResult(returned=await self._used(taken, work()))

    async def _used(self, receipts: list[Receipt], work: Awaitable[int]) -> int:
        """Use receipts up, unless the work they are for fails."""
        self._receipts.use(receipts)
        try:
            return await work
        except BaseException:
            self._receipts.give_back(receipts)
            raise

    async def _settled(self, answers: Sequence[tuple[Receipt, bytes]]) -> int:
        """Answer JetStream for each delivery, and wait until it knows; return how many it took.

        A consumer takes answers one after the other: the last one's confirmation is good for all before it.
        """
        by_consumer: dict[tuple[str, str], list[tuple[Receipt, bytes]]] = {}
        for receipt, answer in sorted(answers, key=lambda one: one[0].seq):
            by_consumer.setdefault((receipt.consumer, receipt.lane), []).append((receipt, answer))
        counts = await asyncio.gather(*map(self._settled_in_order, by_consumer.values()))
        return sum(counts)

    async def _settled_in_order(self, answers: Sequence[tuple[Receipt, bytes]]) -> int:
        await self._channel.client()
        version = self._channel.version
        for receipt, answer in answers[:-1]:
            await self._channel.publish(receipt.subject(self._names.stream), answer)
        last, answer = answers[-1]
        asking = asyncio.ensure_future(self._channel.is_answered(last.subject(self._names.stream), answer))
        try:
            for _ in range(MAX_SILENCES):
                await asyncio.wait([asking], timeout=SILENCE_SECONDS)
                if asking.done():
                    break
                # JetStream is silent about what the group has yet to be given, since it was moved back.
                reached = await self._groups.reached(last.consumer, last.lane)
                if last.seq > reached:
                    return sum(receipt.seq <= reached for receipt, _ in answers)
            else:
                message = "NATS does not confirm the acknowledgement; repeat it."
                raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)
            if not await asking:
                return 0  # there is no such consumer, of this tenant at least
        finally:
            asking.cancel()
        if version != self._channel.version:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The connection to NATS broke.", retry_after_seconds=1.0)
        return len(answers)

    # -- dead letters ----------------------------------------------------------------------------

    async def _bury_by_receipt(self, receipt: Receipt, reason: str | None, context: CallContext) -> bool:
        place, stored = await asyncio.gather(self._groups.place(receipt.consumer), self._stream.message(receipt.seq))
        if place is None or stored is None:  # removed meanwhile, because it was too old
            return await self._settled([(receipt, TERM)]) == 1
        await self._bury(place, receipt, stored.body, stored.headers, reason, context)
        return True

    async def _bury(
        self,
        place: Place,
        receipt: Receipt,
        body: bytes,
        headers: object,
        reason: str | None,
        context: CallContext,
    ) -> None:
        kept = {name: value for name, value in dict(headers).items() if name in {KEY, POSITION}}  # type: ignore[call-overload]
        position = kept.setdefault(POSITION, str(receipt.seq))
        deliveries = min(receipt.deliveries, self._max_deliveries)
        event = event_of(body, position)
        corpse = Corpse(
            topic=place.topic,
            group=place.group,
            lane=receipt.lane,
            position=position,
            deliveries=deliveries,
            event=msgspec.Raw(body),
            headers=kept,
            reason=reason,
        )
        is_new = await self._dead.bury(corpse, f"{receipt.consumer}-{receipt.lane}.{receipt.seq}")
        await self._settled([(receipt, TERM)])
        if is_new:
            facts = {"topic": place.topic, "group": place.group, "event_id": event.id, "deliveries": deliveries}
            context.emit("dead_lettered", facts)

    async def list_dead_letters(self, request: ListDeadLettersRequest, context: CallContext) -> ListDeadLettersResult:  # noqa: ARG002
        after = _position(request.cursor, "/params/cursor") if request.cursor is not UNSET else 0
        topic = None if request.topic is UNSET else request.topic
        group = None if request.group is UNSET else request.group
        found = await self._dead.page(topic, group, after, request.limit + 1)
        result = ListDeadLettersResult(items=found[: request.limit])
        if len(found) > request.limit:
            result.next_cursor = result.items[-1].id
        return result

    async def requeue_dead_letters(
        self,
        request: RequeueDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> RequeueDeadLettersResult:
        found = [await self._dead.requeue(one) for one in dict.fromkeys(request.ids)]
        for place, way in filter(None, found):
            self._groups.note(place.topic, way)
        return RequeueDeadLettersResult(requeued=sum(one is not None for one in found))

    async def discard_dead_letters(
        self,
        request: DiscardDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> DiscardDeadLettersResult:
        return DiscardDeadLettersResult(
            discarded=sum([await self._dead.discard(one) for one in dict.fromkeys(request.ids)])
        )

    # -- where a group is ------------------------------------------------------------------------

    async def replay(self, request: ReplayRequest, context: CallContext) -> ReplayResult:  # noqa: ARG002
        if (request.from_time is UNSET) == (request.from_position is UNSET):
            error = FieldError("/params/from_time", "Give from_time or from_position, one of them.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Say where to replay from.", errors=[error])
        if request.from_time is UNSET:
            target = _position(request.from_position, "/params/from_position")
        else:
            target = await self._before(request.topic, request.from_time)
        await self._groups.move(Place(request.topic, request.group), target)
        return ReplayResult(position=str(target))

    async def _before(self, topic: str, moment: datetime.datetime) -> int:
        """Return the position before the first event published since ``moment``."""
        found = await self._stream.read(self._names.event(topic, "*"), limit=1, since=moment)
        return found[0].seq - 1 if found else (await self._stream.facts()).state.last_seq

    async def lag(self, request: LagRequest, context: CallContext) -> LagResult:  # noqa: ARG002
        place = Place(request.topic, request.group)
        found = await self._groups.facts(place)
        if not found:
            return await self._lag_of_new(request.topic)
        oldest = [
            self._stream.read(subject, limit=1, after=facts.ack_floor.stream_seq)
            for way, facts in found
            if facts.num_pending or facts.num_ack_pending
            for subject in (self._names.event(place.topic, way), self._names.requeued(*place, way))
        ]
        moments = [stored.time for one in await asyncio.gather(*oldest) for stored in one]
        waiting, open_ = sum(one.num_pending for _, one in found), sum(one.num_ack_pending for _, one in found)
        return LagResult(waiting=waiting, unacknowledged=open_, oldest_seconds=_age(moments))

    async def _lag_of_new(self, topic: str) -> LagResult:
        subjects = self._names.event(topic, "*")
        facts, oldest = await asyncio.gather(self._stream.facts(subjects), self._stream.read(subjects, limit=1))
        waiting = sum(facts.state.subjects.values())
        return LagResult(waiting=waiting, unacknowledged=0, oldest_seconds=_age([one.time for one in oldest]))


def _delivery(topic: str, receipt: Receipt, message: Msg) -> Delivery:
    headers = message.headers or {}
    position = headers.get(POSITION, str(receipt.seq))
    return Delivery(
        ack_id=str(receipt),
        topic=topic,
        position=position,
        key=unquote(headers[KEY]) if KEY in headers else UNSET,
        event=event_of(message.data, position),
        delivery=receipt.deliveries,
    )


def _later(seconds: float) -> bytes:
    return b'-NAK {"delay": %d}' % int(seconds * 10**9) if seconds else b"-NAK"


def _position(text: str | UnsetType, pointer: str) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19:  # noqa: PLR2004  (digits of a 64-bit number)
        return int(text)
    error = FieldError(pointer, "Use a value that this provider gave, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A position is not valid.", errors=[error])


def _age(moments: Sequence[datetime.datetime]) -> float | UnsetType:
    if not moments:
        return UNSET
    return max((datetime.datetime.now(datetime.UTC) - min(moments)).total_seconds(), 0.0)


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
