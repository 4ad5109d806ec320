"""Who may call, how often, and how many at once."""

import asyncio

import pytest
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import ToyResult, hang

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError
from erp.runtime import calls as pipeline
from erp.runtime.call import Answer
from erp.runtime.context import Actor
from erp.runtime.service_calls import service_actor
from erp.runtime.shares import TenantShares

pytestmark = pytest.mark.anyio

SHOP = service_actor("shop", "acme")


async def test_what_policy_refuses_is_noted_and_not_tried(toy: ToyLayer) -> None:
    toy.policy.denied = {"toy.append"}

    error = await toy.refused("append", idempotency_key="k1")

    assert error.code is ErrorCode.PERMISSION_DENIED
    assert error.message == "toy.append is not allowed: the role has no right to it."
    assert toy.steps == ["quota", "policy", "note", "observe"]
    [note] = toy.journal.notes
    assert (note.outcome, note.reason, note.target) == (
        "permission_denied",
        "the role has no right to it",
        "toy/box.append",
    )
    assert toy.script.constructed == []


async def test_internal_actions_are_for_services_alone(toy: ToyLayer) -> None:
    error = await toy.refused("reveal")
    assert (error.code, error.message) == (
        ErrorCode.PERMISSION_DENIED,
        "toy.reveal is not allowed: the action is internal.",
    )
    assert [note.reason for note in toy.journal.notes] == ["the action is internal"]
    user = Actor(id="ann", tenant="acme", kind="user", roles=frozenset({"admin"}))
    assert (await toy.refused("reveal", actor=user)).code is ErrorCode.PERMISSION_DENIED

    assert (await toy.invoke("reveal", actor=SHOP)).result == ToyResult(value="a")


async def test_a_wrong_request_is_refused_before_policy_and_claim(toy: ToyLayer) -> None:
    error = await toy.refused("append", b'{"params": {}}', idempotency_key="k1")

    assert error.errors == (FieldError("/params/key", "is required"),)
    assert toy.steps == ["quota", "observe"]


async def test_an_exhausted_quota_refuses_the_call(toy: ToyLayer) -> None:
    toy.quotas.left = 1
    await toy.invoke("get")

    error = await toy.refused("get")

    assert (error.code, error.retry_after_seconds) == (ErrorCode.QUOTA_EXHAUSTED, 60.0)
    assert toy.script.attempts == 1


async def test_a_tenants_rate_counts_all_its_calls_and_spares_its_quota(toy: ToyLayer) -> None:
    toy.connections.policies["acme"] = {"rate": {"requests": 2, "period_seconds": 60}}
    toy.connect("globex")
    await toy.invoke("get")
    await toy.invoke("put")

    error = await toy.refused("get")

    assert (error.code, error.message) == (ErrorCode.RATE_LIMITED, "The tenant's rate limit is reached.")
    assert error.retry_after_seconds == pytest.approx(30, abs=1)
    assert toy.quotas.left == 998
    globex = Actor(id="key_globex", tenant="globex")
    assert (await toy.invoke("get", actor=globex)).result == ToyResult(value="a")


async def test_a_changed_tenant_rate_counts_within_seconds(toy: ToyLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "TENANT_FRESH_SECONDS", 0.0)
    await toy.invoke("get")
    known = toy.calls._tenant_buckets["acme"][1]
    await toy.invoke("get")
    assert toy.calls._tenant_buckets["acme"][1] is known, "unchanged settings keep what was counted"

    toy.connections.policies["acme"] = {"rate": {"requests": 1, "period_seconds": 60}}
    await toy.invoke("get")
    assert (await toy.refused("get")).code is ErrorCode.RATE_LIMITED


async def test_concurrent_first_calls_of_a_tenant_share_one_limit(toy: ToyLayer) -> None:
    toy.connections.policies["acme"] = {"rate": {"requests": 3, "period_seconds": 60}}
    ended = await asyncio.gather(*(toy.invoke("get") for _ in range(10)), return_exceptions=True)

    assert sum(isinstance(item, Answer) for item in ended) == 3


async def test_rate_limits_of_tenants_are_remembered_up_to_a_number(
    toy: ToyLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MAX_BUCKETS", 2)
    for tenant in ("a", "b", "c"):
        await toy.calls.tenant_bucket(tenant)

    assert list(toy.calls._tenant_buckets) == ["b", "c"]
    assert toy.calls.known_bucket("a") is None


async def test_beyond_what_the_layer_can_hold_calls_are_refused_at_once(toy: ToyLayer) -> None:
    toy.calls.shares = TenantShares(2, share=2, max_waiting=0)
    toy.script.method = hang
    tasks = [asyncio.create_task(toy.invoke("get")) for _ in range(2)]
    await asyncio.sleep(0.01)

    error = await toy.refused("get")

    assert (error.code, error.retry_after_seconds) == (ErrorCode.UNAVAILABLE, 1.0)
    assert toy.steps[-1] == "observe"
    assert (toy.quotas.left, toy.calls.in_flight) == (998, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    toy.script.method = None
    assert (await toy.invoke("get")).result == ToyResult(value="a")


async def test_while_it_drains_the_layer_finishes_what_services_began(toy: ToyLayer) -> None:
    toy.calls.is_draining = True

    assert (await toy.refused("get")).message == "The layer is shutting down."
    assert (await toy.invoke("get", actor=SHOP)).result == ToyResult(value="a")


async def test_calls_of_services_count_against_no_limit_of_their_own(toy: ToyLayer) -> None:
    toy.quotas.left = 0

    assert (await toy.invoke("get", actor=SHOP)).result == ToyResult(value="a")
