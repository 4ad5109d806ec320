"""Events in RabbitMQ: a stream keeps those of a topic, a quorum queue holds those of a group."""

from __future__ import annotations

import asyncio
import datetime
import time
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
from erp.providers.bus.rabbitmq.dead import DeadLetters, event_of
from erp.providers.bus.rabbitmq.holding import Held, Holding
from erp.providers.bus.rabbitmq.link import LOOK_SECONDS, Link
from erp.providers.bus.rabbitmq.topology import NANOSECONDS, POSITION, Names, Place, Topology, position_of
from erp.providers.bus.rabbitmq.wire import unavailable
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
    UnsetType,
)
from erp.vendor_clients import cloudevents

KEY = "erp-key"
STREAM_BATCH = 20


class RabbitBus:
    """Translates the contract to exchanges, queues and streams of AMQP 0-9-1."""

    translate: ClassVar[ErrorTable] = {OSError: ErrorCode.UNAVAILABLE}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._max_deliveries: int = config.get("max_deliveries", 10)
        names = Names(config.get("prefix", "erp"), context.tenant, context.connection)
        self._names = names
        self._link = Link(config)
        self._topology = Topology(self._link, names, config)
        self._dead = DeadLetters(self._link, names, self._max_deliveries)
        self._holding = Holding(self._lapsed)
        self._died: dict[Place, list[dict[str, Any]]] = {}
        self._last = 0

    async def open(self) -> None:
        await self._link.publishing()
        await self._topology.open()

    async def close(self) -> None:
        try:
            await self._holding.close()
            await self._topology.close()
        finally:  # also when the time for it is over
            await self._link.close()

    async def health(self) -> Health:
        """Ask RabbitMQ for the queue of dead letters."""
        started = time.perf_counter()
        try:
            is_there = await self._link.exists(self._names.dead)
        except (ProviderError, OSError) as error:
            return Health(status="down", latency_ms=_milliseconds(started), message=str(error))
        message = UNSET if is_there else "The queue of dead letters is gone; open the connection again."
        name, version = self._link.server
        server = Dependency(name=name, status="ok", version=version or UNSET)
        return Health(
            status="ok" if is_there else "degraded",
            latency_ms=_milliseconds(started),
            message=message,
            dependencies=[server],
        )

    # -- publishing ------------------------------------------------------------------------------

    async def publish(self, request: PublishRequest, context: CallContext) -> PublishResult:  # noqa: ARG002
        await self._topology.topic(request.topic)
        position = await self._publish(request.topic, request.event, request.key, self._next())
        return PublishResult(position=position, duplicate=False)

    async def publish_batch(self, request: PublishBatchRequest, context: CallContext) -> PublishBatchResult:  # noqa: ARG002
        await self._topology.topic(request.topic)
        made = [self._publish(request.topic, item.event, item.key, self._next()) for item in request.events]
        # Written in their order, confirmed together.
        positions = whole(await asyncio.gather(*made, return_exceptions=True))
        return PublishBatchResult(published=[Published(position=one, duplicate=False) for one in positions])

    async def _publish(self, topic: str, event: CloudEvent, key: str | UnsetType, position: int) -> str:
        from aio_pika import DeliveryMode, Message

        if event.time is UNSET:
            event.time = datetime.datetime.now(datetime.UTC)
        headers: dict[str, Any] = {POSITION: str(position)}
        if not isinstance(key, UnsetType):
            headers[KEY] = key
        # Without message_id: aiormq finds what is returned by it, and the same event may be under way twice.
        message = Message(
            cloudevents.encode(event),
            headers=headers,
            content_type=cloudevents.CONTENT_TYPE,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await self._link.publish_to_stream(message, self._names.stream(topic), exchange=self._names.exchange(topic))
        return str(position)

    def _next(self) -> int:
        """Return a position: the time in nanoseconds, and always more than the last."""
        self._last = max(time.time_ns(), self._last + 1)
        return self._last

    # -- receiving -------------------------------------------------------------------------------

    async def pull(self, request: PullRequest, context: CallContext) -> PullResult:
        place = Place(request.topic, request.group)
        queue = await self._topology.group(place, from_earliest=request.start == "earliest")
        ends = time.monotonic() + min(request.wait_seconds, max(context.remaining_seconds() - 0.5, 0.0))
        while True:
            given = await self._taken(place, queue, request.max_events, request.visibility_seconds)
            self._announce(place, context)
            if given or time.monotonic() >= ends:
                return PullResult(deliveries=given)
            await asyncio.sleep(LOOK_SECONDS)

    async def subscribe(self, request: SubscribeRequest, context: CallContext) -> AsyncGenerator[SubscribeResult]:
        place = Place(request.topic, request.group)
        queue = await self._topology.group(place, from_earliest=request.start == "earliest")
        while True:
            upcoming = await self._taken(place, queue, STREAM_BATCH, request.visibility_seconds)
            self._announce(place, context)
            upcoming.reverse()
            try:
                while upcoming:
                    yield SubscribeResult(**msgspec.structs.asdict(upcoming.pop()))
            finally:
                for held in self._holding.take([one.ack_id for one in upcoming], self._link.version):
                    self._holding.later(0, held)
            await asyncio.sleep(LOOK_SECONDS)

    async def _taken(self, place: Place, queue: str, limit: int, seconds: float) -> list[Delivery]:
        from aio_pika.exceptions import AMQPError

        given: list[Delivery] = []
        try:
            channel = await self._link.receiving()
            version = self._link.version
            source = await channel.get_queue(queue, ensure=False)
            while len(given) < limit and (message := await source.get(fail=False)) is not None:
                deliveries = int(str(message.headers.get("x-delivery-count", 0))) + 1
                receipt = self._holding.hold(Held(message, place, deliveries, version), seconds)
                given.append(_delivery(place.topic, receipt, message, deliveries))
        except BaseException as error:
            for held in self._holding.take([one.ack_id for one in given], self._link.version):
                self._holding.later(0, held)
            if isinstance(error, AMQPError | RuntimeError):
                raise unavailable("The connection to RabbitMQ broke.", repr(error)) from error
            raise
        return given

    def _announce(self, place: Place, context: CallContext) -> None:
        for facts in self._died.pop(place, ()):
            context.emit("dead_lettered", facts)

    async def _lapsed(self, held: Held) -> None:
        """Give back what its consumer did not confirm in time; after the last time RabbitMQ sets it aside."""
        if await self._returned(held) and held.deliveries >= self._max_deliveries:
            self._died.setdefault(held.place, []).append(self._facts(held))

    @staticmethod
    async def _returned(held: Held) -> bool:
        from aio_pika.exceptions import AMQPError

        try:
            await held.message.nack(requeue=True)
        except (AMQPError, OSError, RuntimeError):  # with the channel it has gone back by itself
            return False
        return True

    def _facts(self, held: Held) -> dict[str, Any]:
        event = event_of(held.message.body, str(position_of(held.message)))
        return {
            "topic": held.place.topic,
            "group": held.place.group,
            "event_id": event.id,
            "deliveries": held.deliveries,
        }

    async def ack(self, request: AckRequest, context: CallContext) -> AckResult:  # noqa: ARG002
        taken = self._holding.take(request.ack_ids, self._link.version)
        return AckResult(acknowledged=await self._acknowledge(taken))

    async def _acknowledge(self, taken: Sequence[Held]) -> int:
        """Confirm messages and wait until RabbitMQ has read it; 0 when the channel broke: they come again."""
        from aio_pika.exceptions import AMQPError

        if not taken:
            return 0
        try:
            for held in taken:
                await held.message.ack()
            await self._settled(taken)
        except (AMQPError, OSError, RuntimeError):
            return 0
        return len(taken)

    @staticmethod
    async def _settled(taken: Sequence[Held]) -> None:
        """A channel is read in order: what answers now has read what was sent before."""
        await taken[-1].message.channel.basic_qos(prefetch_count=0)

    async def nack(self, request: NackRequest, context: CallContext) -> NackResult:
        taken = self._holding.take(request.ack_ids, self._link.version)
        reason = None if request.reason is UNSET else request.reason
        returned = 0
        for held in taken:
            if held.deliveries >= self._max_deliveries:
                await self._dead.bury(self._names.queue(held.place), held.message, held.deliveries, reason)
                returned += await self._acknowledge([held])
                context.emit("dead_lettered", self._facts(held))
            elif request.delay_seconds:
                self._holding.later(request.delay_seconds, held)
                returned += 1
            else:
                returned += await self._returned(held)
        return NackResult(returned=returned)

    # -- dead letters ----------------------------------------------------------------------------

    async def list_dead_letters(self, request: ListDeadLettersRequest, context: CallContext) -> ListDeadLettersResult:  # noqa: ARG002
        topic = None if request.topic is UNSET else request.topic
        group = None if request.group is UNSET else request.group
        after = "" if request.cursor is UNSET else request.cursor
        found = [one for one in await self._dead.page(topic, group) if one.id > after]
        result = ListDeadLettersResult(items=found[: request.limit])
        if len(found) > request.limit:
            result.next_cursor = result.items[-1].id
        return result

    async def requeue_dead_letters(
        self,
        request: RequeueDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> RequeueDeadLettersResult:
        return RequeueDeadLettersResult(requeued=await self._dead.requeue(set(request.ids)))

    async def discard_dead_letters(
        self,
        request: DiscardDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> DiscardDeadLettersResult:
        return DiscardDeadLettersResult(discarded=await self._dead.discard(set(request.ids)))

    # -- where a group is ------------------------------------------------------------------------

    async def replay(self, request: ReplayRequest, context: CallContext) -> ReplayResult:  # noqa: ARG002
        if (request.from_time is UNSET) == (request.from_position is UNSET):
            error = FieldError("/params/from_time", "Give from_time or from_position, one of them.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "Say where to replay from.", errors=[error])
        place = Place(request.topic, request.group)
        target = _target(request)
        await self._topology.move(place, target)
        await self._acknowledge(self._holding.take(self._holding.of(place), self._link.version))
        return ReplayResult(position=str(target))


def _target(request: ReplayRequest) -> int:
    if not isinstance(request.from_time, UnsetType):
        return int(request.from_time.timestamp() * NANOSECONDS) - 1
    text = str(request.from_position)
    if text.isascii() and text.isdigit() and len(text) < 20:  # noqa: PLR2004  (digits of a 64-bit number)
        return int(text)
    error = FieldError("/params/from_position", "Use a value that this provider gave, unchanged.")
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A position is not valid.", errors=[error])


def _delivery(topic: str, receipt: str, message: Any, deliveries: int) -> Delivery:
    position = str(position_of(message) or receipt)
    return Delivery(
        ack_id=receipt,
        topic=topic,
        position=position,
        key=str(message.headers[KEY]) if KEY in message.headers else UNSET,
        event=event_of(message.body, position),
        delivery=deliveries,
    )


def whole(outcomes: Sequence[str | BaseException]) -> list[str]:
    """Return the positions of a batch.

    Raises:
        ProviderError: What all of its events failed with; ``outcome_unknown`` when some are published and some are not.
    """
    failures = [one for one in outcomes if isinstance(one, BaseException)]
    if not failures:
        return [str(one) for one in outcomes]
    for failure in failures:
        if not isinstance(failure, ProviderError) or failure.code is ErrorCode.OUTCOME_UNKNOWN:
            raise failure
    if len(failures) == len(outcomes):
        raise failures[0]
    message = "A part of the batch was published, RabbitMQ did not take the rest."
    raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=str(failures[0])) from failures[0]


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
