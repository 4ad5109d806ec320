"""Event buses that break one rule each."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from tests.conformance.saboteur import breaks

from erp.contracts.models import bus
from erp.runtime.spi import UNSET

REF = "bus/log"


@breaks("BUS-01", ref=REF)
class DropsTheSubject:
    async def publish(self, request: Any, context: Any) -> Any:
        request.event.subject = UNSET
        return await super().publish(request, context)  # type: ignore[misc]


@breaks("BUS-02", ref=REF)
class TheSecondGroupComesTooLate:
    async def pull(self, request: Any, context: Any) -> Any:
        if request.group == "second":
            request.start = "new"
        return await super().pull(request, context)  # type: ignore[misc]


@breaks("BUS-03", ref=REF)
class DeliversTwice:
    async def pull(self, request: Any, context: Any) -> Any:
        result = await super().pull(request, context)  # type: ignore[misc]
        if request.max_events == 10 and result.deliveries:
            result.deliveries.append(result.deliveries[0])
        return result


@breaks("BUS-04", ref=REF)
class CountsWhatIsNew:
    async def ack(self, request: Any, context: Any) -> Any:
        result = await super().ack(request, context)  # type: ignore[misc]
        if len(request.ack_ids) == 2 and result.acknowledged == 0:
            result.acknowledged = 2
        return result


@breaks("BUS-05", ref=REF)
class DoesNotCount:
    async def pull(self, request: Any, context: Any) -> Any:
        result = await super().pull(request, context)  # type: ignore[misc]
        for delivery in result.deliveries:
            if request.visibility_seconds == 30 and delivery.delivery == 2 and delivery.key is UNSET:
                # The first came with another visibility: only a group that waited sees the fault.
                delivery.delivery = 1 if context.connection not in NACKED else 2
        return result

    async def nack(self, request: Any, context: Any) -> Any:
        NACKED.add(context.connection)
        return await super().nack(request, context)  # type: ignore[misc]


NACKED: set[str] = set()


@breaks("BUS-06", ref=REF, also=("BUS-30", "BUS-80"))
class TakesOldAcknowledgements:
    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.old: str | None = None
        self.newest: dict[str, str] = {}

    async def pull(self, request: Any, context: Any) -> Any:
        result = await super().pull(request, context)  # type: ignore[misc]
        if request.visibility_seconds == 0.03:
            self.old = result.deliveries[0].ack_id
        elif self.old is not None and result.deliveries:
            self.newest[self.old], self.old = result.deliveries[0].ack_id, None
        return result

    async def ack(self, request: Any, context: Any) -> Any:
        request.ack_ids = [self.newest.get(one, one) for one in request.ack_ids]
        return await super().ack(request, context)  # type: ignore[misc]


@breaks("BUS-07", ref=REF)
class BatchesAreSorted:
    async def publish_batch(self, request: Any, context: Any) -> Any:
        request.events.sort(key=lambda one: one.event.id)
        return await super().publish_batch(request, context)  # type: ignore[misc]


@breaks("BUS-08", ref=REF)
class DoesNotWait:
    async def pull(self, request: Any, context: Any) -> Any:
        if request.wait_seconds == 10:
            request.wait_seconds = 0
        return await super().pull(request, context)  # type: ignore[misc]


@breaks("BUS-09", ref=REF)
class BeginsAlwaysEarliest:
    async def pull(self, request: Any, context: Any) -> Any:
        request.start = "earliest"
        return await super().pull(request, context)  # type: ignore[misc]


class Shared:
    """All tenants use one folder for a connection."""

    def __init__(self, config: Any, context: Any) -> None:
        import dataclasses
        from pathlib import Path

        parts = [part if part != "beta" else "alpha" for part in context.data_dir.parts]
        shared = Path(*parts)
        shared.mkdir(parents=True, exist_ok=True)
        super().__init__(config, dataclasses.replace(context, data_dir=shared))


@breaks("BUS-10", ref=REF, also=("BUS-52",))
class TenantsShareTopics(Shared):
    """Its tenants meet in one log."""


@breaks("BUS-11", ref=REF)
class PositionsAreAlwaysOne:
    async def publish(self, request: Any, context: Any) -> Any:
        result = await super().publish(request, context)  # type: ignore[misc]
        if request.event.id == "e-19":
            result.position = "1"
        return result


@breaks("BUS-12", ref=REF)
class AcknowledgesWhatItHandsOut:
    async def pull(self, request: Any, context: Any) -> Any:
        result = await super().pull(request, context)  # type: ignore[misc]
        if request.wait_seconds == 5:
            await super().ack(bus.AckRequest(ack_ids=[one.ack_id for one in result.deliveries]), context)  # type: ignore[misc]
            await asyncio.sleep(0.05)
        return result


@breaks("BUS-20", ref=REF)
class BatchesRepeat:
    numbers = itertools.count()

    async def publish_batch(self, request: Any, context: Any) -> Any:
        if len(request.events) == 2:
            request.events[0].event.id += f"-{next(self.numbers)}"
        return await super().publish_batch(request, context)  # type: ignore[misc]


@breaks("BUS-21", ref=REF)
class TopicsShareTheirIds:
    async def publish(self, request: Any, context: Any) -> Any:
        result = await super().publish(request, context)  # type: ignore[misc]
        if request.topic.endswith(".other"):
            result.duplicate = True
        return result


@breaks("BUS-30", ref=REF)
class KeysMeanNothing:
    async def publish(self, request: Any, context: Any) -> Any:
        if request.key == "a":
            request.key = UNSET
        return await super().publish(request, context)  # type: ignore[misc]


@breaks("BUS-31", ref=REF)
class RedeliversBackwards:
    async def pull(self, request: Any, context: Any) -> Any:
        if request.visibility_seconds == 0.05:
            return await super().pull(request, context)  # type: ignore[misc]
        result = await super().pull(request, context)  # type: ignore[misc]
        if {one.key for one in result.deliveries} == {"k"}:
            result.deliveries.reverse()
            if len(result.deliveries) == 1 and result.deliveries[0].event.id == "e-1":
                result.deliveries[0].event.id = "e-2"
        return result


@breaks("BUS-40", ref=REF)
class GivesBackWhatItNoLongerHas:
    async def nack(self, request: Any, context: Any) -> Any:
        result = await super().nack(request, context)  # type: ignore[misc]
        if result.returned == 0 and request.reason is UNSET:
            result.returned = 1
        return result


@breaks("BUS-41", ref=REF)
class KnowsNoPause:
    async def nack(self, request: Any, context: Any) -> Any:
        request.delay_seconds = 0
        return await super().nack(request, context)  # type: ignore[misc]


@breaks("BUS-50", ref=REF)
class ForgetsTheReason:
    async def list_dead_letters(self, request: Any, context: Any) -> Any:
        result = await super().list_dead_letters(request, context)  # type: ignore[misc]
        for item in result.items:
            item.reason = UNSET
        return result


@breaks("BUS-51", ref=REF)
class CountsUnknownLetters:
    async def requeue_dead_letters(self, request: Any, context: Any) -> Any:
        result = await super().requeue_dead_letters(request, context)  # type: ignore[misc]
        if "no-such-letter" in request.ids:
            result.requeued = len(request.ids)
        return result


@breaks("BUS-52", ref=REF)
class DiscardsAll:
    async def discard_dead_letters(self, request: Any, context: Any) -> Any:
        listed = await super().list_dead_letters(bus.ListDeadLettersRequest(), context)  # type: ignore[misc]
        result = await super().discard_dead_letters(request, context)  # type: ignore[misc]
        if result.discarded:
            others = bus.DiscardDeadLettersRequest(ids=[item.id for item in listed.items])
            await super().discard_dead_letters(others, context)  # type: ignore[misc]
        return result


@breaks("BUS-53", ref=REF)
class SetsAsideInSilence:
    async def pull(self, request: Any, context: Any) -> Any:
        result = await super().pull(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result

    async def nack(self, request: Any, context: Any) -> Any:
        result = await super().nack(request, context)  # type: ignore[misc]
        context.emitted.clear()
        return result


@breaks("BUS-60", ref=REF)
class GoesBackOneTooFar:
    async def replay(self, request: Any, context: Any) -> Any:
        if request.from_position is not UNSET:
            request.from_position = "0"
        return await super().replay(request, context)  # type: ignore[misc]


@breaks("BUS-61", ref=REF)
class KnowsNoFuture:
    async def replay(self, request: Any, context: Any) -> Any:
        import datetime

        if request.from_time is not UNSET and request.from_time > datetime.datetime.now(datetime.UTC):
            request.from_time -= datetime.timedelta(hours=2)
        return await super().replay(request, context)  # type: ignore[misc]


@breaks("BUS-70", ref=REF)
class StreamsOnlyWhatIsNew:
    async def subscribe(self, request: Any, context: Any) -> Any:
        request.start = "new"
        count = 0
        async for item in super().subscribe(request, context):  # type: ignore[misc]
            count += 1
            yield item


@breaks("BUS-80", ref=REF)
class EverythingHasAnAge:
    async def lag(self, request: Any, context: Any) -> Any:
        result = await super().lag(request, context)  # type: ignore[misc]
        if result.oldest_seconds is UNSET:
            result.oldest_seconds = 0.0
        return result
