"""A limit that is not needed changes nothing, and one that is needed strikes in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from erp.runtime.deadline import TimeLimit

pytestmark = pytest.mark.anyio


async def test_work_that_never_waits_needs_no_limit() -> None:
    async def work() -> int:
        return 7

    limit = TimeLimit(0)
    assert await limit.keep(work()) == 7
    assert limit.is_expired is False


async def test_work_that_waits_goes_on_where_it_was() -> None:
    async def work() -> list[int]:
        seen = [1]
        await asyncio.sleep(0)
        seen.append(2)
        await asyncio.sleep(0.01)
        seen.append(await asyncio.to_thread(lambda: 3))
        return seen

    assert await TimeLimit(5).keep(work()) == [1, 2, 3]


async def test_the_limit_strikes_and_the_work_can_clean_up() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    limit = TimeLimit(0.02)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await limit.keep(work())
    assert (limit.is_expired, cleaned) == (True, [True])
    assert time.monotonic() - started < 1


async def test_failures_pass_before_and_after_the_first_wait() -> None:
    async def work(waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise LookupError("broken")

    for waits in (False, True):
        with pytest.raises(LookupError, match="broken"):
            await TimeLimit(5).keep(work(waits))


async def test_cancelling_the_caller_cancels_the_work() -> None:
    events = []

    async def work() -> None:
        events.append("started")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    task = asyncio.create_task(TimeLimit(60).keep(work()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["started", "cancelled"]


async def test_limits_inside_the_work_keep_working() -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        except TimeoutError:
            return "inner"
        return "none"

    assert await TimeLimit(5).keep(work()) == "inner"
