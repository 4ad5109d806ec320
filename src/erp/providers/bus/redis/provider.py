"""An event bus on the streams of Redis or Valkey."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections import deque
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
    LagRequest,
    LagResult,
    ListDeadLettersRequest,
    ListDeadLettersResult,
    NackRequest,
    NackResult,
    NewEvent,
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
from erp.providers.bus.redis import letters, steps
from erp.providers.bus.redis.arrivals import Arrivals
from erp.runtime.spi import UNSET, CallContext, Config, ErrorCode, ErrorTable, Health, OpenContext, ProviderError
from erp.vendor_clients.redis.eviction import Eviction
from erp.vendor_clients.redis.keyspace import Keyspace
from erp.vendor_clients.redis.link import RedisLink
from erp.vendor_clients.redis.scripts import Script
from erp.vendor_clients.redis.settings import settings_of

STREAM_BATCH = 50
LOOK_SECONDS = 1.0
"""A waiting consumer looks at least as often, whatever it was told."""

_encode = msgspec.json.Encoder(decimal_format="string").encode


class RedisBus:
    """Topics are streams, groups are theirs; order, deduplication, pauses and dead letters are scripts on top."""

    translate: ClassVar[ErrorTable] = {OSError: ErrorCode.UNAVAILABLE}
    """Failures of Redis itself are translated where it is known whether the request was sent (``RedisLink``)."""

    def __init__(self, config: Config, context: OpenContext) -> None:
        settings = settings_of(config)
        self._base = Keyspace(settings.key_prefix, context.tenant, context.connection).of("b")
        self._link = RedisLink(settings)
        self._max_deliveries: int = config.get("max_deliveries", 10)
        self._retention_seconds: int = config.get("retention_seconds", 604_800)
        self._arrivals = Arrivals(lambda topics: self._link.run("HMGET", f"{self._base}n", *topics))
        self._remind = context.remind
        self._is_reminded = False

    async def open(self) -> None:
        await self._link.open()
        await Eviction(self._link, self._base).refuse("Events cannot be kept")

    async def close(self) -> None:
        await self._arrivals.close()
        await self._link.close()

    async def health(self) -> Health:
        return await self._link.health(self._base)

    async def work(self, context: CallContext) -> datetime.datetime | None:  # noqa: ARG002
        """Remove what is older than the retention; come again when the next event is."""
        oldest = await self._step(steps.FORGET, self._retention_milliseconds)
        if oldest < 0:
            self._is_reminded = False
            return None
        return datetime.datetime.fromtimestamp(oldest / 1000 + self._retention_seconds + 1, datetime.UTC)

    @property
    def _retention_milliseconds(self) -> int:
        return self._retention_seconds * 1000

    async def publish(self, request: PublishRequest, context: CallContext) -> PublishResult:  # noqa: ARG002
        [one] = await self._publish(request.topic, [NewEvent(event=request.event, key=request.key)])
        return PublishResult(position=one.position, duplicate=one.duplicate)

    async def publish_batch(self, request: PublishBatchRequest, context: CallContext) -> PublishBatchResult:  # noqa: ARG002
        return PublishBatchResult(published=await self._publish(request.topic, request.events))

    async def _publish(self, topic: str, events: Sequence[NewEvent]) -> list[Published]:
        parts = [part for one in events for part in _parts(one)]
        found = await self._step(steps.PUBLISH, topic, self._retention_milliseconds, *parts)
        self._arrivals.wake(topic)
        await self._have_removed_one_day()
        pairs = zip(found[::2], found[1::2], strict=True)
        return [Published(position=position.decode(), duplicate=known == 1) for position, known in pairs]

    async def _have_removed_one_day(self) -> None:
        if not self._is_reminded:
            self._is_reminded = True
            ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self._retention_seconds + 1)
            await self._remind(ends)

    async def pull(self, request: PullRequest, context: CallContext) -> PullResult:
        until = time.monotonic() + min(request.wait_seconds, max(context.remaining_seconds() - 0.5, 0.0))
        while True:
            arrival = self._arrivals.upcoming(request.topic)
            given, due_in = await self._take(request, request.max_events, context)
            left = until - time.monotonic()
            if given or left <= 0:
                return PullResult(deliveries=given)
            await self._arrivals.wait(arrival, min(left, due_in))

    async def subscribe(self, request: SubscribeRequest, context: CallContext) -> AsyncGenerator[SubscribeResult]:
        while True:
            arrival = self._arrivals.upcoming(request.topic)
            expires_at = time.monotonic() + request.visibility_seconds
            given, due_in = await self._take(request, STREAM_BATCH, context)
            upcoming = deque(given)
            try:
                while upcoming and time.monotonic() < expires_at:
                    yield SubscribeResult(**msgspec.structs.asdict(upcoming.popleft()))
            finally:
                await self._put_back([one.ack_id for one in upcoming])
            if not given:
                await self._arrivals.wait(arrival, due_in)

    async def _put_back(self, unseen: list[str]) -> None:
        """Make events due again that were taken and never handed on; this does not count as a delivery."""
        if not unseen:
            return
        # A Redis that cannot be reached now gives them again when their time has passed.
        with contextlib.suppress(ProviderError):
            await self._step(steps.GIVE_BACK, 0, "", 1, *letters.held(unseen))

    async def _take(
        self, request: PullRequest | SubscribeRequest, limit: int, context: CallContext
    ) -> tuple[list[Delivery], float]:
        """Return what the group is given now, and the seconds after which it is worth looking again."""
        start = "0" if request.start == "earliest" else "$"
        visible = max(1, round(request.visibility_seconds * 1000))
        bounds = (limit, visible, self._max_deliveries, start, self._retention_milliseconds)
        topic, group = request.topic, request.group
        given, died, due_in = await self._step(steps.TAKE, topic, group, *bounds, repeatable=False)
        for body, count in died:
            facts = {"topic": topic, "group": group, "event_id": letters.event_id(body), "deliveries": count}
            context.emit("dead_lettered", facts)
        seconds = LOOK_SECONDS if due_in < 0 else min(max(due_in / 1000, 0.01), LOOK_SECONDS)
        return [letters.delivery(topic, row) for row in given], seconds

    async def ack(self, request: AckRequest, context: CallContext) -> AckResult:  # noqa: ARG002
        return AckResult(acknowledged=await self._step(steps.ACKNOWLEDGE, *letters.held(request.ack_ids)))

    async def nack(self, request: NackRequest, context: CallContext) -> NackResult:  # noqa: ARG002
        pause = round(request.delay_seconds * 1000)
        reason = "" if request.reason is UNSET else request.reason
        returned = await self._step(steps.GIVE_BACK, pause, reason, 0, *letters.held(request.ack_ids))
        return NackResult(returned=returned)

    async def list_dead_letters(self, request: ListDeadLettersRequest, context: CallContext) -> ListDeadLettersResult:  # noqa: ARG002
        after = "-" if request.cursor is UNSET else f"({letters.position(request.cursor, '/params/cursor')}"
        names = ["" if name is UNSET else name for name in (request.topic, request.group)]
        found = await self._step(steps.DEAD, *names, after, request.limit + 1)
        result = ListDeadLettersResult(items=[letters.dead_letter(entry) for entry in found[: request.limit]])
        if len(found) > request.limit:
            result.next_cursor = result.items[-1].id
        return result

    async def requeue_dead_letters(
        self,
        request: RequeueDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> RequeueDeadLettersResult:
        return RequeueDeadLettersResult(requeued=await self._step(steps.REQUEUE, *letters.known(request.ids)))

    async def discard_dead_letters(
        self,
        request: DiscardDeadLettersRequest,
        context: CallContext,  # noqa: ARG002
    ) -> DiscardDeadLettersResult:
        ids = letters.known(request.ids)
        discarded = await self._link.run("XDEL", f"{self._base}x", *ids) if ids else 0
        return DiscardDeadLettersResult(discarded=discarded)

    async def replay(self, request: ReplayRequest, context: CallContext) -> ReplayResult:  # noqa: ARG002
        moved = await self._step(steps.MOVE, request.topic, request.group, *letters.target(request))
        self._arrivals.wake(request.topic)
        return ReplayResult(position=moved.decode())

    async def lag(self, request: LagRequest, context: CallContext) -> LagResult:  # noqa: ARG002
        waiting, unacknowledged, age = await self._step(steps.LAG, request.topic, request.group)
        seconds = UNSET if age < 0 else age / 1000
        return LagResult(waiting=waiting, unacknowledged=unacknowledged, oldest_seconds=seconds)

    async def _step(self, script: Script, *arguments: Any, repeatable: bool = True) -> Any:
        """Run a script; its key says to which node of a cluster it goes."""
        return await self._link.script(script, [self._base], [self._base, *arguments], repeatable=repeatable)


def _parts(new: NewEvent) -> list[Any]:
    """What ``PUBLISH`` is told of an event."""
    event: CloudEvent = new.event
    if event.time is UNSET:
        event.time = datetime.datetime.now(datetime.UTC)
    return [event.id, "" if new.key is UNSET else new.key, _encode(event)]
