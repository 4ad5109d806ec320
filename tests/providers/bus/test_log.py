"""What the event log promises: nothing lost, order per key, each group its own pace."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest

from erp.contracts.models import bus as api
from erp.errors import ProviderError
from erp.providers.bus.log import groups, tables
from erp.providers.bus.log.provider import FILE, EventLog
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


class Clock:
    """Wall-clock time that tests move; everything else is the real module."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tables, "time", made)
    monkeypatch.setattr(groups, "time", made)
    return made


@pytest.fixture
async def log(open_context: OpenContext) -> AsyncIterator[EventLog]:
    made = EventLog({"max_deliveries": 3}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


def event(number: int, data: Any = None) -> api.CloudEvent:
    return api.CloudEvent(id=f"e{number}", source="/test", type="test.happened", data=data)


async def publish(
    log: EventLog, ctx: CallContext, number: int, key: str | None = None, topic: str = "t"
) -> api.PublishResult:
    request = api.PublishRequest(topic=topic, event=event(number))
    if key is not None:
        request.key = key
    return await log.publish(request, ctx)


async def pull(log: EventLog, ctx: CallContext, group: str = "g", **more: Any) -> list[api.Delivery]:
    return (await log.pull(api.PullRequest(topic="t", group=group, **more), ctx)).deliveries


async def ack(log: EventLog, ctx: CallContext, *deliveries: api.Delivery) -> int:
    return (await log.ack(api.AckRequest(ack_ids=[item.ack_id for item in deliveries]), ctx)).acknowledged


def ids(deliveries: list[api.Delivery]) -> list[str]:
    return [item.event.id for item in deliveries]


async def test_events_arrive_in_order_with_all_they_had(log: EventLog, ctx: CallContext) -> None:
    for number in range(5):
        await log.publish(api.PublishRequest(topic="t", event=event(number, {"n": number, "ü": "🎉"})), ctx)

    found = await pull(log, ctx)
    assert ids(found) == ["e0", "e1", "e2", "e3", "e4"]
    assert found[3].event.data == {"n": 3, "ü": "🎉"}
    assert (found[0].event.source, found[0].event.type, found[0].delivery) == ("/test", "test.happened", 1)
    assert found[0].event.time.tzinfo is not None


async def test_an_event_published_twice_is_there_once(log: EventLog, ctx: CallContext) -> None:
    first, again = await publish(log, ctx, 1), await publish(log, ctx, 1)
    other = await publish(log, ctx, 1, topic="other")

    assert (first.duplicate, again.duplicate, other.duplicate) == (False, True, False)
    assert again.position == first.position
    assert ids(await pull(log, ctx)) == ["e1"]


async def test_a_batch_reports_each_of_its_events(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1)
    events = [api.NewEvent(event=event(number)) for number in range(3)]
    found = (await log.publish_batch(api.PublishBatchRequest(topic="t", events=events), ctx)).published
    assert [item.duplicate for item in found] == [False, True, False]
    assert sorted(ids(await pull(log, ctx))) == ["e0", "e1", "e2"]


async def test_each_group_receives_everything_and_shares_it_among_its_consumers(
    log: EventLog, ctx: CallContext
) -> None:
    for number in range(4):
        await publish(log, ctx, number)
    first, second = await pull(log, ctx, max_events=2), await pull(log, ctx, max_events=5)
    assert (ids(first), ids(second)) == (["e0", "e1"], ["e2", "e3"])
    assert ids(await pull(log, ctx, group="other")) == ["e0", "e1", "e2", "e3"]


async def test_a_new_group_may_begin_at_the_end(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1)
    assert await pull(log, ctx, group="late", start="new") == []
    await publish(log, ctx, 2)
    assert ids(await pull(log, ctx, group="late", start="new")) == ["e2"]


async def test_what_was_not_confirmed_in_time_is_delivered_again(log: EventLog, ctx: CallContext, clock: Clock) -> None:
    await publish(log, ctx, 1)
    [first] = await pull(log, ctx, visibility_seconds=10)
    clock.now += 9.9
    assert await pull(log, ctx) == []
    clock.now += 0.2
    [second] = await pull(log, ctx, visibility_seconds=10)

    assert (second.event.id, second.delivery) == ("e1", 2)
    assert await ack(log, ctx, first) == 0
    assert await ack(log, ctx, second) == 1
    assert await ack(log, ctx, second) == 0
    clock.now += 100
    assert await pull(log, ctx) == []


async def test_a_later_event_of_a_key_waits_for_the_earlier_one(log: EventLog, ctx: CallContext, clock: Clock) -> None:
    await publish(log, ctx, 1, key="a")
    [held] = await pull(log, ctx, visibility_seconds=10)
    await publish(log, ctx, 2, key="a")
    await publish(log, ctx, 3, key="b")
    assert ids(await pull(log, ctx, visibility_seconds=10)) == ["e3"]

    clock.now += 11
    again = await pull(log, ctx, visibility_seconds=10)
    assert ids(again) == ["e1", "e2", "e3"]
    assert again[0].delivery == 2
    assert await ack(log, ctx, held) == 0


async def test_a_confirmed_event_frees_its_key(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1, key="a")
    [held] = await pull(log, ctx)
    await publish(log, ctx, 2, key="a")
    assert await pull(log, ctx) == []
    await ack(log, ctx, held)
    assert ids(await pull(log, ctx)) == ["e2"]


async def test_what_is_given_back_comes_again_after_its_pause(log: EventLog, ctx: CallContext, clock: Clock) -> None:
    await publish(log, ctx, 1)
    [held] = await pull(log, ctx)
    returned = await log.nack(api.NackRequest(ack_ids=[held.ack_id, "nonsense"], delay_seconds=5), ctx)
    assert returned.returned == 1
    assert await pull(log, ctx) == []
    clock.now += 5
    assert [item.delivery for item in await pull(log, ctx)] == [2]


async def test_after_too_many_deliveries_an_event_is_set_aside_until_it_is_requeued(
    log: EventLog, ctx: CallContext
) -> None:
    await publish(log, ctx, 1, key="a")
    await publish(log, ctx, 2, key="a")
    for _ in range(3):
        first = (await pull(log, ctx, max_events=1))[0]
        assert first.event.id == "e1"
        await log.nack(api.NackRequest(ack_ids=[first.ack_id], reason="broken"), ctx)

    assert ids(await pull(log, ctx)) == ["e2"]
    [dead] = (await log.list_dead_letters(api.ListDeadLettersRequest(topic="t"), ctx)).items
    assert (dead.event.id, dead.group, dead.deliveries, dead.reason) == ("e1", "g", 3, "broken")
    assert [event.data["event_id"] for event in ctx.emitted] == ["e1"]

    requeued = await log.requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[dead.id, "999"]), ctx)
    assert requeued.requeued == 1
    assert (await log.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items == []
    [again] = await pull(log, ctx)
    assert (again.event.id, again.delivery) == ("e1", 1)


async def test_a_discarded_dead_letter_is_gone(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1)
    for _ in range(4):
        for item in await pull(log, ctx):
            await log.nack(api.NackRequest(ack_ids=[item.ack_id]), ctx)
    [dead] = (await log.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items
    assert (await log.discard_dead_letters(api.DiscardDeadLettersRequest(ids=[dead.id]), ctx)).discarded == 1
    assert (await log.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items == []


async def test_a_group_can_be_moved_to_a_time_or_a_position(log: EventLog, ctx: CallContext, clock: Clock) -> None:
    positions = []
    for number in range(4):
        positions.append((await publish(log, ctx, number)).position)
        clock.now += 10
    await ack(log, ctx, *await pull(log, ctx))
    assert await pull(log, ctx) == []

    moment = datetime.datetime.fromtimestamp(clock.now - 20, datetime.UTC)
    await log.replay(api.ReplayRequest(topic="t", group="g", from_time=moment), ctx)
    assert ids(await pull(log, ctx)) == ["e2", "e3"]
    await log.replay(api.ReplayRequest(topic="t", group="g", from_position=positions[0]), ctx)
    assert ids(await pull(log, ctx)) == ["e1", "e2", "e3"]
    with pytest.raises(ProviderError):
        await log.replay(api.ReplayRequest(topic="t", group="g"), ctx)


async def test_lag_counts_what_waits_and_what_is_held(log: EventLog, ctx: CallContext, clock: Clock) -> None:
    for number in range(5):
        await publish(log, ctx, number)
    await pull(log, ctx, max_events=2)
    clock.now += 7
    lag = await log.lag(api.LagRequest(topic="t", group="g"), ctx)
    assert (lag.waiting, lag.unacknowledged) == (3, 2)
    assert lag.oldest_seconds == pytest.approx(7)


async def test_waiting_ends_with_the_first_event(log: EventLog, ctx: CallContext) -> None:
    waiting = asyncio.create_task(pull(log, ctx, wait_seconds=3))
    await asyncio.sleep(0.02)
    await publish(log, ctx, 1)
    assert ids(await asyncio.wait_for(waiting, 30)) == ["e1"]
    assert await pull(log, ctx, wait_seconds=0.02) == []


async def test_a_stream_gives_what_is_there_and_what_comes(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1)
    stream = log.subscribe(api.SubscribeRequest(topic="t", group="g"), ctx)
    assert (await anext(stream)).event.id == "e1"
    upcoming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.02)
    await publish(log, ctx, 2)
    assert (await asyncio.wait_for(upcoming, 30)).event.id == "e2"
    await stream.aclose()


async def test_two_hundred_publishers_at_once_lose_nothing(log: EventLog, ctx: CallContext) -> None:
    results = await asyncio.gather(*(publish(log, ctx, number) for number in range(200)))
    assert len({result.position for result in results}) == 200
    assert len(await pull(log, ctx, max_events=1000)) == 200


async def test_everything_is_there_after_opening_again(
    log: EventLog, ctx: CallContext, open_context: OpenContext
) -> None:
    await publish(log, ctx, 1)
    [held] = await pull(log, ctx)
    await publish(log, ctx, 2)
    await log.close()
    await log.close()

    again = EventLog({}, open_context)
    await again.open()
    assert await ack(again, ctx, held) == 1
    assert ids(await pull(again, ctx)) == ["e2"]
    assert (await again.health()).status == "ok"
    await again.close()


async def test_old_events_go(open_context: OpenContext, ctx: CallContext, clock: Clock) -> None:
    short = EventLog({"retention_seconds": 60}, open_context)
    await short.open()
    await publish(short, ctx, 1)
    clock.now += 61
    await publish(short, ctx, 2)
    await short.work(ctx)
    assert ids(await pull(short, ctx)) == ["e2"]
    await short.close()


async def test_a_closed_log_is_unavailable(open_context: OpenContext, ctx: CallContext) -> None:
    made = EventLog({}, open_context)
    await made.close()
    with pytest.raises(ProviderError) as refused:
        await publish(made, ctx, 1)
    assert refused.value.code == "unavailable"
    assert not (open_context.data_dir / FILE).exists()
