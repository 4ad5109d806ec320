"""A durable event log with consumer groups, in one SQLite file."""

from __future__ import annotations

import contextlib
import datetime
import sqlite3
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import ClassVar

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
from erp.providers.bus.log import groups, tables
from erp.providers.bus.log.arrivals import Arrivals
from erp.providers.bus.log.writer import Append, LogWriter
from erp.runtime.spi import UNSET, CallContext, Config, ErrorTable, Health, OpenContext, ProviderError, UnsetType

FILE = "events.sqlite3"
STREAM_BATCH = 50

_encode = msgspec.json.Encoder(decimal_format="string").encode
_decode = msgspec.json.Decoder(CloudEvent).decode


class EventLog:
    """Publishing and receiving share one writer thread, whose transactions are shared by waiting calls."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._writer = LogWriter(context.data_dir / FILE)
        self._max_deliveries: int = config.get("max_deliveries", 10)
        self._retention_seconds: float = config.get("retention_seconds", 604_800)
        self._arrivals = Arrivals(self._writer.version)
        self._remind = context.remind
        self._is_reminded = False

    async def open(self) -> None:
        await self._writer.open()

    async def close(self) -> None:
        await self._arrivals.close()
        await self._writer.close()

    async def work(self, context: CallContext) -> datetime.datetime | None:  # noqa: ARG002
        """Remove what is older than the retention; come again when the next event is."""

        def work(connection: sqlite3.Connection) -> float | None:
            tables.forget(connection, self._retention_seconds)
            return tables.oldest(connection)

        oldest = await self._writer.run(work)
        if oldest is None:
            self._is_reminded = False
            return None
        return datetime.datetime.fromtimestamp(oldest + self._retention_seconds + 1, datetime.UTC)

    async def health(self) -> Health:
        """Write nothing, but go through the whole way of a write."""
        started = time.perf_counter()
        await self._writer.run(lambda connection: connection.execute("SELECT 1").fetchone())
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    async def publish(self, request: PublishRequest, context: CallContext) -> PublishResult:  # noqa: ARG002
        [(position, duplicate)] = await self._writer.run(Append([_new(request.topic, request.event, request.key)]))
        await self._announce(request.topic)
        return PublishResult(position=str(position), duplicate=duplicate)

    async def publish_batch(self, request: PublishBatchRequest, context: CallContext) -> PublishBatchResult:  # noqa: ARG002
        found = await self._writer.run(Append([_new(request.topic, item.event, item.key) for item in request.events]))
        await self._announce(request.topic)
        published = [Published(position=str(position), duplicate=duplicate) for position, duplicate in found]
        return PublishBatchResult(published=published)

    async def _announce(self, topic: str) -> None:
        """Wake who waits for the topic, and have old events removed one day."""
        self._arrivals.wake(topic)
        if not self._is_reminded:
            self._is_reminded = True
            ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self._retention_seconds + 1)
            await self._remind(ends)

    async def pull(self, request: PullRequest, context: CallContext) -> PullResult:
        until = time.monotonic() + min(request.wait_seconds, max(context.remaining_seconds() - 0.5, 0.0))
        while True:
            arrival = self._arrivals.upcoming(request.topic)
            given, due_at = await self._take(request, request.max_events, context)
            left = until - time.monotonic()
            if given or left <= 0:
                return PullResult(deliveries=[_delivery(request.topic, item) for item in given])
            await self._arrivals.wait(arrival, min(left, _until(due_at)))

    async def subscribe(self, request: SubscribeRequest, context: CallContext) -> AsyncGenerator[SubscribeResult]:
        while True:
            arrival = self._arrivals.upcoming(request.topic)
            expires_at = time.monotonic() + request.visibility_seconds
            given, due_at = await self._take(request, STREAM_BATCH, context)
            upcoming = deque(given)
            try:
                while upcoming and time.monotonic() < expires_at:
                    yield SubscribeResult(**msgspec.structs.asdict(_delivery(request.topic, upcoming.popleft())))
            finally:
                await self._put_back(request.topic, list(upcoming))
            if not given:
                await self._arrivals.wait(arrival, _until(due_at))

    async def _put_back(self, topic: str, unseen: list[tables.Taken]) -> None:
        if not unseen:
            return
        # A log that cannot be written now gives them again when their time has passed.
        with contextlib.suppress(ProviderError):
            await self._writer.run(lambda connection: tables.put_back(connection, unseen))
            self._arrivals.wake(topic)

    async def _take(
        self, request: PullRequest | SubscribeRequest, limit: int, context: CallContext
    ) -> tuple[list[tables.Taken], float | None]:
        topic, group = request.topic, request.group
        is_early = request.start == "earliest"
        bounds = tables.Bounds(limit, request.visibility_seconds, self._max_deliveries)

        def work(connection: sqlite3.Connection) -> tuple[list[tables.Taken], list[tables.Died], float | None]:
            given, died = tables.take(connection, topic, group, bounds, from_earliest=is_early)
            return given, died, None if given else tables.next_due(connection, topic, group)

        given, died, due_at = await self._writer.run(work)
        for item in died:
            facts = {"topic": topic, "group": group, "event_id": _decode(item.body).id, "deliveries": item.count}
            context.emit("dead_lettered", facts)
        return given, due_at

    async def ack(self, request: AckRequest, context: CallContext) -> AckResult:  # noqa: ARG002
        count, topics = await self._writer.run(lambda open_: groups.acknowledge(open_, request.ack_ids))
        self._arrivals.wake(*topics)
        return AckResult(acknowledged=count)

    async def nack(self, request: NackRequest, context: CallContext) -> NackResult:  # noqa: ARG002
        reason = None if request.reason is UNSET else request.reason
        count, topics = await self._writer.run(
            lambda open_: groups.give_back(open_, request.ack_ids, request.delay_seconds, reason)
        )
        self._arrivals.wake(*topics)
        return NackResult(returned=count)

    async def list_dead_letters(self, request: ListDeadLettersRequest, context: CallContext) -> ListDeadLettersResult:  # noqa: ARG002
        after = groups.position(request.cursor, "/params/cursor")
        topic = None if request.topic is UNSET else request.topic
        group = None if request.group is UNSET else request.group
        found = await self._writer.run(lambda open_: groups.dead(open_, topic, group, after, request.limit + 1))
        result = ListDeadLettersResult(items=found[: request.limit])
        if len(found) > request.limit:
            result.next_cursor = result.items[-1].id
        return result

    async def requeue_dead_letters(
        self,
        request: RequeueDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> RequeueDeadLettersResult:
        count, topics = await self._writer.run(lambda open_: groups.requeue(open_, request.ids))
        self._arrivals.wake(*topics)
        return RequeueDeadLettersResult(requeued=count)

    async def discard_dead_letters(
        self,
        request: DiscardDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> DiscardDeadLettersResult:
        discarded = await self._writer.run(lambda open_: groups.discard(open_, request.ids))
        return DiscardDeadLettersResult(discarded=discarded)

    async def replay(self, request: ReplayRequest, context: CallContext) -> ReplayResult:  # noqa: ARG002
        moved = await self._writer.run(lambda open_: groups.move(open_, request))
        self._arrivals.wake(request.topic)
        return ReplayResult(position=str(moved))

    async def lag(self, request: LagRequest, context: CallContext) -> LagResult:  # noqa: ARG002
        return await self._writer.run(lambda open_: groups.lag(open_, request.topic, request.group))


def _new(topic: str, event: CloudEvent, key: str | UnsetType) -> tables.NewEvent:
    if event.time is UNSET:
        event.time = datetime.datetime.now(datetime.UTC)
    return tables.NewEvent(topic, event.id, None if isinstance(key, UnsetType) else key, _encode(event))


def _delivery(topic: str, item: tables.Taken) -> Delivery:
    return Delivery(
        ack_id=groups.ack_id(item),
        topic=topic,
        position=str(item.position),
        key=UNSET if item.key is None else item.key,
        event=_decode(item.body),
        delivery=item.count,
    )


def _until(due_at: float | None) -> float:
    """Seconds until something becomes due again; at most a minute, in case the clock jumps."""
    return 60.0 if due_at is None else min(max(due_at - time.time(), 0.01), 60.0)
