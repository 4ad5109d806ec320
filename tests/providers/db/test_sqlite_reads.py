"""Reads share trips into threads, and still none waits for a slow one or is stopped in place of another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.providers.db.conftest import Caller

from erp.contracts.models import db as api
from erp.errors import ProviderError
from erp.runtime.spi import OpenContext

pytestmark = pytest.mark.anyio

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
ENDLESS_ROWS = ENDLESS.replace("count(*)", "i")


async def held(caller: Caller) -> Any:
    """Return a stream that holds a reader."""
    stream = caller.database.stream(api.StreamRequest(sql=ENDLESS_ROWS, rows_per_item=1), caller.context)
    await anext(stream)
    return stream


async def test_every_read_gets_its_own_answer(caller: Caller) -> None:
    answers = await asyncio.gather(*(caller.rows("select ?", number) for number in range(300)))
    assert answers == [[[number]] for number in range(300)]


@pytest.mark.parametrize("opened", [{"readers": 2}], indirect=True)
async def test_a_slow_read_holds_up_nobody_while_a_reader_is_idle(caller: Caller) -> None:
    slow = asyncio.create_task(caller.rows(ENDLESS))
    await asyncio.sleep(0.01)
    answers = await asyncio.wait_for(asyncio.gather(*(caller.rows("select ?", n) for n in range(20))), 30)
    assert answers == [[[number]] for number in range(20)]
    assert not slow.done()
    slow.cancel()
    assert isinstance((await asyncio.gather(slow, return_exceptions=True))[0], asyncio.CancelledError)
    assert await caller.rows("select 1") == [[1]]


@pytest.mark.parametrize("opened", [{"readers": 1}], indirect=True)
async def test_cancelling_one_read_stops_it_and_no_other(caller: Caller) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) select max(i) from n"
    for round_ in range(20):
        calls = [asyncio.create_task(caller.rows(sql)) for _ in range(4)]
        await asyncio.sleep(0.001 * (round_ % 5))
        calls[round_ % 4].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        others = [result for number, result in enumerate(results) if number != round_ % 4]
        assert others == [[[20000]]] * 3


@pytest.mark.parametrize("opened", [{"readers": 2}], indirect=True)
async def test_reads_wait_while_streams_hold_all_readers_and_then_go_on(caller: Caller) -> None:
    streams = [await held(caller) for _ in range(2)]
    waiting = [asyncio.create_task(caller.rows("select ?", number)) for number in range(5)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    await streams[0].aclose()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [[[number]] for number in range(5)]
    await streams[1].aclose()


@pytest.mark.parametrize("opened", [{"readers": 1}], indirect=True)
async def test_closing_refuses_reads_that_wait_for_a_stream(caller: Caller, open_context: OpenContext) -> None:
    stream = await held(caller)
    waiting = [asyncio.create_task(caller.rows("select 1")) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.wait_for(caller.database.close(), 30)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [result.code for result in results if isinstance(result, ProviderError)] == ["unavailable"] * 3
    await stream.aclose()


async def test_a_failed_read_leaves_the_ones_beside_it_alone(caller: Caller) -> None:
    calls = [caller.rows("select 1" if number % 2 else "select nothing") for number in range(40)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in results if isinstance(result, list)] == [[[1]]] * 20
    assert {result.code for result in results if isinstance(result, ProviderError)} == {"invalid_argument"}
