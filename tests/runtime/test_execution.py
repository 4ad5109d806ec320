"""Retries, deadlines and translated failures around a provider's method."""

import asyncio
import time
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


# -- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["unavailable", "timeout", "rate_limited"])
async def test_a_repeatable_call_is_tried_again(toy: ToyLayer, call_context: MakeCallContext, code: str) -> None:
    plan = await toy.planned()
    toy.script.fails(ProviderError(code, "1"), ProviderError(code, "2"))

    assert await execution.run(plan, REQUEST, call_context()) == ToyResult(value="recovered")
    assert toy.script.attempts == 3


@pytest.mark.parametrize(
    ("action", "first", "code"),
    [
        ("put", "timeout", "outcome_unknown"),
        ("put", "unavailable", "failed_precondition"),
        ("get", "timeout", "failed_precondition"),
    ],
)
async def test_what_an_attempt_that_was_cut_off_may_have_done_is_not_held_against_the_next(
    toy: ToyLayer, call_context: MakeCallContext, action: str, first: str, code: str
) -> None:
    plan = await toy.planned(action)
    toy.script.fails(ProviderError(first, "1"), ProviderError("failed_precondition", "It is there."))

    assert (await failure(plan, call_context())).code == code
    assert toy.script.attempts == 2
    assert await execution.run(plan, REQUEST, call_context()) == ToyResult(value="recovered")


