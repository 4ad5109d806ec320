"""What ``bus/rabbitmq`` promises beyond its contract, on a live node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from tests.conformance.live.bus_rabbitmq import VARIABLE, config
from tests.support.broken_link import broken_link

from erp.contracts.models import bus as api
from erp.errors import ProviderError
from erp.providers.bus.rabbitmq.provider import RabbitBus, whole
from erp.providers.bus.rabbitmq.topology import Names, Place
from erp.runtime.context import CallContext
from erp.runtime.spi import ErrorCode, OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.0/8")


@pytest.fixture
def settings() -> dict[str, Any]:
    address = os.environ.get(VARIABLE)
    if not address:
        pytest.skip(f"needs {VARIABLE}")
    return {**config(address), "max_deliveries": 2}


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context(seconds=60)
    return made


@pytest.fixture
async def buses(settings: dict[str, Any], open_context: OpenContext) -> AsyncIterator[list[RabbitBus]]:
    """Two open providers of one connection, as two processes have them."""
    made = [RabbitBus(settings, open_context) for _ in range(2)]
    for one in made:
        await one.open()
    yield made
    for one in made:
        await one.close()


async def publish(bus: RabbitBus, ctx: CallContext, number: int | str, topic: str = "t") -> api.PublishResult:
    event = api.CloudEvent(id=f"e{number}", source="/test", type="test.happened")
    return await bus.publish(api.PublishRequest(topic=topic, event=event), ctx)


async def pull(bus: RabbitBus, ctx: CallContext, topic: str = "t", group: str = "g", **more: Any) -> list[api.Delivery]:
    return (await bus.pull(api.PullRequest(topic=topic, group=group, **more), ctx)).deliveries


async def ack(bus: RabbitBus, ctx: CallContext, *deliveries: api.Delivery) -> int:
    return (await bus.ack(api.AckRequest(ack_ids=[one.ack_id for one in deliveries]), ctx)).acknowledged


def ids(deliveries: list[api.Delivery]) -> list[str]:
    return [one.event.id for one in deliveries]


async def test_a_group_that_two_processes_make_at_once_gets_its_events_once(
    buses: list[RabbitBus], ctx: CallContext
) -> None:
    for number in range(20):
        await publish(buses[0], ctx, number)

    found = await asyncio.gather(*(pull(bus, ctx) for bus in buses))

    assert sorted(ids([*found[0], *found[1]])) == sorted(f"e{number}" for number in range(20))


async def test_what_a_process_held_that_went_away_is_delivered_to_another(
    buses: list[RabbitBus], ctx: CallContext
) -> None:
    first, second = buses
    await publish(first, ctx, 1)
    (held,) = await pull(first, ctx)
    assert await pull(second, ctx) == []
    assert await ack(second, ctx, held) == 0

    await first.close()

    (again,) = await pull(second, ctx, wait_seconds=20)
    assert (again.event.id, again.delivery) == ("e1", 2)
    assert await ack(second, ctx, again) == 1


async def test_an_event_whose_last_delivery_lapsed_is_set_aside_and_announced(
    buses: list[RabbitBus], ctx: CallContext, call_context: Any
) -> None:
    bus = buses[0]
    await publish(bus, ctx, 1)
    for delivery in (1, 2):
        (found,) = await pull(bus, ctx, visibility_seconds=0.1, wait_seconds=20)
        assert found.delivery == delivery
    await asyncio.sleep(0.3)
    later = call_context(seconds=60)

    assert await pull(bus, later) == []

    assert [one.data["event_id"] for one in later.emitted] == ["e1"]
    letters: list[api.DeadLetter] = []
    async with asyncio.timeout(30):
        while not letters:  # moved by RabbitMQ, a moment later
            letters = (await buses[1].list_dead_letters(api.ListDeadLettersRequest(topic="t", group="g"), ctx)).items
    assert (letters[0].event.id, letters[0].deliveries) == ("e1", 2)
    requeued = await buses[1].requeue_dead_letters(api.RequeueDeadLettersRequest(ids=[letters[0].id]), ctx)
    assert requeued.requeued == 1
    (again,) = await pull(buses[1], ctx, wait_seconds=20)
    assert (again.event.id, again.delivery) == ("e1", 1)
    assert (await bus.list_dead_letters(api.ListDeadLettersRequest(), ctx)).items == []


async def test_dead_letters_are_listed_by_pages(buses: list[RabbitBus], ctx: CallContext) -> None:
    bus = buses[0]
    for number in range(5):
        await publish(bus, ctx, number)
    for _ in range(2):
        deliveries = await pull(bus, ctx, wait_seconds=20)
        await bus.nack(api.NackRequest(ack_ids=[one.ack_id for one in deliveries], reason="no"), ctx)

    first = await bus.list_dead_letters(api.ListDeadLettersRequest(limit=3), ctx)
    rest = await bus.list_dead_letters(api.ListDeadLettersRequest(limit=3, cursor=first.next_cursor), ctx)

    assert [one.event.id for one in [*first.items, *rest.items]] == [f"e{number}" for number in range(5)]
    assert isinstance(first.next_cursor, str)
    assert not isinstance(rest.next_cursor, str)


async def test_a_publish_whose_confirmation_is_lost_says_so(
    settings: dict[str, Any], open_context: OpenContext, ctx: CallContext
) -> None:
    url = urlsplit(settings["url"])
    async with broken_link(url.port or 0) as link:
        bus = RabbitBus({**settings, "url": f"amqp://127.0.0.1:{link.port}"}, open_context)
        await bus.open()
        await publish(bus, ctx, 0)
        link.swallows_answers = True
        waiting = asyncio.ensure_future(publish(bus, ctx, 1))
        await asyncio.sleep(0.3)
        await link.cut()

        with pytest.raises(ProviderError) as caught:
            await waiting

        assert caught.value.code == "outcome_unknown"
        link.swallows_answers = False
        await publish(bus, ctx, 1)
        found = ids(await pull(bus, ctx, wait_seconds=20))
        # At least once: RabbitMQ knows no ids, so the repetition is an event of its own.
        assert found[0] == "e0"
        assert set(found) == {"e0", "e1"}
        await bus.close()


async def bindings(bus: RabbitBus, action: str) -> None:
    """Bind the stream of topic ``t`` to its exchange, or end that, as an operator might."""
    names = bus._names
    async with await aio_pika.connect(os.environ[VARIABLE]) as other:
        channel = await other.channel()
        queue = await channel.get_queue(names.stream("t"), ensure=False)
        await getattr(queue, action)(names.exchange("t"))


async def test_an_event_that_no_stream_took_is_refused_and_the_next_ones_are_kept(
    buses: list[RabbitBus], ctx: CallContext
) -> None:
    bus = buses[0]
    await publish(bus, ctx, 0)
    await bindings(bus, "unbind")

    with pytest.raises(ProviderError) as caught:
        await publish(bus, ctx, 1)

    assert (caught.value.code, caught.value.retryable) == ("unavailable", True)
    await bindings(bus, "bind")
    for number in (2, 3):
        await publish(bus, ctx, number)
    assert ids(await pull(bus, ctx, wait_seconds=20)) == ["e0", "e2", "e3"]


async def test_events_at_once_that_no_stream_took_are_all_refused_and_the_next_is_kept(
    buses: list[RabbitBus], ctx: CallContext
) -> None:
    bus = buses[0]
    await publish(bus, ctx, 0)
    await bindings(bus, "unbind")

    refused = await asyncio.gather(*(publish(bus, ctx, number) for number in range(1, 5)), return_exceptions=True)

    assert [one.code for one in refused if isinstance(one, ProviderError)] == ["unavailable"] * 4
    await bindings(bus, "bind")
    await publish(bus, ctx, 5)
    assert ids(await pull(bus, ctx, wait_seconds=20)) == ["e0", "e5"]


REFUSED = ProviderError(ErrorCode.UNAVAILABLE, "no")
DOUBTFUL = ProviderError(ErrorCode.OUTCOME_UNKNOWN, "perhaps")


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([REFUSED, REFUSED], "unavailable"),
        (["1", REFUSED], "outcome_unknown"),
        ([REFUSED, DOUBTFUL], "outcome_unknown"),
    ],
)
def test_a_batch_of_which_a_part_may_be_published_is_in_doubt(outcomes: list[Any], code: str) -> None:
    with pytest.raises(ProviderError) as caught:
        whole(outcomes)
    assert caught.value.code == code


def test_a_batch_that_was_published_whole_has_its_positions() -> None:
    assert whole(["1", "2"]) == ["1", "2"]


def test_names_of_different_tenants_never_meet_and_too_long_ones_are_refused() -> None:
    names = Names("erp", "acme", "default")

    assert names.queue(Place("a.b", "c")) == "erp:acme:default:g:a.b:c"
    assert names.place(names.queue(Place("a.b", "c"))) == ("a.b", "c")
    assert Names("erp", "a", "b:c").root != Names("erp", "a:b", "c").root
    assert Names("erp", "a#3A", "b").root != Names("erp", "a:", "b").root
    with pytest.raises(ProviderError) as caught:
        names.queue(Place("t" * 200, "g" * 100))
    assert caught.value.errors[0].pointer == "/params/group"


async def test_health_names_the_server_and_its_version(buses: list[RabbitBus]) -> None:
    found = await buses[0].health()

    assert found.status == "ok"
    ((name, version),) = [(one.name, str(one.version)) for one in found.dependencies]
    assert (name, version.split(".")[0].isdigit()) == ("RabbitMQ", True)
