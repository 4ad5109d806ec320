"""Runs a plan: bulkhead, breaker, deadline and retries around the provider's method."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime import effects
from erp.runtime.deadline import TimeLimit
from erp.runtime.effects import may_have_happened
from erp.runtime.resilience import retry_pause
from erp.runtime.translation import is_cancelled, translated

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
    await _take_token(plan)
    opened = plan.opened
    if opened is None:
        return await _repeated(plan, request, context)
    opened.enter()
    try:
        return await _repeated(plan, request, context)
    finally:
        opened.leave()


async def _take_token(plan: Plan) -> None:
    wait = await _seconds_to_token(plan)
    if wait:
        raise ProviderError(ErrorCode.RATE_LIMITED, "The connection's rate limit is reached.", retry_after_seconds=wait)


async def _seconds_to_token(plan: Plan) -> float:
    """Take a token. Return 0.0, or the seconds to wait when there is none."""
    wait = plan.bucket.take()
    return wait or (await plan.shared_rate.take() if plan.shared_rate is not None else 0.0)


async def _repeated(plan: Plan, request: Any, context: CallContext) -> Any:
    attempt = 0
    was_cut_off = False
    while True:
        await _admit(plan, context)
        try:
            return await _attempt(plan, request, context)
        except ProviderError as error:
            doubted = effects.of_a_second_run(error) if was_cut_off else error
            if doubted is not error:
                raise doubted from error
            was_cut_off |= plan.action.is_effectful and error.code is ErrorCode.TIMEOUT
            pause = retry_pause(plan.policy.retry, attempt, error.retry_after_seconds)
            attempt += 1
            if not _may_retry(plan, error, attempt, context):
                raise
            if not await _may_go_on(plan, pause, context):
                raise
            context.is_doubtful = context.is_doubtful or may_have_happened(error)
        context.emitted.clear()


async def _may_go_on(plan: Plan, pause: float, context: CallContext) -> bool:
    """Wait for the next attempt, which counts against the rate limit as the first did; False: not before the deadline."""
    while pause < context.remaining_seconds():
        await asyncio.sleep(pause)
        pause = await _seconds_to_token(plan)
        if not pause:
            return True
    return False


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
    if context.remaining_seconds() <= 0:
        raise ProviderError(ErrorCode.UNAVAILABLE, f"The call's deadline passed before {plan.provider} was asked.")
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


async def _queue(plan: Plan, context: CallContext) -> None:
    seconds = min(context.remaining_seconds(), plan.policy.timeout_seconds)
    try:
        async with asyncio.timeout(seconds):
            await plan.gate.wait_to_enter()
    except TimeoutError:
        message = "The call waited for a free place on its connection until its deadline."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0) from None


async def _attempt(plan: Plan, request: Any, context: CallContext) -> Any:
    """Run the method once, in the place that ``_admit`` took, and tell the breaker how it went."""
    try:
        result = await _within_deadline(plan, request, context)
    except BaseException as error:
        _judge(plan.breaker, error)
        raise
    else:
        _judge(plan.breaker, None)
        return result
    finally:
        plan.gate.leave()


def _judge(breaker: CircuitBreaker | None, failure: BaseException | None) -> None:
    if breaker is None:
        return
    if failure is None:
        breaker.succeeded()
    elif not isinstance(failure, ProviderError):
        breaker.abandoned()
    elif failure.code in _FAULTS:
        breaker.failed()
    else:
        breaker.succeeded()


async def _within_deadline(plan: Plan, request: Any, context: CallContext) -> Any:
    started = time.perf_counter()
    limit = TimeLimit(context.remaining_seconds())
    try:
        return await limit.keep(plan.method(request, context))
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise _stopped(plan, context) from None
    except Exception as error:
        # A method cut off by its deadline may raise anything on its way out, so the deadline decides.
        if limit.is_expired:
            raise _too_late(plan, context) from error
        made = _failure(plan, error)
        if made is error:
            raise
        raise made from error
    finally:
        if plan.opened is not None:
            context.provider_seconds += time.perf_counter() - started


def _failure(plan: Plan, error: Exception) -> ProviderError:
    made = _of_a_read(plan, translated(plan.translate_by, error, plan.provider))
    if made.code is ErrorCode.UNAUTHENTICATED and plan.opened is not None:
        plan.opened.on_refused(plan.opened.connection)
    return made


def _of_a_read(plan: Plan, error: ProviderError) -> ProviderError:
    """Return the failure; a read has no outcome that could be unknown, and may simply be made again."""
    if plan.action.is_effectful or error.code is not ErrorCode.OUTCOME_UNKNOWN:
        return error
    return ProviderError(ErrorCode.UNAVAILABLE, error.message, detail=error.detail)


def _stopped(plan: Plan, context: CallContext) -> ProviderError:
    if _may_double(plan, context):
        message = f"{plan.provider} stopped in the middle of {plan.action.ref}, which may have taken effect."
        return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)
    return ProviderError(ErrorCode.UNAVAILABLE, f"{plan.provider} stopped in the middle of {plan.action.ref}.")


def _too_late(plan: Plan, context: CallContext) -> ProviderError:
    if _may_double(plan, context):
        message = f"{plan.provider} did not answer in time; {plan.action.ref} may have taken effect."
        return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)
    return ProviderError(ErrorCode.TIMEOUT, f"{plan.provider} did not answer {plan.action.ref} in time.")


def _may_double(plan: Plan, context: CallContext) -> bool:
    return plan.action.is_effectful and not may_repeat(plan, context)


@contextlib.asynccontextmanager
async def entered(plan: Plan, context: CallContext) -> AsyncIterator[None]:
    """Hold the plan's places for as long as a stream lasts."""
    await _take_token(plan)
    opened = plan.opened
    if opened is not None:
        opened.enter()
    try:
        await _admit(plan, context)
        try:
            yield
        finally:
            plan.gate.leave()
            if plan.breaker is not None:
                plan.breaker.abandoned()
    finally:
        if opened is not None:
            opened.leave()


async def items(plan: Plan, request: Any, context: CallContext) -> AsyncGenerator[Any]:
    """Yield what a streaming method yields, its failures translated.

    An item proves that the peer answers, so a probing breaker closes without waiting for the end.
    """
    try:
        async with aclosing(_translated_items(plan, request, context)) as source:
            async for item in source:
                _judge(plan.breaker, None)
                yield item
    except ProviderError as error:
        _judge(plan.breaker, error)
        raise
    _judge(plan.breaker, None)


async def _translated_items(plan: Plan, request: Any, context: CallContext) -> AsyncGenerator[Any]:
    source: Any = plan.method(request, context)
    try:
        async for item in source:
            yield item
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise _stopped(plan, context) from None
    except Exception as error:
        made = _failure(plan, error)
        if made is error:
            raise
        raise made from error
    finally:
        await source.aclose()
