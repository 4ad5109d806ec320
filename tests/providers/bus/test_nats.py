"""What ``bus/nats`` promises beyond its contract: across processes, broken connections, credentials and hostile names."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.providers.bus.nats_server import NatsServer, nats_server
from tests.support.broken_link import broken_link

from erp.contracts.models import bus as api
from erp.errors import ProviderError
from erp.providers.bus.nats.names import Names, token
from erp.providers.bus.nats.provider import NatsBus
from erp.providers.bus.nats.receipts import Receipt, Receipts
from erp.runtime.context import CallContext
from erp.runtime.spi import OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.0/8")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    with nats_server(tmp_path) as made:
        await made.started()
        yield made


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context(seconds=60)
    return made


@pytest.fixture
async def buses(server: NatsServer, open_context: OpenContext) -> AsyncIterator[list[NatsBus]]:
    """Two open providers of one connection, as two processes have them."""
    config = server.config(max_deliveries=2)
    made = [NatsBus(config, open_context) for _ in range(2)]
    for one in made:
        await one.open()
    yield made
    for one in made:
        await one.close()


def event(number: int | str, data: Any = None) -> api.CloudEvent:
    return api.CloudEvent(id=f"e{number}", source="/test", type="test.happened", data=data)


async def publish(
    bus: NatsBus, ctx: CallContext, number: int | str, topic: str = "t", **more: Any
) -> api.PublishResult:
    return await bus.publish(api.PublishRequest(topic=topic, event=event(number), **more), ctx)


async def pull(bus: NatsBus, ctx: CallContext, topic: str = "t", group: str = "g", **more: Any) -> list[api.Delivery]:
    return (await bus.pull(api.PullRequest(topic=topic, group=group, **more), ctx)).deliveries


async def ack(bus: NatsBus, ctx: CallContext, *deliveries: api.Delivery) -> int:
    return (await bus.ack(api.AckRequest(ack_ids=[one.ack_id for one in deliveries]), ctx)).acknowledged


def ids(deliveries: list[api.Delivery]) -> list[str]:
    return [one.event.id for one in deliveries]


# -- several processes -----------------------------------------------------------------------------


async def test_the_order_of_a_key_holds_across_processes(buses: list[NatsBus], ctx: CallContext) -> None:
    first, second = buses
    for number in range(3):
        await publish(first, ctx, number, key="k")

    (held,) = await pull(first, ctx)
    assert await pull(second, ctx) == []

    assert await ack(second, ctx, held) == 1
    assert ids(await pull(second, ctx, wait_seconds=10)) == ["e1"]


async def test_first_events_with_a_key_reach_a_group_that_waits_in_another_process(
    buses: list[NatsBus], ctx: CallContext
) -> None:
    first, second = buses
    waiting = asyncio.ensure_future(pull(second, ctx, wait_seconds=20))
    await asyncio.sleep(0.1)

    await publish(first, ctx, 1, key="k")

    assert ids(await waiting) == ["e1"]


async def test_an_acknowledgement_counts_in_whatever_process_it_arrives(buses: list[NatsBus], ctx: CallContext) -> None:
    first, second = buses
    await publish(first, ctx, 1)
    deliveries = await pull(first, ctx, visibility_seconds=0.3)

    assert await ack(second, ctx, *deliveries) == 1
    await asyncio.sleep(0.5)
    assert await pull(first, ctx) == []


@pytest.mark.slow
async def test_an_event_whose_last_delivery_lapsed_is_set_aside_by_whoever_asks_next(
    buses: list[NatsBus], ctx: CallContext, call_context: Any
) -> None:
    first, second = buses
    await publish(first, ctx, 1, key="k")
    for delivery in (1, 2):
        (found,) = await pull(first, ctx, visibility_seconds=0.1, wait_seconds=10)
        assert found.delivery == delivery
    await asyncio.sleep(0.2)
    theirs = call_context(seconds=60)

    assert await pull(second, theirs, wait_seconds=1) == []

    (letter,) = (await first.list_dead_letters(api.ListDeadLettersRequest(topic="t"), ctx)).items
    assert (letter.event.id, letter.deliveries, letter.topic, letter.group) == ("e1", 2, "t", "g")
    assert [one.data["event_id"] for one in theirs.emitted] == ["e1"]
    requeued = await second.requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[letter.id]), ctx)
    assert requeued.requeued == 1
    (again,) = await pull(first, ctx, wait_seconds=10)
    assert (again.event.id, again.delivery, again.key, again.position) == ("e1", 1, "k", letter.position)
    assert await pull(first, ctx, group="other") != []  # the other group got the original, and not the copy
    assert len(await pull(first, ctx, group="third")) == 1


async def test_an_event_that_dies_again_soon_is_listed_again(buses: list[NatsBus], ctx: CallContext) -> None:
    bus = buses[0]
    await publish(bus, ctx, 1)
    for _ in range(2):
        for _ in range(2):
            deliveries = await pull(bus, ctx, wait_seconds=10)
            await bus.nack(api.NackRequest(ack_ids=[one.ack_id for one in deliveries], reason="no"), ctx)
        (letter,) = (await bus.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items
        await bus.discard_dead_letters(api.DiscardDeadLettersRequest(ids=[letter.id]), ctx)
        await bus.replay(api.ReplayRequest(topic="t", group="g", from_position="0"), ctx)


# -- what is published -----------------------------------------------------------------------------


async def test_a_batch_with_known_events_publishes_the_others_only(buses: list[NatsBus], ctx: CallContext) -> None:
    bus = buses[0]
    known = await publish(bus, ctx, 2)
    numbers = (1, 2, 3, 1)
    request = api.PublishBatchRequest(topic="t", events=[api.NewEvent(event=event(number)) for number in numbers])

    first = (await bus.publish_batch(request, ctx)).published
    again = (await bus.publish_batch(request, ctx)).published

    assert [one.duplicate for one in first] == [False, True, False, True]
    assert first[1].position == known.position
    assert first[3].position == first[0].position
    assert [one.position for one in again] == [one.position for one in first]
    assert all(one.duplicate for one in again)
    assert sorted(ids(await pull(bus, ctx))) == ["e1", "e2", "e3"]


async def test_many_batches_at_once_are_each_whole(buses: list[NatsBus], ctx: CallContext) -> None:
    requests = [
        api.PublishBatchRequest(topic="t", events=[api.NewEvent(event=event(f"{batch}-{n}")) for n in range(10)])
        for batch in range(80)
    ]

    answers = await asyncio.gather(*(buses[number % 2].publish_batch(one, ctx) for number, one in enumerate(requests)))

    for answer in answers:
        positions = [int(one.position) for one in answer.published]
        assert positions == list(range(positions[0], positions[0] + 10))


async def test_an_event_that_is_too_large_is_refused_by_name_and_nothing_is_published(
    buses: list[NatsBus], ctx: CallContext
) -> None:
    bus = buses[0]
    request = api.PublishRequest(topic="t", event=event(1, "x" * 2_000_000))

    with pytest.raises(ProviderError) as caught:
        await bus.publish(request, ctx)

    assert (caught.value.code, caught.value.errors[0].pointer) == ("invalid_argument", "/params/event")
    assert await pull(bus, ctx) == []
    assert not (await publish(bus, ctx, 1)).duplicate


async def test_what_others_published_as_cloudevents_or_not_is_handed_on(buses: list[NatsBus], ctx: CallContext) -> None:
    bus = buses[0]
    await publish(bus, ctx, 1)
    client = await bus._channel.client()
    subject = bus._names.event("t", "u")
    foreign = b'{"specversion":"1.0","id":"f","source":"/s","type":"t","color":"red","size":3,"data":{"a":1}}'
    await client.publish(subject, foreign, headers={"Content-Type": "application/cloudevents+json"})
    await client.publish(subject, b"\xff no event")
    await client.flush()

    _, second, third = await pull(bus, ctx, wait_seconds=10)

    assert (second.event.id, second.event.data) == ("f", {"a": 1})
    assert second.event.extensions == {"color": "red", "size": "3"}
    assert (third.event.type, third.event.source) == ("undecodable", "urn:nats")
    assert await ack(bus, ctx, second, third) == 2


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["*", ">", "a.b", "a b", "a\r\nPUB x 0", "", "=2A", "ä", "a~b", "a/b", "$JS"])
def test_no_name_reaches_another(name: str) -> None:
    written = token(name)

    assert written
    assert not set(written) & set(".*> \t\r\n~/\\$")
    assert token(name) != token(f"{name}x")


def test_different_names_are_written_differently() -> None:
    names = ["*", ">", ".", "=", "=2A", " ", "", "a", "A", "a.", ".a", "ä", "=C3=A4"]

    assert len({token(name) for name in names}) == len(names)
    assert Names("erp", "a", "b~c").stream != Names("erp", "a~b", "c").stream


@pytest.mark.parametrize("topic", ["a..b", "a.", "a.-", "orders", "orders.eu", "orders-eu", "orders_eu"])
async def test_topics_whose_names_resemble_each_other_stay_apart(
    buses: list[NatsBus], ctx: CallContext, topic: str
) -> None:
    bus = buses[0]
    others = {"a.b", "a", "orders", "orders.eu", "orders.eu.more", "a..b.c"} - {topic}
    for other in others:
        await publish(bus, ctx, other, topic=other)
    await publish(bus, ctx, "mine", topic=topic)

    assert ids(await pull(bus, ctx, topic=topic)) == ["emine"]


# -- receipts --------------------------------------------------------------------------------------


def test_a_receipt_is_good_once_and_until_its_time() -> None:
    reply = f"$JS.ACK.s.{'0' * 32}-u.1.2.3.4.5"
    good, lapsed = Receipt.of_reply(reply, 30), Receipt.of_reply(reply, -1)
    receipts = Receipts()

    assert receipts.take([str(good), str(lapsed), "x", f"{'0' * 32}-u.1.2.3.4.*", str(good)]) == [good]
    receipts.use([good])
    assert receipts.take([str(good)]) == []
    receipts.give_back([good])
    assert receipts.take([str(good)]) == [good]


def test_a_receipt_with_domain_and_account_is_read_alike() -> None:
    short, long = (f"$JS.ACK.{place}s.{'0' * 32}-3.1.2.3.4.5{tail}" for place, tail in (("", ""), ("hub.ABCD.", ".x")))

    assert Receipt.of_reply(long, 30)[:6] == Receipt.of_reply(short, 30)[:6]


# -- failures --------------------------------------------------------------------------------------


async def _persist(bus: NatsBus, ctx: CallContext, numbers: range, answered: dict[str, str]) -> None:
    """Publish events, each as often as it takes, and note the positions that were answered."""
    for number in numbers:
        while f"e{number}" not in answered:
            try:
                answered[f"e{number}"] = (await publish(bus, ctx, number)).position
            except ProviderError as error:
                if error.code not in {"unavailable", "outcome_unknown"}:
                    raise
                await asyncio.sleep(0.02)


async def test_a_killed_server_loses_and_doubles_nothing(
    server: NatsServer, open_context: OpenContext, ctx: CallContext
) -> None:
    bus = NatsBus(server.config(), open_context)
    await bus.open()
    answered: dict[str, str] = {}
    work = asyncio.gather(*(_persist(bus, ctx, range(offset, 400, 8), answered) for offset in range(8)))

    for _ in range(3):
        enough = min(len(answered) + 40, 400)
        while len(answered) < enough:  # noqa: ASYNC110  (what it waits for is a count)
            await asyncio.sleep(0.005)
        server.kill()
        await server.started()
    await asyncio.wait_for(work, 60)

    found = await pull(bus, ctx, max_events=1000, wait_seconds=10)
    assert len(found) == 400
    assert {one.event.id: one.position for one in found} == answered
    await bus.close()


async def test_a_publish_whose_answer_is_lost_is_settled_by_repeating_it(
    server: NatsServer, open_context: OpenContext, ctx: CallContext
) -> None:
    async with broken_link(server.port) as link:
        bus = NatsBus({**server.config(), "url": f"nats://127.0.0.1:{link.port}"}, open_context)
        await bus.open()
        link.swallows_answers = True
        waiting = asyncio.ensure_future(publish(bus, ctx, 1))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        client = await bus._channel.client()
        await client.close()

        with pytest.raises(ProviderError) as caught:
            await waiting

        assert caught.value.code == "outcome_unknown"
        link.swallows_answers = False
        assert (await publish(bus, ctx, 1)).duplicate is True
        assert len(await pull(bus, ctx)) == 1
        await bus.close()


async def test_a_publish_into_a_black_hole_that_its_caller_gave_up_is_settled_by_repeating_it(
    server: NatsServer, open_context: OpenContext, ctx: CallContext
) -> None:
    async with broken_link(server.port) as link:
        bus = NatsBus({**server.config(), "url": f"nats://127.0.0.1:{link.port}"}, open_context)
        await bus.open()
        link.swallows_answers = True
        with pytest.raises(TimeoutError):  # of which the layer makes outcome_unknown
            await asyncio.wait_for(publish(bus, ctx, 1), 0.3)
        link.swallows_answers = False

        again = await publish(bus, ctx, 1)

        assert again.duplicate is True
        assert [one.position for one in await pull(bus, ctx)] == [again.position]
        await bus.close()


@pytest.mark.slow
async def test_a_receipt_from_before_a_replay_confirms_nothing(buses: list[NatsBus], ctx: CallContext) -> None:
    bus = buses[0]
    for number in range(3):
        await publish(bus, ctx, number)
    before = await pull(bus, ctx)
    await bus.replay(api.ReplayRequest(topic="t", group="g", from_position="0"), ctx)

    assert await ack(bus, ctx, *before) == 0
    assert ids(await pull(bus, ctx)) == ["e0", "e1", "e2"]


async def test_consuming_goes_on_after_the_server_was_killed(
    server: NatsServer, open_context: OpenContext, ctx: CallContext
) -> None:
    bus = NatsBus(server.config(), open_context)
    await bus.open()
    for number in range(10):
        await publish(bus, ctx, number)
    first = await pull(bus, ctx, max_events=4)
    await ack(bus, ctx, *first)

    server.kill()
    with pytest.raises(ProviderError) as caught:
        await pull(bus, ctx)
    assert caught.value.code == "unavailable"
    assert (await bus.health()).status == "down"
    await server.started()

    open_ = {f"e{number}" for number in range(4, 10)}
    async with asyncio.timeout(30):
        while open_:  # NATS writes acknowledgements down a little later: those of the last moment come again
            try:
                open_ -= set(ids(await pull(bus, ctx, wait_seconds=1)))
            except ProviderError as error:
                if error.code != "unavailable":
                    raise
                await asyncio.sleep(0.05)
    await bus.close()


async def test_an_answer_of_replay_by_time_lies_before_the_first_event_since(
    buses: list[NatsBus], ctx: CallContext
) -> None:
    bus = buses[0]
    first = await publish(bus, ctx, 1)
    request = api.ReplayRequest(topic="t", group="g", from_time=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))

    moved = await bus.replay(request, ctx)

    assert int(moved.position) == int(first.position) - 1
    assert ids(await pull(bus, ctx)) == ["e1"]
