"""One configured endpoint against a real local receiver and the reference library's verification."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.providers.integration.peers import SECRET, opened, receiving, submitted

from erp.contracts.models import integration as contract
from erp.providers.integration.webhook.provider import Webhooks
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, Provider, ProviderError, Worker
from erp.vendor_clients.retry_after import retry_after_seconds
from erp.vendor_clients.standard_webhooks import generate_secret

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def call(call_context: MakeCallContext) -> CallContext:
    return call_context(idempotency_key="key-1", request_id="req_1")


async def test_a_trigger_is_one_signed_post_with_type_time_data_and_subject(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = submitted(
        payload={"id": "ord_1", "total": "19.90", "note": "Größe"},
        occurred_at=datetime.datetime(2026, 11, 23, 10, 0, tzinfo=datetime.UTC),
        subject=contract.RecordRef(object="order", keys={"id": "ord_1"}),
    )
    async with receiving() as receiver, opened(open_context, receiver.url) as provider:
        result = await provider.trigger(request, call_context(traceparent=traceparent))
    assert receiver.messages == [
        {
            "type": "order.submitted",
            "timestamp": "2026-11-23T10:00:00Z",
            "data": {"id": "ord_1", "total": "19.90", "note": "Größe"},
            "subject": {"object": "order", "keys": {"id": "ord_1"}},
        }
    ]
    assert (result.id, result.status, result.result) == (receiver.ids[0], "completed", {"http_status": 204})
    assert receiver.headers[0]["content-type"] == "application/json"
    assert receiver.headers[0]["traceparent"] == traceparent


async def test_the_webhook_id_is_the_same_for_every_attempt_and_differs_between_messages(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving("503 Busy") as receiver, opened(open_context, receiver.url) as provider:
        first_call = await provider.trigger(submitted(), call_context(idempotency_key="key-1"))
        provider.pass_time(10)
        await provider.work(call_context())
        repeated = await provider.trigger(submitted(), call_context(idempotency_key="key-1"))
        assert (first_call.status, repeated.status, repeated.id) == ("accepted", "completed", first_call.id)
        await provider.trigger(submitted(), call_context(idempotency_key="key-2"))
        await provider.trigger(contract.TriggerRequest(name="order.cancelled"), call_context(idempotency_key="key-1"))
        without_key = call_context()
        await provider.trigger(submitted(), without_key)
        await provider.trigger(submitted(), call_context())
    first, second, other_key, other_name, keyless, other_request = receiver.ids
    assert first == second
    assert len({first, other_key, other_name, keyless, other_request}) == 5


async def test_two_tenants_never_share_a_webhook_id(open_context: OpenContext, call: CallContext) -> None:
    other = replace(open_context, tenant="globex")
    async with receiving() as receiver:
        for context in (open_context, other):
            async with opened(context, receiver.url) as provider:
                await provider.trigger(submitted(), call)
    assert len(set(receiver.ids)) == 2


async def test_during_a_rotation_the_old_and_the_new_secret_both_sign(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    new = generate_secret()
    async with (
        receiving() as receiver,
        opened(open_context, receiver.url, secret=new, previous_secret=SECRET) as provider,
    ):
        await provider.trigger(submitted(), call_context())
        receiver.secret = new
        await provider.trigger(submitted(), call_context())
    assert len(receiver.messages) == 2


@pytest.mark.parametrize(
    ("answer", "code", "http_status"),
    [
        ("301 Moved\r\nlocation: http://127.0.0.1/", "failed_precondition", 301),
        ("400 Bad Request", "failed_precondition", 400),
        ("404 Not Found", "failed_precondition", 404),
        ("408 Request Timeout", "timeout", 408),
        ("429 Too Many", "rate_limited", 429),
        ("500 Broken", "unavailable", 500),
        (None, "unavailable", UNSET),
        ("", "timeout", UNSET),
    ],
)
async def test_what_is_no_confirmation_is_accepted_logged_with_its_meaning_and_tried_again(
    open_context: OpenContext, call_context: MakeCallContext, answer: str | None, code: str, http_status: int
) -> None:
    async with receiving(answer) as receiver, opened(open_context, receiver.url, timeout_seconds=0.15) as provider:
        result = await provider.trigger(submitted(), call_context())
        assert (result.status, len(receiver.headers)) == ("accepted", 1)
        wanted = contract.GetDeliveryRequest(id=result.id, endpoint="configured")
        found = await provider.get_delivery(wanted, call_context())
        assert [(item.status, item.code, item.http_status) for item in found.attempts] == [
            ("failed", code, http_status)
        ]
        provider.pass_time(10)
        assert await provider.work(call_context()) is None
        found = await provider.get_delivery(wanted, call_context())
        assert (found.delivery.status, found.delivery.attempts) == ("delivered", 2)


async def test_an_endpoint_that_does_not_listen_gets_the_message_once_it_does(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving() as receiver:
        pass
    async with opened(open_context, receiver.url) as provider:
        assert (await provider.trigger(submitted(), call_context())).status == "accepted"
        assert (await provider.health()).status == "down"
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", receiver.port)
        assert (await provider.health()).status == "degraded"
        provider.pass_time(10)
        assert await provider.work(call_context()) is None
        assert (await provider.health()).status == "ok"
        assert len(receiver.messages) == 1
        await provider.close()
        server.close()


async def test_a_silent_endpoint_does_not_hold_the_call_beyond_its_deadline(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving("") as receiver, opened(open_context, receiver.url) as provider:
        context = call_context(seconds=1.1)
        assert (await provider.trigger(submitted(), context)).status == "accepted"
        assert context.remaining_seconds() > 0


async def test_a_name_the_endpoint_does_not_want_is_skipped_and_not_sent(
    open_context: OpenContext, call: CallContext
) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url, event_types=["invoice.paid"]) as provider:
        assert (await provider.trigger(submitted(), call)).status == "skipped"
        assert receiver.connections == 0
        paid = await provider.trigger(contract.TriggerRequest(name="invoice.paid"), call)
        assert paid.status == "completed"


async def test_describe_lists_the_wanted_names_page_by_page(open_context: OpenContext, call: CallContext) -> None:
    async with opened(open_context, "https://x.example/", event_types=["b.two", "a.one", "b.one"]) as provider:
        first = await provider.describe(contract.DescribeRequest(limit=2), call)
        assert [(item.kind, item.name) for item in first.items] == [("trigger", "a.one"), ("trigger", "b.one")]
        rest = await provider.describe(contract.DescribeRequest(limit=2, cursor=first.next_cursor), call)
        assert [item.name for item in rest.items] == ["b.two"]
        assert (rest.next_cursor, rest.any_trigger) == (UNSET, False)
        by_text = await provider.describe(contract.DescribeRequest(text="TWO"), call)
        assert [item.name for item in by_text.items] == ["b.two"]
        by_name = await provider.describe(contract.DescribeRequest(names=["a.one", "c"]), call)
        assert [item.name for item in by_name.items] == ["a.one"]
        assert (await provider.describe(contract.DescribeRequest(kind="object"), call)).items == []
        with pytest.raises(ProviderError) as refusal:
            await provider.describe(contract.DescribeRequest(cursor="x"), call)
        assert [error.pointer for error in refusal.value.errors] == ["/params/cursor"]


async def test_without_a_list_of_names_any_trigger_is_described_as_possible(
    open_context: OpenContext, call: CallContext
) -> None:
    async with opened(open_context, "https://x.example/") as provider:
        result = await provider.describe(contract.DescribeRequest(), call)
        assert (result.items, result.any_trigger) == ([], True)


async def test_the_test_delivers_a_signed_message_of_its_own_type(open_context: OpenContext, call: CallContext) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url, event_types=["other"]) as provider:
        result = await provider.test(contract.TestRequest(), call)
    assert result.ok is True
    assert [(check.name, check.status) for check in result.checks] == [("reachable", "passed"), ("delivered", "passed")]
    assert [message["type"] for message in receiver.messages] == ["erp.test"]


async def test_a_failed_test_is_an_answer_that_names_the_failed_step(
    open_context: OpenContext, call: CallContext
) -> None:
    async with receiving("403 Forbidden") as receiver, opened(open_context, receiver.url) as provider:
        result = await provider.test(contract.TestRequest(), call)
        assert result.ok is False
        assert [(check.name, check.status, check.code) for check in result.checks[1:]] == [
            ("delivered", "failed", "failed_precondition")
        ]
    async with opened(open_context, receiver.url) as provider:
        result = await provider.test(contract.TestRequest(), call)
        assert [(check.name, check.status) for check in result.checks] == [
            ("reachable", "failed"),
            ("delivered", "skipped"),
        ]
        assert (result.ok, result.checks[0].code) == (False, "unavailable")


async def test_health_connects_and_sends_nothing(open_context: OpenContext) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url) as provider:
        health = await provider.health()
        assert (health.status, [dependency.name for dependency in health.dependencies]) == ("ok", ["endpoint"])
        assert health.latency_ms > 0
        assert receiver.headers == []


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://2130706433/", "http://[::1]/", "http://u:p@x.example/"])
async def test_an_address_that_is_not_public_is_refused_when_opened(
    open_context: OpenContext, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.delenv("ERP_EGRESS_ALLOW")
    provider = Webhooks({"url": url, "secret": SECRET}, open_context)
    with pytest.raises(ProviderError) as refusal:
        await provider.open()
    assert refusal.value.code is ErrorCode.FAILED_PRECONDITION
    await provider.close()


async def test_nothing_is_sent_to_a_name_of_an_internal_address(
    open_context: OpenContext, call_context: MakeCallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ERP_EGRESS_ALLOW")
    async with receiving() as receiver:
        async with opened(open_context, f"http://localhost:{receiver.port}/") as provider:
            result = await provider.trigger(submitted(), call_context())
            request = contract.GetDeliveryRequest(id=result.id, endpoint="configured")
            [attempt] = (await provider.get_delivery(request, call_context())).attempts
            assert (attempt.status, attempt.code) == ("failed", "failed_precondition")
            assert (await provider.health()).status == "down"
        assert receiver.connections == 0
        monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
        async with opened(open_context, f"http://localhost:{receiver.port}/") as provider:
            assert (await provider.trigger(submitted(), call_context())).status == "completed"


@pytest.mark.parametrize("secret", ["whsec_AAAA", "short", "whsec_" + "!" * 40])
async def test_a_secret_that_cannot_sign_is_refused_when_opened_and_not_repeated(
    open_context: OpenContext, secret: str
) -> None:
    with pytest.raises(ProviderError) as refusal:
        await Webhooks({"url": "https://x.example/", "secret": secret}, open_context).open()
    assert refusal.value.code is ErrorCode.FAILED_PRECONDITION
    assert secret not in refusal.value.message


async def test_closing_is_safe_without_open_twice_and_before_a_call(
    open_context: OpenContext, call: CallContext
) -> None:
    provider = Webhooks({"url": "https://x.example/", "secret": SECRET}, open_context)
    await provider.close()
    await provider.open()
    await provider.close()
    await provider.close()
    with pytest.raises(ProviderError) as refusal:
        await provider.trigger(submitted(), call)
    assert refusal.value.code is ErrorCode.UNAVAILABLE


async def test_many_calls_at_once_are_each_delivered_once(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url) as provider:
        calls = [provider.trigger(submitted(payload=number), call_context()) for number in range(100)]
        results = await asyncio.gather(*calls)
    assert {result.status for result in results} == {"completed"}
    assert sorted(message["data"] for message in receiver.messages) == list(range(100))
    assert len(set(receiver.ids)) == 100
    assert receiver.connections <= 50


async def test_the_class_has_the_shape_of_a_provider_and_shows_no_secret(open_context: OpenContext) -> None:
    provider = Webhooks({"url": "https://x.example/", "secret": SECRET}, open_context)
    assert isinstance(provider, Provider)
    assert isinstance(provider, Worker)
    assert SECRET not in repr(provider)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, 86_400.0),
        ("Mon, 23 Nov 2026 10:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 0.0),
        ("Mon, 99 Nov 2026 10:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_never_longer_than_a_day(
    header: str | None, seconds: float | None
) -> None:
    now = datetime.datetime(2026, 11, 23, 10, 0, tzinfo=datetime.UTC).timestamp()
    assert retry_after_seconds(header, now=now) == seconds
