"""Calls that share a transaction do not share their fate, and keys stay in order however they are mixed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from erp.contracts.models import bus as api
from erp.errors import ProviderError
from erp.providers.bus.log.provider import EventLog
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(open_context: OpenContext) -> AsyncIterator[EventLog]:
    made = EventLog({"max_deliveries": 1000}, open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context()
    return made


def wanted(name: str, key: str | None = None) -> api.PublishRequest:
    request = api.PublishRequest(topic="t", event=api.CloudEvent(id=name, source="/test", type="test.happened"))
    if key is not None:
        request.key = key
    return request


async def pulled(log: EventLog, ctx: CallContext, count: int = 10) -> list[api.Delivery]:
    return (await log.pull(api.PullRequest(topic="t", group="g", max_events=count), ctx)).deliveries


async def test_of_equal_events_published_at_once_one_is_new_and_all_are_at_its_position(
    log: EventLog, ctx: CallContext
) -> None:
    await log.publish(wanted("a"), ctx)

    answers = await asyncio.gather(*(log.publish(wanted(name), ctx) for name in ("b", "a", "b", "c", "b")))

    assert [answer.duplicate for answer in answers] == [False, True, True, False, True]
    b, a, again, c, once_more = (int(answer.position) for answer in answers)
    assert a < b < c
    assert b == again == once_more
    assert [delivery.event.id for delivery in await pulled(log, ctx)] == ["a", "b", "c"]


async def test_work_that_fails_takes_nothing_of_its_neighbours_with_it(log: EventLog, ctx: CallContext) -> None:
    wrong = api.ReplayRequest(topic="t", group="g", from_position="nowhere")

    answers = await asyncio.gather(
        log.publish(wanted("a"), ctx), log.replay(wrong, ctx), log.publish(wanted("b"), ctx), return_exceptions=True
    )

    assert isinstance(answers[1], ProviderError)
    assert [answers[0].position, answers[2].position] == ["1", "2"]
    assert [delivery.event.id for delivery in await pulled(log, ctx)] == ["a", "b"]


async def test_a_pull_adds_new_events_to_those_that_are_due_again(log: EventLog, ctx: CallContext) -> None:
    for name in ("a", "b"):
        await log.publish(wanted(name), ctx)
    first, second = await pulled(log, ctx)
    await log.nack(api.NackRequest(ack_ids=[first.ack_id, second.ack_id]), ctx)
    for name in ("c", "d"):
        await log.publish(wanted(name), ctx)

    assert [delivery.event.id for delivery in await pulled(log, ctx, 3)] == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(8))
async def test_events_of_a_key_are_confirmed_in_their_order(log: EventLog, ctx: CallContext, seed: int) -> None:
    chance = random.Random(seed)
    keys = ["x", "y", "z", None]
    published: dict[str | None, list[str]] = {key: [] for key in keys}
    confirmed: dict[str | None, list[str]] = {key: [] for key in keys}
    held: list[api.Delivery] = []
    for number in range(150):
        key = chance.choice(keys)
        published[key].append(f"{number:03}")
        await log.publish(wanted(f"{number:03}", key), ctx)
        held += await pulled(log, ctx, chance.randrange(1, 6)) if chance.random() < 0.5 else []
        held = await settle_some(log, ctx, chance, held, confirmed)
    while sum(map(len, confirmed.values())) < 150:
        held += await pulled(log, ctx)
        held = await settle_some(log, ctx, chance, held, confirmed)

    assert {key: confirmed[key] for key in "xyz"} == {key: published[key] for key in "xyz"}
    assert sorted(confirmed[None]) == published[None]


async def settle_some(
    log: EventLog,
    ctx: CallContext,
    chance: random.Random,
    held: list[api.Delivery],
    confirmed: dict[str | None, list[str]],
) -> list[api.Delivery]:
    """Confirm the first few that are held, in their order, and give back the rest of them now and then."""
    count = chance.randrange(0, len(held) + 1)
    for delivery in held[:count]:
        assert (await log.ack(api.AckRequest(ack_ids=[delivery.ack_id]), ctx)).acknowledged == 1
        confirmed[delivery.key if isinstance(delivery.key, str) else None].append(delivery.event.id)
    if held[count:] and chance.random() < 0.3:
        request = api.NackRequest(ack_ids=[delivery.ack_id for delivery in held[count:]])
        assert (await log.nack(request, ctx)).returned == len(held[count:])
        return []
    return held[count:]
