"""Breaker, bulkhead and rate around a provider's method, called once or streaming."""

import asyncio
from typing import Any

import pytest
from tests.conftest import MakeCallContext
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import KeyRequest, ToyResult, hang

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import execution
from erp.runtime.context import CallContext
from erp.runtime.plan import Plan

pytestmark = pytest.mark.anyio

REQUEST = KeyRequest(key="a")
DOWN = ("unavailable", "Down.")


async def failure(plan: Plan, context: CallContext) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await execution.run(plan, REQUEST, context)
    return caught.value


# -- breaker and bulkhead ------------------------------------------------------------------------


async def test_a_failing_peer_is_left_alone_and_asked_again_later(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned(breaker={"failure_threshold": 2, "open_seconds": 0.05}, retry={"max_attempts": 1})
    toy.script.fails(ProviderError(*DOWN), ValueError("x"))
    for _ in range(2):
        await failure(plan, call_context())

    refused = await failure(plan, call_context())
    assert (refused.code, toy.script.attempts) == (ErrorCode.UNAVAILABLE, 2)
    assert refused.retry_after_seconds is not None

    await asyncio.sleep(0.06)
    assert (await execution.run(plan, REQUEST, call_context())).value == "recovered"
    assert plan.breaker is not None
    assert plan.breaker.state == "closed"


async def test_an_opening_breaker_ends_the_retries(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned(breaker={"failure_threshold": 2}, retry={"max_attempts": 5, "base_seconds": 0})
    toy.script.fails(*(ProviderError("unavailable", str(number)) for number in range(5)))

    assert (await failure(plan, call_context())).message == "1"
    assert toy.script.attempts == 2


async def test_failures_of_the_caller_do_not_open_the_breaker(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned(breaker={"failure_threshold": 1})
    toy.script.fails(ProviderError("not_found", "no"), ProviderError("invalid_argument", "no"))
    for _ in range(2):
        await failure(plan, call_context())

    assert plan.breaker is not None
    assert plan.breaker.state == "closed"


async def test_a_cancelled_probe_lets_the_next_one_through(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned(breaker={"failure_threshold": 1, "open_seconds": 0.02}, retry={"max_attempts": 1})
    toy.script.fails(ProviderError(*DOWN))
    await failure(plan, call_context())
    await asyncio.sleep(0.03)
    toy.script.method = hang
    probe = asyncio.create_task(execution.run(plan, REQUEST, call_context()))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)

    toy.script.method = None
    assert (await execution.run(plan, REQUEST, call_context())).value == "a"


async def test_a_probe_that_finds_no_place_lets_the_next_one_through(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned(
        bulkhead={"max_concurrency": 1, "max_queue": 0},
        breaker={"failure_threshold": 1, "open_seconds": 0.01},
        retry={"max_attempts": 1},
    )
    assert plan.breaker is not None
    plan.breaker.failed()
    await asyncio.sleep(0.02)
    plan.gate.try_enter()
    assert (await failure(plan, call_context())).message == "Too many calls are waiting for this connection."

    plan.gate.leave()
    assert (await execution.run(plan, REQUEST, call_context())).value == "a"


async def test_the_bulkhead_queues_some_and_refuses_the_rest(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned(bulkhead={"max_concurrency": 1, "max_queue": 1}, retry={"max_attempts": 1})
    go = asyncio.Event()

    async def wait(*_: Any) -> ToyResult:
        await go.wait()
        return ToyResult(value="done")

    toy.script.method = wait
    tasks = [asyncio.create_task(execution.run(plan, REQUEST, call_context())) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert (toy.script.attempts, plan.gate.waiting) == (1, 1)
    go.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)

    assert ended[:2] == [ToyResult(value="done")] * 2
    assert isinstance(ended[2], ProviderError)
    assert (ended[2].code, ended[2].retry_after_seconds) == (ErrorCode.UNAVAILABLE, 1.0)
    assert plan.gate.running == 0


async def test_a_call_waits_for_a_place_no_longer_than_its_deadline(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned(bulkhead={"max_concurrency": 1, "max_queue": 1})
    plan.gate.try_enter()

    for _ in range(3):
        error = await failure(plan, call_context(seconds=0.01))
        assert error.message == "The call waited for a free place on its connection until its deadline."
    assert plan.gate.waiting == 0
    plan.gate.leave()
    assert (await execution.run(plan, REQUEST, call_context())).value == "a"


async def test_beyond_its_rate_a_connection_refuses_all_its_actions(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned(rate={"requests": 2, "period_seconds": 60})
    put = await toy.plans.find("acme", toy.catalog.action("providers", "toy", "put"), "box", "default")
    await execution.run(plan, REQUEST, call_context())
    await execution.run(put, REQUEST, call_context())

    error = await failure(plan, call_context())

    assert (error.code, toy.script.attempts) == (ErrorCode.RATE_LIMITED, 2)
    assert error.retry_after_seconds == pytest.approx(30, abs=1)


async def test_a_provider_is_not_closed_under_a_call_that_waits_for_its_place(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned(bulkhead={"max_concurrency": 1, "max_queue": 5})
    plan.gate.try_enter()
    waiting = asyncio.create_task(execution.run(plan, REQUEST, call_context()))
    await asyncio.sleep(0)

    toy.pool.discard("acme", "toy", "box", "default")
    await asyncio.sleep(0.01)
    assert toy.script.closed == []
    plan.gate.leave()

    assert (await waiting).value == "a"
    await asyncio.sleep(0.01)
    assert toy.script.closed == toy.script.opened


# -- streams -------------------------------------------------------------------------------------


async def streamed(plan: Plan, context: CallContext) -> list[Any]:
    async with execution.entered(plan, context):
        return [item.value async for item in execution.items(plan, REQUEST, context)]


async def broken_stream(plan: Plan, context: CallContext) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await streamed(plan, context)
    return caught.value


async def test_the_failures_of_a_stream_are_translated_and_open_the_breaker(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned("watch", breaker={"failure_threshold": 1, "open_seconds": 0.03})
    toy.script.items = [1, ConnectionResetError("gone")]

    assert (await broken_stream(plan, call_context())).code is ErrorCode.UNAVAILABLE
    assert plan.breaker is not None
    assert plan.breaker.state == "open"
    assert "calls are paused" in (await broken_stream(plan, call_context())).message
    assert toy.script.streams_ended == 1

    await asyncio.sleep(0.04)
    toy.script.items = [1, 2]
    assert await streamed(plan, call_context()) == [1, 2]
    assert plan.breaker.state == "closed"


async def test_the_first_item_of_a_probing_stream_closes_the_breaker(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned("watch", breaker={"failure_threshold": 1, "open_seconds": 0.01})
    assert plan.breaker is not None
    plan.breaker.failed()
    await asyncio.sleep(0.02)
    toy.script.items = [1, 2]
    context = call_context()
    async with execution.entered(plan, context):
        assert plan.breaker.state == "half_open"
        states = [plan.breaker.state async for _ in execution.items(plan, REQUEST, context)]

    assert states == ["closed", "closed"]


async def test_a_probing_stream_that_is_left_lets_the_next_one_through(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned("watch", breaker={"failure_threshold": 1, "open_seconds": 0.01})
    assert plan.breaker is not None
    plan.breaker.failed()
    await asyncio.sleep(0.02)
    async with execution.entered(plan, call_context()):
        pass

    toy.script.items = [1]
    assert await streamed(plan, call_context()) == [1]


async def test_a_stream_holds_its_place_until_it_ends(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned("watch", bulkhead={"max_concurrency": 1, "max_queue": 0})
    async with execution.entered(plan, call_context()):
        assert plan.gate.running == 1
        assert (await broken_stream(plan, call_context())).code is ErrorCode.UNAVAILABLE

    assert await streamed(plan, call_context()) == []


async def test_a_stream_waits_for_a_place_no_longer_than_its_time_limit(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned("watch", timeout_seconds=0.02, bulkhead={"max_concurrency": 1, "max_queue": 1})
    plan.gate.try_enter()

    assert (await broken_stream(plan, call_context(deadline=float("inf")))).code is ErrorCode.UNAVAILABLE
    plan.gate.leave()
    assert await streamed(plan, call_context()) == []


async def test_a_cancellation_inside_a_stream_is_a_failure(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned("watch")
    toy.script.items = [1, asyncio.CancelledError()]

    assert (await broken_stream(plan, call_context())).code is ErrorCode.UNAVAILABLE
