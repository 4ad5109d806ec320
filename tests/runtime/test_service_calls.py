"""Services reach providers through the same pipeline, as their tenant."""

import time
from decimal import Decimal
from typing import Any

import pytest
from tests.runtime.conftest import ToyLayer
from tests.runtime.toys import PutRequest, ToyResult

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.context import CallContext
from erp.runtime.ports import ClaimOutcome
from erp.runtime.service_calls import service_context

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def chosen(toy: ToyLayer) -> None:
    """The box is acme's toy."""
    toy.connections.defaults["acme", "toy"] = ("box", "default")


async def test_a_service_call_runs_its_provider_call_through_every_step(toy: ToyLayer) -> None:
    answer = await toy.invoke("browse", area="services")

    assert answer.result == ToyResult(value="a")
    assert (answer.provider, answer.connection) == ("shop", "default")
    assert toy.steps == ["quota", "policy", "policy", "provider", "observe", "observe"]
    assert toy.observer.ended == [("toy.get", "ok"), ("shop.browse", "ok")]


async def test_what_a_service_does_is_recorded_as_the_services_act_under_one_request(toy: ToyLayer) -> None:
    await toy.invoke("buy", area="services", idempotency_key="order-1")

    inner, outer = toy.journal.completions
    assert (inner.audit.actor, inner.audit.target) == ("service:shop", "toy/box.append")
    assert (outer.audit.actor, outer.audit.target) == ("key_acme", "shop.buy")
    assert inner.audit.request_id == outer.audit.request_id == "req_1"
    assert [claim.key for claim in toy.journal.claims] == ["c:order-1", "s:line-1"]
    assert inner.audit.traceparent is not None
    assert outer.audit.traceparent is not None
    assert inner.audit.traceparent[:35] == outer.audit.traceparent[:35]
    assert inner.audit.traceparent != outer.audit.traceparent


async def test_a_replayed_provider_call_is_decoded_to_its_type(toy: ToyLayer) -> None:
    seen: list[Any] = []

    async def buy(request: Any, context: CallContext) -> ToyResult:
        result = await context.invoke("toy", "append", request, idempotency_key="line-1")
        seen.append(result)
        return ToyResult()

    toy.shop.method = buy
    toy.journal.outcome = ClaimOutcome(state="replay", status=200, body=b'{"value":[1],"amount":"12.30"}')

    await toy.invoke("buy", area="services")

    assert seen == [ToyResult(value=[1], amount=Decimal("12.30"))]
    assert toy.script.attempts == 0


async def test_time_spent_in_providers_is_counted_once(toy: ToyLayer) -> None:
    answer = await toy.invoke("browse", area="services")

    inner = toy.observer.metrics.series("acme", "toy/box", "get").provider_seconds
    assert answer.provider_seconds == pytest.approx(inner)
    assert 0 < inner < toy.observer.metrics.series("acme", "shop", "browse").seconds


async def test_a_service_can_name_its_provider_and_connection(toy: ToyLayer) -> None:
    toy.connect(provider="vat", name="west")

    async def buy(request: Any, context: CallContext) -> Any:
        return await context.invoke("toy", "expire", request, provider="vat", connection="west")

    toy.shop.method = buy
    await toy.invoke("buy", area="services")

    assert toy.journal.completions[0].audit.target == "toy/vat.expire"
    assert toy.journal.completions[0].audit.detail == {"connection": "west"}


async def test_without_a_provider_for_the_domain_the_service_says_what_to_configure(toy: ToyLayer) -> None:
    toy.connections.defaults.clear()

    with pytest.raises(ProviderError) as caught:
        await toy.invoke("browse", area="services")

    assert caught.value.code is ErrorCode.UNSUPPORTED
    assert caught.value.message == (
        'The tenant has no provider for the domain toy. Configure one with "default": true.'
    )
    toy.connections.defaults["acme", "toy"] = ("box", "default")
    assert (await toy.invoke("browse", area="services")).result == ToyResult(value="a")


async def test_a_provider_call_gets_what_is_left_of_the_services_time(toy: ToyLayer) -> None:
    left: list[float] = []

    async def method(_: Any, context: CallContext) -> ToyResult:
        left.append(context.remaining_seconds())
        return ToyResult()

    toy.script.method = method
    await toy.invoke("browse", area="services", timeout_seconds=2.0)
    await toy.invoke("browse", area="services")

    assert left == [pytest.approx(2.0, abs=0.2), pytest.approx(30.0, abs=0.2)]


async def test_a_failed_provider_call_fails_the_service_with_its_code(toy: ToyLayer) -> None:
    toy.script.fails(ProviderError("not_found", "No such toy."))

    with pytest.raises(ProviderError) as caught:
        await toy.invoke("buy", area="services", idempotency_key="order-1")

    assert (caught.value.code, caught.value.message) == (ErrorCode.NOT_FOUND, "No such toy.")
    assert [found.release for found in toy.journal.completions] == [True, True]


async def test_a_published_event_is_durable_when_publish_returns(toy: ToyLayer) -> None:
    async def buy(_: Any, context: CallContext) -> ToyResult:
        await context.publish("bought", {"total": "1.10"}, key="order-7", id="order-7-bought")
        toy.steps.append("published")
        return ToyResult()

    toy.shop.method = buy
    await toy.invoke("buy", area="services")

    assert toy.steps == ["quota", "policy", "complete", "published", "complete", "observe"]
    published = toy.journal.completions[0]
    [event] = published.events
    assert (event.tenant, event.id, event.key, event.subject) == ("acme", "order-7-bought", "order-7", "order-7")
    assert (event.topic, event.type, event.source) == (
        "service.events.shop.bought",
        "erp.shop.bought",
        "/services/shop",
    )
    assert event.data == {"total": "1.10"}
    assert (published.audit.actor, published.audit.action) == ("service:shop", "shop.publish")


async def test_events_a_service_emits_are_delivered_with_its_success(toy: ToyLayer) -> None:
    async def buy(_: Any, context: CallContext) -> ToyResult:
        context.emit("bought", {"n": 1})
        return ToyResult()

    toy.shop.method = buy
    await toy.invoke("buy", area="services")

    [event] = toy.journal.completions[0].events
    assert (event.topic, event.id) == ("service.events.shop.bought", "req_1-0")


async def test_a_service_can_work_on_its_own(toy: ToyLayer) -> None:
    context = service_context(toy.calls, toy.journal, service="shop", tenant="acme", seconds=3.0)

    result = await context.invoke("toy", "put", PutRequest(key="z"))

    assert result == ToyResult(value="z")
    assert context.remaining_seconds() == pytest.approx(3.0, abs=0.2)
    assert context.deadline > time.monotonic()
    assert context.request_id.startswith("req_")
    assert toy.journal.completions[0].audit.actor == "service:shop"


async def test_a_provider_can_neither_call_nor_publish(toy: ToyLayer) -> None:
    async def reach(_: Any, context: CallContext) -> Any:
        return await context.invoke("toy", "get", None)

    toy.script.method = reach
    with pytest.raises(ProviderError) as caught:
        await toy.invoke("get")

    assert caught.value.code is ErrorCode.INTERNAL
    assert "Only services call other providers" in (caught.value.detail or "")
    assert toy.script.attempts == 1
