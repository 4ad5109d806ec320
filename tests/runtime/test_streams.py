"""Streaming calls: refused before the first item, and over when their reader leaves."""

import asyncio
import gc
from typing import Any

import msgspec
import pytest
from tests.runtime.conftest import ToyLayer

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio


async def values(toy: ToyLayer, name: str = "watch") -> list[Any]:
    return [msgspec.json.decode(item)["value"] async for item in await toy.calls.stream(toy.call(name))]


async def refusal(toy: ToyLayer, name: str = "watch", body: bytes | None = None) -> ErrorCode:
    with pytest.raises(ProviderError) as caught:
        await toy.calls.stream(toy.call(name, body))
    return caught.value.code


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_yields_encoded_items_and_leaves(toy: ToyLayer) -> None:
    toy.script.items = [1, 2, 3]

    assert await values(toy) == [1, 2, 3]

    assert toy.steps == ["quota", "policy", "observe"]
    assert toy.observer.ended == [("toy.watch", "ok")]
    assert (toy.calls.in_flight, toy.script.streams_ended) == (0, 1)


async def test_every_refusal_comes_before_the_first_item(toy: ToyLayer) -> None:
    assert await refusal(toy, body=b"{}") is ErrorCode.INVALID_ARGUMENT
    toy.policy.denied = {"toy.watch"}
    assert await refusal(toy) is ErrorCode.PERMISSION_DENIED
    toy.policy.denied = set()
    toy.quotas.left = 0
    assert await refusal(toy) is ErrorCode.QUOTA_EXHAUSTED
    toy.quotas.left = 100
    toy.calls.is_draining = True
    assert await refusal(toy) is ErrorCode.UNAVAILABLE
    toy.calls.is_draining = False
    toy.connections.stored.clear()
    assert await refusal(toy) is ErrorCode.NOT_FOUND

    assert (toy.script.attempts, toy.calls.in_flight) == (0, 0)
    assert len(toy.observer.ended) == 5
    toy.connect()
    toy.script.items = [1]
    assert await values(toy) == [1]


async def test_a_full_connection_and_an_open_breaker_refuse_before_the_first_item(toy: ToyLayer) -> None:
    toy.protect(bulkhead={"max_concurrency": 1, "max_queue": 0}, breaker={"failure_threshold": 1}, rate={"requests": 3})
    stream = await toy.calls.stream(toy.call("watch"))
    assert await refusal(toy) is ErrorCode.UNAVAILABLE
    await stream.aclose()

    [plan] = toy.plans._plans.values()
    assert plan.breaker is not None
    plan.breaker.failed()
    assert await refusal(toy) is ErrorCode.UNAVAILABLE
    assert await refusal(toy) is ErrorCode.RATE_LIMITED


async def test_closing_a_stream_ends_the_providers(toy: ToyLayer) -> None:
    toy.script.items = [1, 2, 3]
    stream = await toy.calls.stream(toy.call("watch"))
    await anext(stream)
    assert (toy.calls.in_flight, toy.script.streams_ended) == (1, 0)

    await stream.aclose()

    assert (toy.calls.in_flight, toy.script.streams_ended) == (0, 1)
    assert toy.observer.ended == [("toy.watch", "cancelled")]


async def test_a_stream_nobody_read_leaves_when_it_is_closed_or_forgotten(toy: ToyLayer) -> None:
    closed = await toy.calls.stream(toy.call("watch"))
    await closed.aclose()
    assert toy.calls.in_flight == 0

    forgotten = await toy.calls.stream(toy.call("watch"))
    assert toy.calls.in_flight == 1
    del forgotten
    gc.collect()
    await settle()

    assert toy.calls.in_flight == 0
    assert toy.script.attempts == 0


async def test_a_reader_cancelled_while_it_waits_ends_the_stream(toy: ToyLayer) -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    toy.script.items = [1, wait]
    reader = asyncio.create_task(values(toy))
    await asyncio.sleep(0.01)
    assert toy.calls.in_flight == 1

    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    await settle()

    assert (toy.calls.in_flight, toy.script.streams_ended) == (0, 1)
    assert toy.observer.ended == [("toy.watch", "cancelled")]


async def test_a_stream_that_fails_says_why_and_leaves(toy: ToyLayer) -> None:
    toy.script.items = [1, ConnectionResetError("gone")]
    stream = await toy.calls.stream(toy.call("watch"))
    assert msgspec.json.decode(await anext(stream))["value"] == 1

    with pytest.raises(ProviderError) as caught:
        await anext(stream)

    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert toy.observer.ended == [("toy.watch", "unavailable")]
    assert (toy.calls.in_flight, toy.script.streams_ended) == (0, 1)
    toy.script.items = [2]
    assert await values(toy) == [2]


async def test_an_item_that_cannot_be_encoded_is_internal(toy: ToyLayer) -> None:
    toy.script.items = [object()]

    with pytest.raises(ProviderError) as caught:
        await values(toy)

    assert caught.value.code is ErrorCode.INTERNAL
    assert toy.observer.ended == [("toy.watch", "internal")]


async def test_a_stream_with_an_effect_is_recorded_before_its_first_item(toy: ToyLayer) -> None:
    toy.script.items = [1]
    stream = await toy.calls.stream(toy.call("record"))

    assert [found.audit.action for found in toy.journal.completions] == ["toy.record"]
    assert toy.script.attempts == 0
    assert [msgspec.json.decode(item)["value"] async for item in stream] == [1]


async def test_a_stream_is_not_cut_off_by_the_time_limit_of_its_action(toy: ToyLayer) -> None:
    async def wait() -> None:
        await asyncio.sleep(0.05)

    toy.protect(timeout_seconds=0.02)
    toy.script.items = [1, wait, 2]

    assert await values(toy) == [1, 2]
