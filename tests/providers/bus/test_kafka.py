"""What ``bus/kafka`` promises beyond its contract, on librdkafka's mock cluster, or a broker where there is one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.live.bus_kafka import VARIABLE, config

from erp.contracts.models import bus as api
from erp.errors import ProviderError
from erp.providers.bus.kafka.cluster import Names
from erp.providers.bus.kafka.provider import KafkaBus
from erp.providers.bus.kafka.tracking import Partition
from erp.runtime.context import CallContext
from erp.runtime.spi import UNSET, OpenContext
from erp.vendor_clients.egress import ALLOW_VARIABLE

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_VARIABLE, "127.0.0.0/8")


BROKER = "ERP_TEST_KAFKA"


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those of a broker where one is named, else of the simulator."""
    address = os.environ.get(BROKER) or os.environ.get(VARIABLE)
    if not address:
        pytest.skip(f"needs {BROKER} or {VARIABLE}")
    return {**config(address), "verify_checksums": bool(os.environ.get(BROKER)), "max_deliveries": 2}


@pytest.fixture
def ctx(call_context: Any) -> CallContext:
    made: CallContext = call_context(seconds=60)
    return made


@pytest.fixture
async def bus(settings: dict[str, Any], open_context: OpenContext) -> AsyncIterator[KafkaBus]:
    made = KafkaBus(settings, open_context)
    await made.open()
    yield made
    await made.close()


async def publish(bus: KafkaBus, ctx: CallContext, number: int | str, **more: Any) -> api.PublishResult:
    event = api.CloudEvent(id=f"e{number}", source="/test", type="test.happened")
    return await bus.publish(api.PublishRequest(topic="t", event=event, **more), ctx)


async def pull(bus: KafkaBus, ctx: CallContext, group: str = "g", **more: Any) -> list[api.Delivery]:
    return (await bus.pull(api.PullRequest(topic="t", group=group, **more), ctx)).deliveries


async def ack(bus: KafkaBus, ctx: CallContext, *deliveries: api.Delivery) -> int:
    return (await bus.ack(api.AckRequest(ack_ids=[one.ack_id for one in deliveries]), ctx)).acknowledged


def ids(deliveries: list[api.Delivery]) -> list[str]:
    return [one.event.id for one in deliveries]


def batch(*numbers: int) -> api.PublishBatchRequest:
    events = [api.CloudEvent(id=f"e{number}", source="/test", type="test.happened") for number in numbers]
    return api.PublishBatchRequest(topic="t", events=[api.NewEvent(event=event) for event in events])


@pytest.mark.live
async def test_an_event_confirmed_out_of_turn_comes_again_only_if_the_process_goes_away(
    settings: dict[str, Any], open_context: OpenContext, ctx: CallContext
) -> None:
    first = KafkaBus(settings, open_context)
    await first.open()
    for number in range(3):
        await publish(first, ctx, number)
    found = await pull(first, ctx)
    assert await ack(first, ctx, found[0], found[2]) == 2
    assert await pull(first, ctx) == []
    await first.close()

    second = KafkaBus(settings, open_context)
    await second.open()

    # Kafka keeps one offset for all: that of the first event that nobody has confirmed.
    assert ids(await pull(second, ctx, wait_seconds=20)) == ["e1", "e2"]
    await second.close()


@pytest.mark.live
async def test_a_batch_is_one_transaction(bus: KafkaBus, ctx: CallContext) -> None:
    (await bus.publish_batch(batch(1, 2, 3), ctx))
    producer = await bus._cluster.producer(transactional=True)
    topic = bus._names.events("t")
    partition = (await bus._where(topic, UNSET))[1]
    transaction = producer.transaction()
    await transaction.__aenter__()
    await producer.send_and_wait(
        topic, b'{"specversion":"1.0","id":"half","source":"/s","type":"t"}', partition=partition
    )
    await producer.abort_transaction()
    await bus.publish_batch(batch(4), ctx)

    assert "e4" in ids(await pull(bus, ctx, wait_seconds=20))


@pytest.mark.live
async def test_a_dead_letter_is_requeued_for_its_group_alone(bus: KafkaBus, ctx: CallContext) -> None:
    await publish(bus, ctx, 1, key="k")
    for delivery in (1, 2):
        (found,) = await pull(bus, ctx, visibility_seconds=0.2, wait_seconds=20)
        assert found.delivery == delivery
    await asyncio.sleep(0.3)

    assert await pull(bus, ctx) == []

    assert [one.data["event_id"] for one in ctx.emitted] == ["e1"]
    (letter,) = (await bus.list_dead_letters(api.ListDeadLettersRequest(topic="t", group="g"), ctx)).items
    assert (letter.event.id, letter.deliveries) == ("e1", 2)
    request = api.RequeueDeadLettersRequest(ids=[letter.id])
    assert (await bus.requeue_dead_letters(request, ctx)).requeued == 1
    assert (await bus.requeue_dead_letters(request, ctx)).requeued == 0
    (again,) = await pull(bus, ctx, wait_seconds=20)
    assert (again.event.id, again.delivery, again.key, again.position) == ("e1", 1, "k", letter.position)
    assert len(await pull(bus, ctx, group="other", wait_seconds=20)) == 1


@pytest.mark.live
async def test_a_group_with_members_elsewhere_is_not_moved(
    bus: KafkaBus, settings: dict[str, Any], open_context: OpenContext, ctx: CallContext
) -> None:
    if not os.environ.get(BROKER):
        pytest.skip(f"needs {BROKER}: the simulator cannot share a group")
    await publish(bus, ctx, 1)
    await pull(bus, ctx, wait_seconds=20)
    other = KafkaBus(settings, open_context)
    await other.open()
    await pull(other, ctx)
    request = api.ReplayRequest(topic="t", group="g", from_position="0")

    with pytest.raises(ProviderError) as caught:
        async with asyncio.timeout(30):
            while True:  # until the first has heard of the second
                await other.replay(request, ctx)
                await asyncio.sleep(0.2)

    assert caught.value.code == "failed_precondition"
    await other.close()


def test_names_of_different_tenants_never_meet_and_too_long_ones_are_refused() -> None:
    names = Names("erp", "acme", "default")

    assert names.events("a.b") == "erp.acme.default.e.a.b"
    assert names.requeued("t", "a.b") != names.requeued("b.t", "a")
    assert Names("erp", "a", "b.c").root != Names("erp", "a.b", "c").root
    assert Names("erp", "a_2E", "b").root != Names("erp", "a.", "b").root
    with pytest.raises(ProviderError) as caught:
        names.requeued("t" * 200, "g" * 100)
    assert caught.value.errors[0].pointer == "/params/group"


class Record:
    """What tracking reads of a record."""

    def __init__(self, offset: int, key: bytes | None = None) -> None:
        self.offset, self.key = offset, key


def test_only_what_has_nothing_open_before_it_is_committed() -> None:
    partition = Partition()
    for offset in (4, 6, 7):  # transactions leave gaps
        partition.add(Record(offset))

    assert partition.settle([6]) is None
    assert partition.settle([4]) == 7
    assert partition.settle([7]) == 8
    assert partition.entries == {}


def test_a_key_waits_for_its_earlier_record_and_no_other_does() -> None:
    partition = Partition()
    for offset, key in enumerate((b"a", b"a", b"b", None)):
        partition.add(Record(offset, key))
    first = partition.entries[0]
    first.due_at = time.monotonic() + 60

    assert [one.record.offset for one in partition.due()] == [2, 3]
    partition.settle([0])
    assert [one.record.offset for one in partition.due()] == [1, 2, 3]
