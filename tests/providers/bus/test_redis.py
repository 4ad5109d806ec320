"""What is special to the bus on Redis: order by key in every mixture, servers that die, what is kept and for how long."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.support.losing_proxy import losing_proxy
from tests.support.redis_servers import PASSWORD, RedisServer, single

from erp.contracts.models import bus as api
from erp.errors import ProviderError
from erp.providers.bus.redis.provider import RedisBus
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with single(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(autouse=True)
def _ready(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.1/32")
    server.ask("FLUSHALL")


def settings(port: int, **more: Any) -> dict[str, Any]:
    return {"hosts": [f"127.0.0.1:{port}"], "password": PASSWORD, **more}


@pytest.fixture
async def bus(server: RedisServer, open_context: OpenContext) -> AsyncIterator[RedisBus]:
    made = RedisBus(settings(server.port, max_deliveries=1000), open_context)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context(seconds=60)
    return made


def wanted(name: str, key: str | None = None) -> api.PublishRequest:
    request = api.PublishRequest(topic="t", event=api.CloudEvent(id=name, source="/test", type="test.happened"))
    if key is not None:
        request.key = key
    return request


async def published(bus: RedisBus, ctx: CallContext, *names: str, key: str | None = None) -> list[str]:
    return [(await bus.publish(wanted(name, key), ctx)).position for name in names]


async def pulled(bus: RedisBus, ctx: CallContext, **more: Any) -> list[api.Delivery]:
    return (await bus.pull(api.PullRequest(topic="t", group="g", **more), ctx)).deliveries


async def acked(bus: RedisBus, ctx: CallContext, *deliveries: api.Delivery) -> int:
    return (await bus.ack(api.AckRequest(ack_ids=[one.ack_id for one in deliveries]), ctx)).acknowledged


async def nacked(bus: RedisBus, ctx: CallContext, *deliveries: api.Delivery, delay: float = 0) -> int:
    request = api.NackRequest(ack_ids=[one.ack_id for one in deliveries], delay_seconds=delay)
    return (await bus.nack(request, ctx)).returned


def ids(deliveries: list[api.Delivery]) -> list[str]:
    return [one.event.id for one in deliveries]


async def _work_on_some(
    bus: RedisBus, ctx: CallContext, choose: random.Random, confirmed: dict[str, list[str]]
) -> None:
    """Take events; confirm some, give one back or leave. What is left comes again when its time has passed."""
    for one in await pulled(bus, ctx, max_events=choose.randint(1, 7), visibility_seconds=0.02):
        turn = choose.random()
        if turn < 0.2:
            await nacked(bus, ctx, one, delay=choose.choice([0, 0.01]))
        if turn < 0.3:
            return
        if await acked(bus, ctx, one):
            confirmed[str(one.key)].append(one.event.id)


async def test_events_of_a_key_keep_their_order_whatever_consumers_do(bus: RedisBus, ctx: CallContext) -> None:
    choose = random.Random(7)
    sent: dict[str, list[str]] = {key: [f"{key}{number}" for number in range(12)] for key in "abc"}
    for number, (key, names) in itertools.product(range(12), sent.items()):
        await published(bus, ctx, names[number], key=key)
    confirmed: dict[str, list[str]] = {key: [] for key in sent}
    for _ in range(400):
        await _work_on_some(bus, ctx, choose, confirmed)
        await asyncio.sleep(0.005)
        if confirmed == sent:
            break

    assert confirmed == sent


async def test_a_long_queue_behind_one_event_costs_nothing_and_flows_when_it_is_confirmed(
    bus: RedisBus, ctx: CallContext
) -> None:
    await published(bus, ctx, *(f"e{number:03}" for number in range(300)), key="k")
    (first,) = await pulled(bus, ctx, max_events=1)
    assert await pulled(bus, ctx) == []
    lag = await bus.lag(api.LagRequest(topic="t", group="g"), ctx)
    await acked(bus, ctx, first)
    seen = [first.event.id]
    while given := await pulled(bus, ctx, max_events=50):
        seen += ids(given)
        await acked(bus, ctx, *given)

    assert (lag.waiting, lag.unacknowledged) == (299, 1)
    assert seen == [f"e{number:03}" for number in range(300)]


async def test_after_a_dead_letter_the_next_of_its_key_comes_and_requeued_it_comes_first(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    bus = RedisBus(settings(server.port, max_deliveries=2), open_context)
    await bus.open()
    await published(bus, ctx, "first", "second", key="k")
    for _ in range(2):
        (given,) = await pulled(bus, ctx, max_events=1)
        assert given.event.id == "first"
        await nacked(bus, ctx, given)
    (given,) = await pulled(bus, ctx, max_events=1)
    assert given.event.id == "second"
    await nacked(bus, ctx, given)
    (letter,) = (await bus.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items
    await bus.requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[letter.id]), ctx)

    assert (letter.event.id, letter.deliveries) == ("first", 2)
    assert ids(await pulled(bus, ctx, max_events=1)) == ["first"]
    await bus.close()


async def test_dead_letters_are_listed_in_pages(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    bus = RedisBus(settings(server.port, max_deliveries=1), open_context)
    await bus.open()
    await published(bus, ctx, *(f"e{number}" for number in range(5)))
    await nacked(bus, ctx, *await pulled(bus, ctx))
    await pulled(bus, ctx)
    seen: list[str] = []
    request = api.ListDeadLettersRequest(limit=2, topic="t", group="g")
    for _ in range(3):
        page = await bus.list_dead_letters(request, ctx)
        seen += [one.event.id for one in page.items]
        request.cursor = page.next_cursor
    other = await bus.list_dead_letters(api.ListDeadLettersRequest(topic="other"), ctx)

    assert seen == [f"e{number}" for number in range(5)]
    assert other.items == []
    with pytest.raises(ProviderError, match="position"):
        await bus.list_dead_letters(api.ListDeadLettersRequest(cursor="(1"), ctx)
    await bus.close()


async def test_a_consumer_is_woken_by_what_another_process_publishes(
    server: RedisServer, bus: RedisBus, open_context: OpenContext, ctx: CallContext
) -> None:
    elsewhere = RedisBus(settings(server.port), open_context)
    await elsewhere.open()
    waiting = asyncio.ensure_future(pulled(bus, ctx, wait_seconds=20))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    await published(elsewhere, ctx, "e")

    assert ids(await waiting) == ["e"]
    assert time.monotonic() - started < 10
    await elsewhere.close()


async def test_a_publish_whose_answer_is_lost_can_be_repeated_and_a_pull_has_an_unknown_outcome(
    server: RedisServer, bus: RedisBus, open_context: OpenContext, ctx: CallContext
) -> None:
    async with losing_proxy(server.port) as proxy:
        behind = RedisBus(settings(proxy.port), open_context)
        await behind.open()
        await published(behind, ctx, "before")
        await pulled(behind, ctx)
        proxy.loses = b"EVALSHA"
        codes = []
        for call in (behind.publish(wanted("e"), ctx), pulled(behind, ctx, visibility_seconds=0.05)):
            with pytest.raises(ProviderError) as caught:
                await call
            codes.append(caught.value.code)
        proxy.loses = None
        again = await behind.publish(wanted("e"), ctx)
        await behind.close()
    await asyncio.sleep(0.1)

    assert codes == ["unavailable", "outcome_unknown"]
    assert again.duplicate is True
    assert ids(await pulled(bus, ctx)) == ["e"], "what was taken and never arrived comes again"


async def test_a_server_that_was_killed_keeps_its_events_with_an_append_only_file(
    tmp_path: Any, open_context: OpenContext, ctx: CallContext
) -> None:
    with single(tmp_path / "durable", "--appendonly", "yes", "--appendfsync", "always") as durable:
        bus = RedisBus(settings(durable.port), open_context)
        await bus.open()
        await published(bus, ctx, "one", "two", key="k")
        (one,) = await pulled(bus, ctx, max_events=1)
        durable.kill()
        durable.start()
        ends = time.monotonic() + 30
        while True:
            try:
                assert await acked(bus, ctx, one) == 1
                break
            except ProviderError as error:
                if error.code != "unavailable" or time.monotonic() > ends:
                    raise
        assert ids(await pulled(bus, ctx)) == ["two"]
        assert (await bus.publish(wanted("one"), ctx)).duplicate is True
        await bus.close()


async def test_what_is_older_than_the_retention_goes_with_all_that_was_kept_of_it(
    server: RedisServer, open_context: OpenContext, ctx: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = RedisBus(settings(server.port), open_context)
    bus._retention_seconds = 1
    await bus.open()
    await published(bus, ctx, "old", "held", key="k")
    (old,) = await pulled(bus, ctx, max_events=1, visibility_seconds=0.01)
    due = await bus.work(ctx)
    assert due is not None
    await asyncio.sleep(1.1)
    assert await bus.work(ctx) is None
    assert (await bus.publish(wanted("old", "k"), ctx)).duplicate is False, "its id is forgotten too"

    assert await acked(bus, ctx, old) == 1
    assert ids(await pulled(bus, ctx)) == ["old"]
    assert old.event.id == "old"
    kinds = {key.rpartition("}:b:")[2].partition(":")[0] for key in server.ask("KEYS", "*")}
    assert kinds <= {"s", "d", "n", "g", "N", "q", "k"}
    await bus.close()


HOSTILE_IDS = ["1.1-1.1", "1.0-0.1", "x", "1.1-1.1\n", "99.1-1.1", "1.1-1", "-1.1-1.1", "1" * 200]


async def test_ack_ids_that_nobody_gave_confirm_nothing(
    server: RedisServer, bus: RedisBus, open_context: OpenContext, ctx: CallContext
) -> None:
    await published(bus, ctx, "e")
    (mine,) = await pulled(bus, ctx)
    other = RedisBus(settings(server.port), dataclasses.replace(open_context, tenant="beta"))
    await other.open()
    await other.publish(wanted("theirs"), ctx)
    await pulled(other, ctx)
    request = api.AckRequest(ack_ids=[mine.ack_id, *HOSTILE_IDS])

    assert (await other.ack(request, ctx)).acknowledged == 0
    assert (await bus.ack(api.AckRequest(ack_ids=HOSTILE_IDS), ctx)).acknowledged == 0
    assert await acked(bus, ctx, mine) == 1
    await other.close()


async def test_a_replay_says_from_where_and_not_twice(bus: RedisBus, ctx: CallContext) -> None:
    await published(bus, ctx, "e")
    for request in (
        api.ReplayRequest(topic="t", group="g"),
        api.ReplayRequest(topic="t", group="g", from_position="0"),
        api.ReplayRequest(topic="t", group="g", from_position="1-1 COUNT"),
    ):
        with pytest.raises(ProviderError) as caught:
            await bus.replay(request, ctx)
        assert caught.value.code == "invalid_argument"
        assert caught.value.errors
    assert ids(await pulled(bus, ctx)) == ["e"]


async def test_a_full_server_refuses_to_publish_and_loses_nothing(
    server: RedisServer, bus: RedisBus, ctx: CallContext
) -> None:
    await published(bus, ctx, "kept")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(ProviderError) as caught:
            await published(bus, ctx, "refused")
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")

    assert caught.value.code == "unavailable"
    assert ids(await pulled(bus, ctx)) == ["kept"]
    assert (await bus.publish(wanted("refused"), ctx)).duplicate is False


async def test_a_server_that_may_drop_events_is_refused(server: RedisServer, open_context: OpenContext) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    bus = RedisBus(settings(server.port), open_context)
    try:
        with pytest.raises(ProviderError) as caught:
            await bus.open()
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
        await bus.close()

    assert caught.value.code == "failed_precondition"
    assert "noeviction" in caught.value.message


async def test_the_rights_that_the_readme_names_are_enough(
    server: RedisServer, open_context: OpenContext, ctx: CallContext
) -> None:
    rights = ["+@read", "+@write", "+@scripting", "+@connection", "+time", "+info"]
    server.ask("ACL", "SETUSER", "erp", "on", ">secret", "~erp:*", *rights)
    bus = RedisBus(settings(server.port, username="erp", password="secret", max_deliveries=1), open_context)
    await bus.open()
    await published(bus, ctx, "a", "b", key="k")
    await nacked(bus, ctx, *await pulled(bus, ctx, max_events=1))
    assert ids(await pulled(bus, ctx)) == ["b"]
    (letter,) = (await bus.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items
    await bus.requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[letter.id]), ctx)
    lag = await bus.lag(api.LagRequest(topic="t", group="g"), ctx)
    await bus.replay(api.ReplayRequest(topic="t", group="g", from_position="0-0"), ctx)

    assert lag.unacknowledged == 2
    assert ids(await pulled(bus, ctx)) == ["a", "b"]
    assert await bus.work(ctx) is not None
    await bus.close()
