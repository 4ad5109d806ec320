"""Bulkhead, breaker, token bucket and pauses, each at its edges."""

import asyncio

import pytest

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import resilience
from erp.runtime.call_policy import Breaker, Bulkhead, Rate, Retry
from erp.runtime.resilience import BulkheadGate, CircuitBreaker, TokenBucket, retry_pause

pytestmark = pytest.mark.anyio


class Clock:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(resilience, "time", made)
    return made


async def test_a_bulkhead_lets_its_limit_in_and_queues_the_next() -> None:
    gate = BulkheadGate(Bulkhead(max_concurrency=2, max_queue=1))

    assert [gate.try_enter(), gate.try_enter(), gate.try_enter()] == [True, True, False]
    waiting = asyncio.create_task(gate.wait_to_enter())
    await asyncio.sleep(0)
    gate.leave()
    await asyncio.wait_for(waiting, 30)

    assert gate.running == 2


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    gate = BulkheadGate(Bulkhead(max_concurrency=1, max_queue=0))
    gate.try_enter()

    with pytest.raises(ProviderError) as refused:
        await gate.wait_to_enter()

    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert refused.value.retry_after_seconds == 1.0
    assert gate.running == 1
    gate.leave()
    assert gate.try_enter()


async def test_a_cancelled_waiter_leaves_no_place_taken() -> None:
    gate = BulkheadGate(Bulkhead(max_concurrency=1, max_queue=5))
    gate.try_enter()
    waiting = asyncio.create_task(gate.wait_to_enter())
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.leave()

    assert gate.running == 0


async def test_a_cancelled_waiter_makes_room_in_the_queue_at_once() -> None:
    gate = BulkheadGate(Bulkhead(max_concurrency=1, max_queue=1))
    gate.try_enter()
    for _ in range(3):
        waiting = asyncio.create_task(gate.wait_to_enter())
        await asyncio.sleep(0)
        assert gate.waiting == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert gate.waiting == 0


async def test_a_place_given_to_a_waiter_that_is_being_cancelled_goes_to_the_next() -> None:
    gate = BulkheadGate(Bulkhead(max_concurrency=1, max_queue=5))
    gate.try_enter()
    first, second = (asyncio.create_task(gate.wait_to_enter()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    gate.leave()
    await asyncio.gather(first, return_exceptions=True)

    await asyncio.wait_for(second, 30)
    assert (gate.running, gate.waiting) == (1, 0)
    gate.leave()
    assert gate.running == 0


async def test_a_waiter_cancelled_after_it_was_let_in_gives_its_place_back() -> None:
    gate = BulkheadGate(Bulkhead(max_concurrency=1, max_queue=5))
    gate.try_enter()
    waiting = asyncio.create_task(gate.wait_to_enter())
    await asyncio.sleep(0)

    gate.leave()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert gate.running == 0


def test_a_breaker_opens_after_its_threshold_and_closes_after_a_good_probe(clock: Clock) -> None:
    breaker = CircuitBreaker(Breaker(failure_threshold=3, window_seconds=10, open_seconds=5))
    for _ in range(3):
        breaker.check()
        breaker.failed()

    assert breaker.state == "open"
    with pytest.raises(ProviderError) as refused:
        breaker.check()
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert refused.value.retry_after_seconds == 5.0

    clock.now += 5
    assert breaker.state == "half_open"
    breaker.check()
    with pytest.raises(ProviderError):
        breaker.check()
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.check()


def test_a_failed_probe_opens_the_breaker_anew(clock: Clock) -> None:
    breaker = CircuitBreaker(Breaker(failure_threshold=1, window_seconds=10, open_seconds=5))
    breaker.failed()
    clock.now += 5
    breaker.check()
    breaker.failed()

    assert breaker.state == "open"
    clock.now += 5
    breaker.check()
    breaker.succeeded()
    assert breaker.state == "closed"


def test_an_abandoned_probe_lets_the_next_one_through(clock: Clock) -> None:
    breaker = CircuitBreaker(Breaker(failure_threshold=1, window_seconds=10, open_seconds=5))
    breaker.failed()
    clock.now += 5
    breaker.check()
    breaker.abandoned()

    breaker.check()


def test_failures_spread_over_more_than_the_window_do_not_open_the_breaker(clock: Clock) -> None:
    breaker = CircuitBreaker(Breaker(failure_threshold=3, window_seconds=10, open_seconds=5))
    for _ in range(6):
        breaker.failed()
        clock.now += 6

    assert breaker.state == "closed"


def test_a_token_bucket_allows_its_burst_then_its_rate(clock: Clock) -> None:
    bucket = TokenBucket(Rate(requests=10, period_seconds=1.0, burst=3))

    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() == pytest.approx(0.1)
    clock.now += 0.1001
    assert bucket.take() == 0.0
    assert bucket.remaining == 0


def test_a_bucket_never_holds_more_than_its_burst(clock: Clock) -> None:
    bucket = TokenBucket(Rate(requests=10, period_seconds=1.0, burst=3))
    clock.now += 3600

    assert [bucket.take() for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take() > 0


def test_pauses_grow_to_the_cap_and_honour_what_the_peer_asked_for() -> None:
    retry = Retry(max_attempts=5, base_seconds=0.1, cap_seconds=0.4)

    assert all(0 <= retry_pause(retry, attempt) <= 0.1 * 2**attempt for attempt in range(3) for _ in range(50))
    assert all(retry_pause(retry, 20) <= 0.4 for _ in range(50))
    assert retry_pause(retry, 0, asked_seconds=7.0) == 7.0
