"""The event log gives every event to every group, at once when it may, whatever consumers do in between."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from erp.contracts.models import bus as api
from erp.providers.bus.log.provider import STREAM_BATCH, EventLog
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio

PUBLISHER = """
import asyncio, sys, time
from pathlib import Path
from erp.contracts.models.bus import CloudEvent, PublishRequest
from erp.providers.bus.log.provider import EventLog
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

async def main():
    home = Path(sys.argv[1])
    log = EventLog({}, place(home, tenant="acme"))
    await log.open()
    ctx = CallContext(tenant="acme", actor=Actor(id="a", tenant="acme"), request_id="r", deadline=time.monotonic() + 60)
    async def publish(n):
        await log.publish(PublishRequest(topic="t", event=CloudEvent(id=f"e{n}", source="/t", type="t")), ctx)
        print(n, flush=True)
    for start in range(0, 1_000_000, 8):
        await asyncio.gather(*(publish(n) for n in range(start, start + 8)))

asyncio.run(main())
"""


@pytest.fixture
async def log(open_context: OpenContext) -> AsyncIterator[EventLog]:
    made = EventLog({"max_deliveries": 2}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


async def publish(log: EventLog, ctx: CallContext, *numbers: int, key: str | None = None) -> None:
    events = [
        api.NewEvent(event=api.CloudEvent(id=f"e{number}", source="/test", type="test.happened")) for number in numbers
    ]
    for item in events if key is not None else ():
        item.key = key or ""
    await log.publish_batch(api.PublishBatchRequest(topic="t", events=events), ctx)


async def pull(log: EventLog, ctx: CallContext, **more: Any) -> list[api.Delivery]:
    return (await log.pull(api.PullRequest(topic="t", group="g", **more), ctx)).deliveries


async def ack(log: EventLog, ctx: CallContext, deliveries: list[api.Delivery]) -> None:
    await log.ack(api.AckRequest(ack_ids=[item.ack_id for item in deliveries]), ctx)


async def nack(log: EventLog, ctx: CallContext, deliveries: list[api.Delivery], delay_seconds: float = 0) -> None:
    request = api.NackRequest(ack_ids=[item.ack_id for item in deliveries], delay_seconds=delay_seconds)
    await log.nack(request, ctx)


def ids(deliveries: list[api.Delivery]) -> list[str]:
    return [item.event.id for item in deliveries]


async def bury(log: EventLog, ctx: CallContext, deliveries: list[api.Delivery]) -> str:
    await nack(log, ctx, deliveries)
    await nack(log, ctx, await pull(log, ctx))
    assert await pull(log, ctx) == []
    [dead] = (await log.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items
    return dead.id


async def test_a_dead_letter_requeued_after_a_replay_hides_no_event(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, *range(20))
    found = await pull(log, ctx)
    await ack(log, ctx, found[:19])
    letter = await bury(log, ctx, found[19:])

    await log.replay(api.ReplayRequest(topic="t", group="g", from_position="0"), ctx)
    await log.requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[letter]), ctx)
    seen: list[str] = []
    while deliveries := await pull(log, ctx, max_events=2):
        seen += ids(deliveries)
        await ack(log, ctx, deliveries)
    assert sorted(set(seen)) == sorted(f"e{number}" for number in range(20))


async def test_an_event_set_aside_does_not_hold_up_the_next(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1, 2)
    for _ in range(2):
        await nack(log, ctx, await pull(log, ctx, max_events=1))
    assert ids(await pull(log, ctx, max_events=1)) == ["e2"]


async def test_a_long_tail_of_one_key_does_not_hold_up_another_key(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 0, key="a")
    held = await pull(log, ctx)
    await publish(log, ctx, *range(1, 60), key="a")
    await publish(log, ctx, 60, key="b")
    assert ids(await pull(log, ctx, max_events=5)) == ["e60"]
    assert ids(await pull(log, ctx, max_events=1, wait_seconds=0.02)) == []

    await ack(log, ctx, held)
    assert ids(await pull(log, ctx, max_events=2)) == ["e1", "e2"]


async def test_a_tail_too_long_for_one_look_is_looked_through_while_waiting(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 0, key="a")
    await pull(log, ctx)
    await publish(log, ctx, *range(1, 60), key="a")
    await publish(log, ctx, 60, key="b")
    found = await asyncio.wait_for(pull(log, ctx, max_events=1, wait_seconds=20), 30)
    assert ids(found) == ["e60"]


async def waiting(log: EventLog, ctx: CallContext) -> asyncio.Task[list[api.Delivery]]:
    made = asyncio.create_task(pull(log, ctx, wait_seconds=20))
    await asyncio.sleep(0.02)
    assert not made.done()
    return made


async def test_a_confirmation_wakes_the_consumer_that_waits_for_the_key(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1, key="a")
    held = await pull(log, ctx)
    await publish(log, ctx, 2, key="a")
    consumer = await waiting(log, ctx)
    await ack(log, ctx, held)
    assert ids(await asyncio.wait_for(consumer, 30)) == ["e2"]


async def test_what_is_given_back_moved_or_requeued_wakes_the_consumer(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1)
    held = await pull(log, ctx)
    consumer = await waiting(log, ctx)
    await nack(log, ctx, held, delay_seconds=0.02)
    again = await asyncio.wait_for(consumer, 30)
    assert [item.delivery for item in again] == [2]

    await nack(log, ctx, again)
    consumer = await waiting(log, ctx)
    [letter] = (await log.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items
    await log.requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[letter.id]), ctx)
    await ack(log, ctx, await asyncio.wait_for(consumer, 30))

    consumer = await waiting(log, ctx)
    await log.replay(api.ReplayRequest(topic="t", group="g", from_position="0"), ctx)
    assert ids(await asyncio.wait_for(consumer, 30)) == ["e1"]


async def test_events_a_stream_took_and_did_not_hand_on_are_due_at_once_and_not_counted(
    log: EventLog, ctx: CallContext
) -> None:
    await publish(log, ctx, *range(STREAM_BATCH))
    for expected in ("e0", "e1", "e2"):
        stream = log.subscribe(api.SubscribeRequest(topic="t", group="g"), ctx)
        assert (await anext(stream)).event.id == expected
        await stream.aclose()
    rest = await pull(log, ctx)
    assert [(item.event.id, item.delivery) for item in rest] == [(f"e{number}", 1) for number in range(3, STREAM_BATCH)]


async def test_a_slow_stream_does_not_hand_on_what_is_no_longer_its_own(log: EventLog, ctx: CallContext) -> None:
    await publish(log, ctx, 1, 2)
    stream = log.subscribe(api.SubscribeRequest(topic="t", group="g", visibility_seconds=0.02), ctx)
    assert (await anext(stream)).event.id == "e1"
    await asyncio.sleep(0.03)
    other = await pull(log, ctx)
    assert ids(other) == ["e1", "e2"]
    upcoming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.02)
    assert not upcoming.done()
    await ack(log, ctx, other)
    await publish(log, ctx, 3)
    assert (await asyncio.wait_for(upcoming, 30)).event.id == "e3"
    await stream.aclose()


async def test_a_consumer_that_waits_for_a_key_does_not_spin(
    log: EventLog, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(log, ctx, 1, key="a")
    await pull(log, ctx)
    await publish(log, ctx, 2, key="a")
    looked: list[float] = []
    run = log._writer.run

    async def counted(work: Any) -> Any:
        looked.append(time.monotonic())
        return await run(work)

    monkeypatch.setattr(log._writer, "run", counted)
    assert await pull(log, ctx, wait_seconds=0.1) == []
    assert len(looked) <= 2


async def test_every_confirmed_event_survives_a_killed_process_once_and_in_order(
    open_context: OpenContext, ctx: CallContext
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUBLISHER, str(open_context.data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    confirmed = [int(await process.stdout.readline()) for _ in range(50)]
    process.kill()
    confirmed += [int(line) for line in (await process.stdout.read()).split(b"\n")[:-1]]
    await process.wait()

    log = EventLog({}, open_context)
    await log.open()
    found: list[int] = []
    while deliveries := await pull(log, ctx, max_events=1000):
        found += [int(item.event.id[1:]) for item in deliveries]
    assert set(confirmed) <= set(found)
    assert found == list(range(len(found)))

    await publish(log, ctx, 0, 10_000_000)
    assert ids(await pull(log, ctx)) == ["e10000000"]
    await log.close()