async def test_after_its_last_attempt_a_call_fails_with_the_last_error(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned()
    toy.script.fails(*(ProviderError("unavailable", str(number)) for number in (1, 2, 3)))

    assert (await failure(plan, call_context())).message == "3"
    assert toy.script.attempts == 3
    assert await execution.run(plan, REQUEST, call_context()) == ToyResult(value="recovered")


@pytest.mark.parametrize(
    ("action", "provider", "key", "attempts"),
    [
        ("get", "box", None, 2),
        ("put", "box", None, 2),
        ("append", "box", None, 1),
        ("append", "box", "k", 1),
        ("append", "vat", None, 1),
        ("append", "vat", "k", 2),
    ],
)
async def test_a_write_is_repeated_only_where_that_cannot_double_it(
    toy: ToyLayer, call_context: MakeCallContext, action: str, provider: str, key: str | None, attempts: int
) -> None:
    plan = await toy.planned(action, provider=provider)
    toy.script.fails(ProviderError(*DOWN), *[ProviderError(*DOWN)] * (2 - attempts))
    context = call_context(idempotency_key=key)

    if attempts == 1:
        assert (await failure(plan, context)).code is ErrorCode.UNAVAILABLE
    else:
        assert (await execution.run(plan, REQUEST, context)).value == "recovered"
    assert toy.script.attempts == attempts


@pytest.mark.parametrize(
    "error",
    [
        ProviderError("invalid_argument", "no"),
        ProviderError("internal", "no"),
        ProviderError("conflict", "no"),
        ProviderError("unavailable", "no", retryable=False),
    ],
)
async def test_failures_that_would_repeat_are_not_retried(
    toy: ToyLayer, call_context: MakeCallContext, error: ProviderError
) -> None:
    plan = await toy.planned()
    toy.script.fails(error)

    assert await failure(plan, call_context()) is error
    assert toy.script.attempts == 1


async def test_a_read_has_no_outcome_that_could_be_unknown(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned("get")
    toy.script.fails(*[ProviderError("outcome_unknown", "The answer was lost.")] * 3)

    refused = await failure(plan, call_context())

    assert (refused.code, refused.retryable, toy.script.attempts) == ("unavailable", True, 3)
    assert (await execution.run(plan, REQUEST, call_context())).value == "recovered"


async def test_a_write_of_unknown_outcome_is_not_retried(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned("put")
    toy.script.fails(ProviderError("outcome_unknown", "The answer was lost."))

    assert (await failure(plan, call_context())).code == "outcome_unknown"
    assert toy.script.attempts == 1


async def test_a_retry_waits_as_long_as_the_peer_asked(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned()
    toy.script.fails(ProviderError("rate_limited", "Slow down.", retry_after_seconds=0.05))
    started = time.perf_counter()

    await execution.run(plan, REQUEST, call_context())

    assert time.perf_counter() - started >= 0.05
    assert plan.gate.running == 0


async def test_a_pause_beyond_the_deadline_is_not_waited_for(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned()
    toy.script.fails(ProviderError("rate_limited", "Slow down.", retry_after_seconds=30.0))
    started = time.perf_counter()

    error = await failure(plan, call_context(seconds=20))

    assert (error.code, error.retry_after_seconds) == (ErrorCode.RATE_LIMITED, 30.0)
    assert time.perf_counter() - started < 10


async def test_a_call_waiting_for_its_retry_takes_no_place(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned(bulkhead={"max_concurrency": 1, "max_queue": 0})
    toy.script.fails(ProviderError("unavailable", "Down.", retry_after_seconds=0.05))
    waiting = asyncio.create_task(execution.run(plan, REQUEST, call_context()))
    await asyncio.sleep(0.01)

    assert plan.gate.running == 0
    assert (await execution.run(plan, REQUEST, call_context())).value == "recovered"
    assert (await waiting).value == "recovered"


async def test_events_of_a_failed_attempt_are_not_delivered(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned()
    context = call_context()

    async def emit(_: Any, context: CallContext) -> ToyResult:
        context.emit("tried", {"attempt": toy.script.attempts})
        if toy.script.attempts < 3:
            raise ProviderError(*DOWN)
        return ToyResult()

    toy.script.method = emit
    await execution.run(plan, REQUEST, context)

    assert [event.data for event in context.emitted] == [{"attempt": 3}]


# -- deadlines -----------------------------------------------------------------------------------


async def test_a_read_that_takes_too_long_times_out(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned()
    toy.script.method = hang
    context = call_context(seconds=0.02)

    error = await failure(plan, context)

    assert (error.code, error.message) == (ErrorCode.TIMEOUT, "toy/box did not answer toy.get in time.")
    assert 0.01 < context.provider_seconds < 1
    toy.script.method = None
    assert (await execution.run(plan, REQUEST, call_context())).value == "a"


@pytest.mark.parametrize(
    ("action", "provider", "key", "code"),
    [
        ("put", "box", None, ErrorCode.TIMEOUT),
        ("append", "box", "k", ErrorCode.OUTCOME_UNKNOWN),
        ("append", "vat", None, ErrorCode.OUTCOME_UNKNOWN),
        ("append", "vat", "k", ErrorCode.TIMEOUT),
    ],
)
async def test_the_outcome_of_a_late_write_that_cannot_be_repeated_is_unknown(
    toy: ToyLayer, call_context: MakeCallContext, action: str, provider: str, key: str | None, code: ErrorCode
) -> None:
    plan = await toy.planned(action, provider=provider)
    toy.script.method = hang

    assert (await failure(plan, call_context(seconds=0.02, idempotency_key=key))).code is code


@pytest.mark.parametrize("action", ["get", "append"])
async def test_what_a_method_raises_when_it_is_cut_off_does_not_hide_the_deadline(
    toy: ToyLayer, call_context: MakeCallContext, action: str
) -> None:
    async def break_off(*_: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionResetError("cut") from None

    plan = await toy.planned(action)
    toy.script.method = break_off
    expected = {"get": ErrorCode.TIMEOUT, "append": ErrorCode.OUTCOME_UNKNOWN}[action]

    assert (await failure(plan, call_context(seconds=0.02))).code is expected


async def test_a_result_that_arrives_while_it_is_cut_off_counts(toy: ToyLayer, call_context: MakeCallContext) -> None:
    async def insist(*_: Any) -> ToyResult:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return ToyResult(value="late")
        raise AssertionError

    plan = await toy.planned("append")
    toy.script.method = insist

    assert (await execution.run(plan, REQUEST, call_context(seconds=0.02))).value == "late"


async def test_a_time_out_of_the_provider_itself_is_not_the_deadline(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned("append")
    toy.script.fails(TimeoutError("socket"))

    error = await failure(plan, call_context())

    assert (error.code, error.detail) == (ErrorCode.INTERNAL, "TimeoutError: socket")


async def test_a_call_whose_deadline_has_passed_is_not_tried(toy: ToyLayer, call_context: MakeCallContext) -> None:
    plan = await toy.planned("append")

    error = await failure(plan, call_context(seconds=-1))

    assert (error.code, toy.script.attempts) == (ErrorCode.UNAVAILABLE, 0)


async def test_a_cancelled_call_frees_its_place_and_stays_cancelled(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned()
    toy.script.method = hang
    task = asyncio.create_task(execution.run(plan, REQUEST, call_context()))
    await asyncio.sleep(0.01)
    assert plan.opened is not None
    assert (plan.gate.running, plan.opened.running) == (1, 1)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    assert (plan.gate.running, plan.opened.running) == (0, 0)


@pytest.mark.parametrize(("action", "code"), [("get", "unavailable"), ("append", "outcome_unknown")])
async def test_a_cancellation_inside_the_provider_is_a_failure_not_a_cancelled_call(
    toy: ToyLayer, call_context: MakeCallContext, action: str, code: str
) -> None:
    plan = await toy.planned(action, retry={"max_attempts": 1})
    toy.script.fails(asyncio.CancelledError())

    assert (await failure(plan, call_context())).code == code


# -- translation ---------------------------------------------------------------------------------


async def test_exceptions_become_codes_by_their_most_specific_type(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned(retry={"max_attempts": 1})
    toy.script.fails(ConnectionResetError("10.0.0.7 hung up"), FileNotFoundError("/etc/x"))

    reset = await failure(plan, call_context())
    assert (reset.code, reset.message) == (
        ErrorCode.UNAVAILABLE,
        "toy/box: The provider cannot be reached or is overloaded.",
    )
    assert reset.detail == "ConnectionResetError: 10.0.0.7 hung up"
    assert isinstance(reset.__cause__, ConnectionResetError)
    assert (await failure(plan, call_context())).code is ErrorCode.INTERNAL


async def test_an_unknown_exception_is_internal_and_its_text_is_kept_from_the_caller(
    toy: ToyLayer, call_context: MakeCallContext
) -> None:
    plan = await toy.planned()
    toy.script.fails(KeyError("hunter2"))

    error = await failure(plan, call_context())

    assert (error.code, error.message) == (ErrorCode.INTERNAL, "toy/box failed in a way it did not foresee.")
    assert error.detail == "KeyError: 'hunter2'"
