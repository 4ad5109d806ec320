"""Endpoints: kept, changed, rotated, limited, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook
from tests.providers.integration.peers import Receiver, TimedWebhooks, opened, receiving, submitted

from erp.contracts.models import integration as contract
from erp.providers.integration.webhook import endpoints
from erp.providers.integration.webhook.dispatcher import WAITING_SECONDS
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, ProviderError
from erp.vendor_clients.standard_webhooks import generate_secret

if TYPE_CHECKING:
    from tests.conftest import KeptReminders, MakeCallContext, MemoryVault

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def call(call_context: MakeCallContext) -> CallContext:
    return call_context()


def stored_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def made(provider: TimedWebhooks, receiver: Receiver, call: CallContext, **facts: Any) -> contract.Endpoint:
    result = await provider.create_endpoint(contract.CreateEndpointRequest(url=receiver.url, **facts), call)
    receiver.secret = result.secret
    return result.endpoint


async def test_without_configuration_nothing_is_sent_or_kept(open_context: OpenContext, call: CallContext) -> None:
    async with opened(open_context) as provider:
        assert (await provider.trigger(submitted(payload="secret plan"), call)).status == "skipped"
        assert (await provider.list_deliveries(contract.ListDeliveriesRequest(), call)).deliveries == []
        assert ((await provider.health()).status, (await provider.test(contract.TestRequest(), call)).ok) == (
            "ok",
            True,
        )
        assert (await provider.describe(contract.DescribeRequest(), call)).any_trigger is False


async def test_a_trigger_goes_to_each_endpoint_that_wants_its_name_signed_with_its_own_secret(
    open_context: OpenContext, call: CallContext
) -> None:
    async with receiving() as one, receiving() as two, receiving() as other, opened(open_context) as provider:
        ids = [
            (await made(provider, one, call)).id,
            (await made(provider, two, call, event_types=["order.submitted"])).id,
        ]
        await made(provider, other, call, event_types=["invoice.paid"])
        result = await provider.trigger(submitted(), call)
        assert result.status == "completed"
        assert result.result == {"deliveries": [{"endpoint": id_, "status": "delivered"} for id_ in ids]}
        assert (one.ids, two.ids, other.ids) == ([result.id], [result.id], [])
        described = await provider.describe(contract.DescribeRequest(), call)
        assert [item.name for item in described.items] == ["invoice.paid", "order.submitted"]
        assert described.any_trigger is True


async def test_secrets_are_kept_in_the_vault_and_nowhere_else(
    open_context: OpenContext, call: CallContext, vault: MemoryVault
) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        endpoint = await made(provider, receiver, call)
        assert [path for _, path in vault.values] == [
            f"connections/integration/webhook/default/endpoints/{endpoint.id}"
        ]
        await provider.trigger(submitted(), call)
        shown = await provider.list_endpoints(contract.ListEndpointsRequest(), call)
        assert receiver.secret not in repr(shown) + repr(provider) + repr(provider._keys)
        await provider.delete_endpoint(contract.DeleteEndpointRequest(id=endpoint.id), call)
        assert vault.values == {}
    assert receiver.secret.removeprefix("whsec_").encode() not in stored_bytes(open_context.data_dir)


async def test_during_the_grace_time_both_secrets_sign_in_one_header_and_then_only_the_new(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        endpoint = await made(provider, receiver, call_context())
        old = receiver.secret
        request = contract.RotateEndpointSecretRequest(id=endpoint.id, grace_seconds=100)
        rotated = await provider.rotate_endpoint_secret(request, call_context())
        assert rotated.endpoint.previous_secret_until.timestamp() == pytest.approx(provider.now + 100)
        await provider.trigger(submitted(), call_context())
        signatures = receiver.headers[-1]["webhook-signature"].split(" ")
        assert [signature[:3] for signature in signatures] == ["v1,", "v1,"]
        receiver.secret = rotated.secret
        await provider.trigger(submitted(), call_context())
        provider.pass_time(101)
        await provider.trigger(submitted(), call_context())
        assert len(receiver.headers[-1]["webhook-signature"].split(" ")) == 1
        [shown] = (await provider.list_endpoints(contract.ListEndpointsRequest(), call_context())).endpoints
        assert shown.previous_secret_until is UNSET
        assert Webhook(old).sign("x", shown.created_at, "") != Webhook(rotated.secret).sign("x", shown.created_at, "")


async def test_an_endpoint_is_changed_only_where_the_request_says(open_context: OpenContext, call: CallContext) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        endpoint = await made(provider, receiver, call, title="Shop", event_types=["a"], max_per_second=5)
        update = contract.UpdateEndpointRequest(id=endpoint.id, event_types=["c", "b", "b"])
        changed = (await provider.update_endpoint(update, call)).endpoint
        assert (changed.title, changed.event_types, changed.max_per_second) == ("Shop", ["b", "c"], 5)
        unlimited = contract.UpdateEndpointRequest(id=endpoint.id, max_per_second=None)
        assert (await provider.update_endpoint(unlimited, call)).endpoint.max_per_second is UNSET


async def test_a_disabled_endpoint_gets_nothing_and_is_announced_once(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        endpoint = await made(provider, receiver, call_context())
        context = call_context()
        off = contract.UpdateEndpointRequest(id=endpoint.id, enabled=False)
        await provider.update_endpoint(off, context)
        shown = (await provider.update_endpoint(off, context)).endpoint
        assert [(event.name, event.data["reason"]) for event in context.emitted] == [("endpoint_disabled", "requested")]
        assert (shown.enabled, shown.disabled_reason) == (False, "requested")
        assert (await provider.trigger(submitted(), call_context())).status == "skipped"
        assert receiver.connections == 0


async def test_the_rate_of_an_endpoint_is_never_exceeded_and_nothing_is_lost(
    open_context: OpenContext, call_context: MakeCallContext, reminders: KeptReminders
) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        await made(provider, receiver, call_context(), max_per_second=2)
        results = [await provider.trigger(submitted(payload=number), call_context()) for number in range(3)]
        assert [result.status for result in results] == ["completed", "accepted", "accepted"]
        assert reminders.due[-1].timestamp() == pytest.approx(provider.now + WAITING_SECONDS)
        sent = []
        for _ in range(5):
            provider.pass_time(0.25)
            await provider.work(call_context())
            sent.append(len(receiver.messages))
        assert sent == [1, 2, 2, 3, 3]
        assert [message["data"] for message in receiver.messages] == [0, 1, 2]


async def test_a_clock_set_back_does_not_stop_a_limited_endpoint(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        await made(provider, receiver, call_context(), max_per_second=1)
        await provider.trigger(submitted(), call_context())
        provider.pass_time(-1000)
        assert (await provider.trigger(submitted(), call_context())).status == "completed"


async def test_a_deleted_endpoint_gets_nothing_that_waited(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving("503 Busy") as receiver, opened(open_context) as provider:
        endpoint = await made(provider, receiver, call_context())
        await provider.trigger(submitted(), call_context())
        request = contract.DeleteEndpointRequest(id=endpoint.id)
        deleted = [(await provider.delete_endpoint(request, call_context())).deleted for _ in range(2)]
        assert deleted == [True, False]
        provider.pass_time(1000)
        assert await provider.work(call_context()) is None
        assert len(receiver.ids) == 1


async def test_endpoints_are_listed_page_by_page(open_context: OpenContext, call: CallContext) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        ids = [(await made(provider, receiver, call)).id for _ in range(3)]
        first = await provider.list_endpoints(contract.ListEndpointsRequest(limit=2), call)
        rest = await provider.list_endpoints(contract.ListEndpointsRequest(limit=2, cursor=first.next_cursor), call)
        assert [item.id for item in first.endpoints + rest.endpoints] == ids
        assert rest.next_cursor is UNSET


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://2130706434/", "http://[::1]/", "ftp://x.example/", "nonsense"]
)
async def test_an_address_that_may_not_be_reached_is_refused_and_nothing_is_kept(
    open_context: OpenContext, call: CallContext, vault: MemoryVault, url: str
) -> None:
    async with opened(open_context) as provider:
        with pytest.raises(ProviderError) as refusal:
            await provider.create_endpoint(contract.CreateEndpointRequest(url=url), call)
        assert refusal.value.code is ErrorCode.FAILED_PRECONDITION
        assert [error.pointer for error in refusal.value.errors] == ["/params/url"]
        assert (await provider.list_endpoints(contract.ListEndpointsRequest(), call)).endpoints == []
        assert vault.values == {}


async def test_a_secret_that_cannot_sign_is_refused_by_its_field_and_not_repeated(
    open_context: OpenContext, call: CallContext
) -> None:
    async with opened(open_context) as provider:
        with pytest.raises(ProviderError) as refusal:
            await provider.create_endpoint(
                contract.CreateEndpointRequest(url="https://x.example/", secret="hunter2hunter2!"), call
            )
        assert [error.pointer for error in refusal.value.errors] == ["/params/secret"]
        assert "hunter2" not in str(refusal.value.errors) + refusal.value.message


async def test_one_endpoint_too_many_is_refused(
    open_context: OpenContext, call: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MAX_ENDPOINTS", 1)
    async with receiving() as receiver, opened(open_context) as provider:
        await made(provider, receiver, call)
        with pytest.raises(ProviderError) as refusal:
            await made(provider, receiver, call)
        assert refusal.value.code is ErrorCode.FAILED_PRECONDITION


async def test_what_the_configuration_says_is_changed_only_there(open_context: OpenContext, call: CallContext) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url) as provider:
        refused = [
            provider.update_endpoint(contract.UpdateEndpointRequest(id="configured", url="https://x.example/"), call),
            provider.rotate_endpoint_secret(contract.RotateEndpointSecretRequest(id="configured"), call),
            provider.delete_endpoint(contract.DeleteEndpointRequest(id="configured"), call),
        ]
        for attempt in refused:
            with pytest.raises(ProviderError) as refusal:
                await attempt
            assert refusal.value.code is ErrorCode.INVALID_ARGUMENT
        assert (await provider.trigger(submitted(), call)).status == "completed"


async def test_a_new_configured_address_starts_enabled_and_a_removed_one_is_forgotten(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving("410 Gone") as gone, receiving() as receiver:
        async with opened(open_context, gone.url) as provider:
            assert (await provider.trigger(submitted(), call_context())).status == "failed"
        async with opened(open_context, gone.url) as provider:
            assert (await provider.trigger(submitted(), call_context())).status == "failed"
        async with opened(open_context, receiver.url) as provider:
            assert (await provider.trigger(submitted(), call_context())).status == "completed"
        async with opened(open_context) as provider:
            listed = await provider.list_endpoints(contract.ListEndpointsRequest(), call_context())
            assert listed.endpoints == []


@pytest.mark.parametrize("action", ["update_endpoint", "rotate_endpoint_secret"])
async def test_an_unknown_endpoint_is_not_found(open_context: OpenContext, call: CallContext, action: str) -> None:
    request = {
        "update_endpoint": contract.UpdateEndpointRequest(id="ep_x", enabled=True),
        "rotate_endpoint_secret": contract.RotateEndpointSecretRequest(id="ep_x"),
    }[action]
    async with opened(open_context) as provider:
        with pytest.raises(ProviderError) as refusal:
            await getattr(provider, action)(request, call)
        assert refusal.value.code is ErrorCode.NOT_FOUND


async def test_a_secret_that_was_destroyed_fails_the_attempt_and_says_so(
    open_context: OpenContext, call: CallContext, vault: MemoryVault
) -> None:
    async with receiving() as receiver, opened(open_context) as provider:
        endpoint = await made(provider, receiver, call)
        vault.values.clear()
        result = await provider.trigger(submitted(), call)
        found = await provider.get_delivery(contract.GetDeliveryRequest(id=result.id, endpoint=endpoint.id), call)
        assert (result.status, found.attempts[0].code) == ("accepted", "failed_precondition")
        assert receiver.connections == 0
        rotate = contract.RotateEndpointSecretRequest(id=endpoint.id, secret=generate_secret(), grace_seconds=0)
        receiver.secret = (await provider.rotate_endpoint_secret(rotate, call)).secret
        provider.pass_time(10)
        await provider.work(call)
        assert len(receiver.messages) == 1
