"""The life of a call: the order of its steps, and what each refusal leaves undone."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.runtime.conftest import KEY_OF_ACME, ToyLayer
from tests.runtime.toys import ToyProvider, ToyResult, hang

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.runtime.call import Call
from erp.runtime.context import CallContext
from erp.runtime.ports import ClaimOutcome
from erp.runtime.service_calls import service_actor

pytestmark = pytest.mark.anyio

SHOP = service_actor("shop", "acme")


# -- order ---------------------------------------------------------------------------------------


async def test_a_read_is_admitted_run_and_observed(toy: ToyLayer) -> None:
    answer = await toy.invoke("get")

    assert msgspec.json.decode(answer.data) == {"value": "a", "amount": None}
    assert (answer.provider, answer.connection, answer.replayed) == ("toy/box", "default", False)
    assert answer.result == ToyResult(value="a")
    assert toy.steps == ["quota", "policy", "provider", "observe"]
    assert toy.observer.ended == [("toy.get", "ok")]


async def test_a_write_with_a_key_is_claimed_before_and_durable_after_it_ran(toy: ToyLayer) -> None:
    await toy.invoke("append", idempotency_key="k1", user="ann")

    assert toy.steps == ["quota", "policy", "claim", "provider", "complete", "observe"]
    [claim], [completion] = toy.journal.claims, toy.journal.completions
    assert (claim.tenant, claim.actor, claim.key, claim.target) == ("acme", "key_acme", "c:k1", "toy/box.append")
    assert (claim.reentrant, claim.window_seconds) == (False, 24 * 3600)
    assert completion.claim is claim
    assert (completion.status, completion.release) == (200, False)
    assert msgspec.json.decode(completion.body) == {"value": "a", "amount": None}
    audit = completion.audit
    assert (audit.tenant, audit.actor, audit.action, audit.outcome) == ("acme", "key_acme", "toy.append", "ok")
    assert (audit.request_id, audit.effect, audit.detail) == ("req_1", "write", {"user": "ann"})


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110  (the toy layer counts, it does not tell)
            await asyncio.sleep(0.001)


async def test_a_write_without_a_key_claims_nothing_but_is_recorded(toy: ToyLayer) -> None:
    await toy.invoke("put")

    assert toy.steps == ["quota", "policy", "provider", "complete", "observe"]
    assert toy.journal.completions[0].claim is None


async def test_the_answer_of_a_write_waits_until_it_is_durable(toy: ToyLayer) -> None:
    durable = asyncio.Event()
    toy.journal.before_complete = durable.wait
    answer = asyncio.create_task(toy.invoke("put"))
    await until(lambda: toy.script.attempts == 1)
    await asyncio.sleep(0.01)
    assert not answer.done()

    durable.set()

    assert (await answer).result == ToyResult(value="a")


async def test_events_of_a_write_are_durable_with_it(toy: ToyLayer) -> None:
    async def emit(_: Any, context: CallContext) -> ToyResult:
        context.emit("changed", {"key": "a"}, key="a", subject="s")
        context.emit("changed", {"key": "b"}, id="fixed")
        return ToyResult()

    toy.script.method = emit
    await toy.invoke("put")

    first, second = toy.journal.completions[0].events
    assert (first.id, second.id) == ("req_1-0", "fixed")
    assert (first.topic, first.type) == ("provider.events.toy.box.changed", "erp.toy.changed")
    assert (first.source, first.tenant, first.key, first.subject) == ("/providers/toy/box", "acme", "a", "s")


async def test_events_of_a_read_are_durable_too(toy: ToyLayer) -> None:
    async def emit(_: Any, context: CallContext) -> ToyResult:
        context.emit("read", {})
        return ToyResult()

    toy.script.method = emit
    await toy.invoke("get")

    assert [event.type for event in toy.journal.completions[0].events] == ["erp.toy.read"]


# -- idempotency ---------------------------------------------------------------------------------


async def test_a_repeated_key_replays_the_stored_answer(toy: ToyLayer) -> None:
    toy.journal.outcome = ClaimOutcome(state="replay", status=200, body=b'{"value":"before"}')

    answer = await toy.invoke("append", idempotency_key="k1")

    assert (answer.data, answer.replayed, answer.provider) == (b'{"value":"before"}', True, "toy/box")
    assert (toy.script.attempts, toy.journal.completions) == (0, [])
    assert toy.observer.ended == [("toy.append", "ok")]


async def test_a_repeated_key_replays_the_stored_failure(toy: ToyLayer) -> None:
    body = b'{"code":"outcome_unknown","message":"Lost.","errors":[{"pointer":"/a","message":"b"}]}'
    toy.journal.outcome = ClaimOutcome(state="replay", status=502, body=body)

    error = await toy.refused("append", idempotency_key="k1")

    assert (error.code, error.message, error.status) == (ErrorCode.OUTCOME_UNKNOWN, "Lost.", 502)
    assert error.errors == (FieldError("/a", "b"),)
    assert toy.script.attempts == 0


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [
        ("in_flight", ErrorCode.CONFLICT, 409),
        ("mismatch", ErrorCode.INVALID_ARGUMENT, 422),
        ("lost", ErrorCode.OUTCOME_UNKNOWN, 502),
    ],
)
async def test_a_key_that_cannot_be_won_refuses_the_call(
    toy: ToyLayer, state: Any, code: ErrorCode, status: int
) -> None:
    toy.journal.outcome = ClaimOutcome(state=state)

    error = await toy.refused("append", idempotency_key="k1")

    assert (error.code, error.status) == (code, status)
    assert (error.retry_after_seconds is not None) == (state == "in_flight")
    assert (toy.script.attempts, toy.journal.completions) == (0, [])
    toy.journal.outcome = ClaimOutcome(state="won")
    assert (await toy.invoke("append", idempotency_key="k2")).result == ToyResult(value="a")


async def test_keys_of_reads_are_not_claimed(toy: ToyLayer) -> None:
    await toy.invoke("get", idempotency_key="k1")

    assert toy.journal.claims == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "\x00"])
async def test_a_malformed_key_is_refused_before_anything_is_claimed(toy: ToyLayer, key: str) -> None:
    error = await toy.refused("append", idempotency_key=key)

    assert error.code is ErrorCode.INVALID_ARGUMENT
    assert [found.pointer for found in error.errors] == ["/headers/Idempotency-Key"]
    assert toy.journal.claims == []
    await toy.invoke("append", idempotency_key="x" * 255)


@pytest.mark.parametrize("code", ["unavailable", "not_found", "conflict", "failed_precondition"])
async def test_a_failure_without_effect_gives_the_key_back(toy: ToyLayer, code: str) -> None:
    toy.script.fails(ProviderError(code, "No."))

    assert (await toy.refused("append", idempotency_key="k1")).code == code

    [completion] = toy.journal.completions
    assert (completion.release, completion.status, completion.body) == (True, 0, b"")
    assert (completion.claim, completion.audit.outcome) == (toy.journal.claims[0], code)
    assert (await toy.invoke("append", idempotency_key="k1")).result == ToyResult(value="recovered")


async def test_a_write_that_may_have_happened_keeps_its_key_and_says_so_again(toy: ToyLayer) -> None:
    toy.script.method = hang
    error = await toy.refused("append", idempotency_key="k1", timeout_seconds=0.02)
    assert error.code is ErrorCode.OUTCOME_UNKNOWN

    [completion] = toy.journal.completions
    assert (completion.release, completion.status) == (False, 502)
    toy.journal.outcome = ClaimOutcome(state="replay", status=completion.status, body=completion.body)
    again = await toy.refused("append", idempotency_key="k1")
    assert (again.code, again.message) == (ErrorCode.OUTCOME_UNKNOWN, error.message)


async def test_a_write_without_key_that_may_have_happened_is_recorded_as_such(toy: ToyLayer) -> None:
    """A journal that cannot store it must not call it a call that changed nothing."""
    toy.script.method = hang
    error = await toy.refused("append", timeout_seconds=0.02)

    [completion] = toy.journal.completions
    assert error.code is ErrorCode.OUTCOME_UNKNOWN
    assert (completion.claim, completion.release, completion.audit.outcome) == (None, False, "outcome_unknown")


async def test_a_write_that_can_be_repeated_leaves_its_key_to_a_second_run(toy: ToyLayer) -> None:
    toy.script.method = hang
    error = await toy.refused("put", idempotency_key="k1", timeout_seconds=0.02)

    assert error.code is ErrorCode.TIMEOUT
    [completion] = toy.journal.completions
    assert (completion.is_open, completion.release, completion.status) == (True, False, 0)


@pytest.mark.parametrize("code", ["already_exists", "conflict", "failed_precondition", "not_found"])
async def test_a_second_run_does_not_take_what_the_first_has_done_for_the_work_of_others(
    toy: ToyLayer, code: str
) -> None:
    toy.journal.outcome = ClaimOutcome(state="won", is_second_run=True)
    toy.script.fails(ProviderError(code, "It is there."))

    error = await toy.refused("put", idempotency_key="k1")

    assert (error.code, error.retryable) == (ErrorCode.OUTCOME_UNKNOWN, False)
    assert error.message.endswith("the second one failed: It is there.")
    [completion] = toy.journal.completions
    assert (completion.status, completion.release, completion.is_open) == (502, False, False)
    toy.journal.outcome = ClaimOutcome(state="replay", status=completion.status, body=completion.body)
    assert (await toy.refused("put", idempotency_key="k1")).message == error.message


async def test_a_second_run_that_failed_for_another_reason_is_followed_by_one_more(toy: ToyLayer) -> None:
    toy.journal.outcome = ClaimOutcome(state="won", is_second_run=True)
    toy.script.fails(*[ProviderError("unavailable", "Down.")] * 3)

    assert (await toy.refused("put", idempotency_key="k1")).code is ErrorCode.UNAVAILABLE
    assert [(found.is_open, found.release) for found in toy.journal.completions] == [(True, False)]
    assert (await toy.invoke("put", idempotency_key="k1")).result == ToyResult(value="recovered")


async def test_a_partial_failure_is_replayed_with_its_errors(toy: ToyLayer) -> None:
    toy.script.fails(ProviderError("partial", "Half.", errors=[FieldError("/items/3", "no")]))
    await toy.refused("append", idempotency_key="k1")

    [completion] = toy.journal.completions
    toy.journal.outcome = ClaimOutcome(state="replay", status=completion.status, body=completion.body)
    again = await toy.refused("append", idempotency_key="k1")
    assert (again.code, again.errors) == (ErrorCode.PARTIAL, (FieldError("/items/3", "no"),))


async def test_a_call_without_a_plan_gives_its_key_back(toy: ToyLayer) -> None:
    error = await toy.refused("append", idempotency_key="k1", connection="west")

    assert error.code is ErrorCode.NOT_FOUND
    [completion] = toy.journal.completions
    assert (completion.release, completion.audit.outcome, completion.audit.reason) == (True, "not_found", "not tried")
    assert completion.audit.detail == {"connection": "west"}


async def test_a_result_that_cannot_be_encoded_may_have_had_its_effect(toy: ToyLayer) -> None:
    async def strange(*_: Any) -> object:
        return object()

    toy.script.method = strange
    error = await toy.refused("append", idempotency_key="k1")

    assert (error.code, error.message) == (ErrorCode.INTERNAL, "The layer failed in a way it did not foresee.")
    assert [(found.release, found.status) for found in toy.journal.completions] == [(False, 502)]


async def test_keys_of_services_and_callers_never_meet_and_requests_differ_by_target(toy: ToyLayer) -> None:
    toy.connect(name="west")
    await toy.invoke("append", idempotency_key="k", connection="default")
    await toy.invoke("append", idempotency_key="k", connection="west")
    await toy.invoke("append", b'{"params": {"amount": "0", "key": "a"}}', idempotency_key="k")
    await toy.invoke("append", b'{"params":{"key":"b"}}', idempotency_key="k")
    await toy.invoke("append", idempotency_key="k", actor=SHOP)

    first, west, reordered, other, service = toy.journal.claims
    assert first.fingerprint == reordered.fingerprint, "the same request, written differently"
    assert len({claim.fingerprint for claim in (first, west, other)}) == 3
    assert {claim.key for claim in (first, west, other)} == {"c:k"}
    assert service.key == "s:k"
    assert len({claim.token for claim in toy.journal.claims}) == 5


# -- cancellation --------------------------------------------------------------------------------


async def test_a_cancelled_write_keeps_its_key_and_is_recorded(toy: ToyLayer) -> None:
    toy.script.method = hang
    task = asyncio.create_task(toy.invoke("append", idempotency_key="k1"))
    await until(lambda: toy.script.attempts == 1)
    assert toy.calls.in_flight == 1

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    assert toy.calls.in_flight == 0
    [completion] = toy.journal.completions
    assert (completion.release, completion.status, completion.audit.outcome) == (False, 502, "cancelled")
    assert toy.observer.ended == [("toy.append", "cancelled")]


async def test_a_write_cancelled_before_it_was_tried_gives_its_key_back(toy: ToyLayer) -> None:
    is_opening = asyncio.Event()

    async def slowly(_: ToyProvider) -> None:
        is_opening.set()
        await asyncio.sleep(0.2)

    toy.script.on_open = slowly
    task = asyncio.create_task(toy.invoke("append", idempotency_key="k1"))
    await is_opening.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    [completion] = toy.journal.completions
    assert (completion.release, completion.audit.outcome) == (True, "cancelled")


async def test_the_record_of_a_cancelled_write_survives_a_second_cancellation(toy: ToyLayer) -> None:
    durable = asyncio.Event()
    toy.journal.before_complete = durable.wait
    toy.script.method = hang
    task = asyncio.create_task(toy.invoke("append", idempotency_key="k1"))
    await until(lambda: toy.script.attempts == 1)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    await asyncio.gather(task, return_exceptions=True)
    assert toy.journal.completions == []

    durable.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [found.audit.outcome for found in toy.journal.completions] == ["cancelled"]


# -- time ----------------------------------------------------------------------------------------


async def test_the_caller_may_shorten_the_time_but_not_lengthen_it(toy: ToyLayer) -> None:
    toy.protect(timeout_seconds=0.02, retry={"max_attempts": 1})
    toy.script.method = hang
    assert (await toy.refused("get", timeout_seconds=30)).code is ErrorCode.TIMEOUT

    toy.connect(revision="r2")
    toy.plans.forget("acme")
    assert (await toy.refused("get", timeout_seconds=0.02)).code is ErrorCode.TIMEOUT


async def test_the_callers_time_includes_opening_the_connection(toy: ToyLayer) -> None:
    async def slowly(_: ToyProvider) -> None:
        await asyncio.sleep(0.1)

    toy.script.on_open = slowly
    error = await toy.refused("append", timeout_seconds=0.02, idempotency_key="k1")

    assert (error.code, error.retry_after_seconds) == (ErrorCode.UNAVAILABLE, 1.0)
    assert toy.journal.completions[0].release
    await asyncio.sleep(0.12)
    assert (await toy.invoke("append", idempotency_key="k1", timeout_seconds=0.02)).result == ToyResult(value="a")
    assert len(toy.script.opened) == 1


async def test_the_time_inside_the_provider_is_known_even_when_the_call_fails(toy: ToyLayer) -> None:
    toy.script.method = hang
    call = toy.call("get", timeout_seconds=0.03)
    with pytest.raises(ProviderError):
        await toy.calls.invoke(call)

    assert call.context is not None
    assert call.context.provider_seconds == pytest.approx(0.03, abs=0.02)
    assert toy.observer.metrics.series("acme", "toy/box", "get").provider_seconds == call.context.provider_seconds


async def test_what_the_layer_did_not_foresee_is_internal(toy: ToyLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise KeyError("hunter2")

    monkeypatch.setattr(toy.connections, "tenant_policy", broken)
    error = await toy.refused("get")

    assert (error.code, error.message) == (ErrorCode.INTERNAL, "The layer failed in a way it did not foresee.")
    assert error.detail == "KeyError: 'hunter2'"
    assert toy.observer.ended == [("toy.get", "internal")]


async def test_a_call_has_the_tenant_of_its_credential() -> None:
    class _Action:
        name = "get"

    assert Call(action=_Action(), actor=KEY_OF_ACME, provider="box").tenant == "acme"
