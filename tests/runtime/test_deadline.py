"""A limit that is not needed changes nothing, and one that is needed strikes in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from erp.runtime import deadline
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
    assert time.monotonic() - started < 10


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


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are far off beyond 10 ms."""
    monkeypatch.setattr(deadline, "NEAR_SECONDS", 0.01)
    monkeypatch.setattr(deadline, "LOOK_SECONDS", 0.005)


@pytest.mark.usefixtures("hasty")
async def test_limits_that_were_far_off_strike_in_time_and_in_order() -> None:
    struck = []

    async def one(seconds: float) -> None:
        limit = TimeLimit(seconds)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await limit.keep(asyncio.sleep(30))
        assert limit.is_expired
        assert time.monotonic() - started >= seconds - 0.001
        struck.append(seconds)

    await asyncio.gather(*(one(seconds) for seconds in (0.12, 0.04, 0.005, 0.08)))
    assert struck == [0.005, 0.04, 0.08, 0.12]


@pytest.mark.usefixtures("hasty")
async def test_a_limit_that_was_far_off_leaves_nothing_behind() -> None:
    far_off = deadline._far_off()
    assert await TimeLimit(60).keep(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(LookupError):
        await TimeLimit(60).keep(_failing())
    task = asyncio.create_task(TimeLimit(60).keep(asyncio.sleep(30)))
    await asyncio.sleep(0)
    assert len(far_off._ends) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert far_off._ends == {}
    await asyncio.sleep(0.02)
    assert far_off._timer is None


@pytest.mark.usefixtures("hasty")
def test_each_event_loop_looks_after_its_own_limits() -> None:
    async def struck() -> bool:
        limit = TimeLimit(0.03)
        with pytest.raises(TimeoutError):
            await limit.keep(asyncio.sleep(30))
        return limit.is_expired

    assert [asyncio.run(struck()) for _ in range(3)] == [True, True, True]


async def _failing() -> None:
    await asyncio.sleep(0)
    raise LookupError
