"""Runs a plan: bulkhead, breaker, deadline and retries around the provider's method."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.resilience import retry_pause
from erp.runtime.translation import translated

if TYPE_CHECKING:
    from erp.runtime.context import CallContext
    from erp.runtime.plan import Plan
    from erp.runtime.resilience import CircuitBreaker

_FAULTS = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.OUTCOME_UNKNOWN, ErrorCode.INTERNAL})
"""Failures that say something bad about the peer."""
_REPEATABLE = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.RATE_LIMITED})
"""Failures after which the same attempt may succeed."""


async def run(plan: Plan, request: Any, context: CallContext) -> Any:
    """Return the result of the plan's method.

    Raises:
        ProviderError: from the closed list; ``outcome_unknown`` when a write that must not be
            repeated ran out of time.
    """
    wait = plan.bucket.take()
    if wait:
        raise ProviderError(ErrorCode.RATE_LIMITED, "The connection's rate limit is reached.", retry_after_seconds=wait)
    attempt = 0
    while True:
        await _admit(plan, context)
        try:
            return await _attempt(plan, request, context)
        except ProviderError as error:
            pause = retry_pause(plan.policy.retry, attempt, error.retry_after_seconds)
            attempt += 1
            if not _may_retry(plan, error, attempt, context) or pause >= context.remaining_seconds():
                raise
        context.emitted.clear()
        await asyncio.sleep(pause)


def _may_retry(plan: Plan, error: ProviderError, attempt: int, context: CallContext) -> bool:
    if attempt >= plan.policy.retry.max_attempts or not error.retryable or error.code not in _REPEATABLE:
        return False
    if plan.breaker is not None and plan.breaker.state == "open":
        return False
    return may_repeat(plan, context)


def may_repeat(plan: Plan, context: CallContext) -> bool:
    """Whether running the plan again cannot double an effect."""
    return plan.may_repeat or (plan.takes_keys and context.idempotency_key is not None)


async def _admit(plan: Plan, context: CallContext) -> None:
    """Pass breaker and bulkhead, or be refused at once: a refusal here is never retried."""
    breaker = plan.breaker
    if breaker is not None:
        breaker.check()
    if plan.gate.try_enter():
        return
    try:
        await _queue(plan, context)
    except BaseException:
        if breaker is not None:
            breaker.abandoned()
        raise


async def _attempt(plan: Plan, request: Any, context: CallContext) -> Any:
    breaker = plan.breaker
    opened = plan.opened
    if opened is not None:
        opened.enter()
    try:
        result = await _within_deadline(plan, request, context)
    except ProviderError as error:
        if breaker is not None:
            _judge(breaker, error)
        raise
    except asyncio.CancelledError:
        if breaker is not None:
            breaker.abandoned()
        raise
    else:
        if breaker is not None:
            breaker.succeeded()
        return result
    finally:
        plan.gate.leave()
        if opened is not None:
            opened.leave()


async def _queue(plan: Plan, context: CallContext) -> None:
    try:
        async with asyncio.timeout(context.remaining_seconds()):
            await plan.gate.wait_to_enter()
    except TimeoutError:
        message = "The call waited for a free place on its connection until its deadline."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0) from None


async def _within_deadline(plan: Plan, request: Any, context: CallContext) -> Any:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(context.remaining_seconds()):
            return await plan.method(request, context)
    except TimeoutError as error:
        raise _too_late(plan, context, error) from None
    except Exception as error:
        made = translated(plan.translate_by, error, plan.provider)
        if made is error:
            raise
        raise made from error
    finally:
        context.provider_seconds += time.perf_counter() - started


def _too_late(plan: Plan, context: CallContext, error: TimeoutError) -> ProviderError:
    if context.remaining_seconds() > 0:
        return translated(plan.translate_by, error, plan.provider)
    if plan.action.is_effectful and not may_repeat(plan, context):
        message = f"{plan.provider} did not answer in time; {plan.action.ref} may have taken effect."
        return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)
    return ProviderError(ErrorCode.TIMEOUT, f"{plan.provider} did not answer {plan.action.ref} in time.")


def _judge(breaker: CircuitBreaker, error: ProviderError) -> None:
    if error.code in _FAULTS:
        breaker.failed()
    else:
        breaker.succeeded()


@contextlib.asynccontextmanager
async def entered(plan: Plan, context: CallContext) -> AsyncIterator[None]:
    """Hold the plan's places for as long as a stream lasts."""
    await _admit(plan, context)
    if plan.opened is not None:
        plan.opened.enter()
    try:
        yield
    finally:
        plan.gate.leave()
        if plan.opened is not None:
            plan.opened.leave()


async def items(plan: Plan, request: Any, context: CallContext) -> AsyncGenerator[Any]:
    """Yield what a streaming method yields, its failures translated."""
    source: Any = plan.method(request, context)
    try:
        async for item in source:
            yield item
    except Exception as error:
        made = translated(plan.translate_by, error, plan.provider)
        if made is error:
            raise
        raise made from error
    finally:
        await source.aclose()
