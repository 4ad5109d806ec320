"""Receivers: opened, proven, each message announced once, everything kept and repeatable."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.providers.integration.peers import DAYS, HOURS, TimedWebhooks, opened

from erp.contracts.models import integration as contract
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, ProviderError
from erp.vendor_clients.standard_webhooks import SigningKeys, generate_secret

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext, MemoryVault, ReadableLinks

pytestmark = pytest.mark.anyio

PAID = {"type": "order.paid", "data": {"id": "ord_1", "total": "19.90"}}


@pytest.fixture
def call(call_context: MakeCallContext) -> CallContext:
    return call_context()


class Peer:
    """Sends to one receiver what it signs with a secret it knows."""

    def __init__(self, provider: TimedWebhooks, links: ReadableLinks, secret: str) -> None:
        self.provider = provider
        self.links = links
        self.secret = secret
        self.claim = links.made[-1][1]["receiver"]

    def request(self, id_: str = "msg_1", payload: Any = PAID, **facts: Any) -> contract.ReceiveRequest:
        body = facts.pop("body", json.dumps(payload).encode())
        headers = SigningKeys([self.secret]).headers(message_id=id_, body=body, sent_at=self.provider.now)
        default = {
            "receiver": self.claim,
            "method": "POST",
            "query": "",
            "headers": headers,
            "body": body,
            "received_at": datetime.datetime.fromtimestamp(self.provider.now, datetime.UTC),
        }
        return contract.ReceiveRequest(**default | facts)


async def peer_of(provider: TimedWebhooks, links: ReadableLinks, call: CallContext, **facts: Any) -> Peer:
    made = await provider.create_receiver(contract.CreateReceiverRequest(**{"name": "shop"} | facts), call)
    return Peer(provider, links, "" if made.secret is UNSET else made.secret)


def announced(context: CallContext) -> list[tuple[str, str | None, Any]]:
    return [(event.name, event.id, event.data["message"]) for event in context.emitted]


async def received(provider: TimedWebhooks, call: CallContext, **wanted: Any) -> list[contract.Received]:
    return (await provider.list_received(contract.ListReceivedRequest(**wanted), call)).received


async def test_a_receiver_has_an_unguessable_path_and_a_secret_shown_once_and_kept_in_the_vault(
    open_context: OpenContext, call: CallContext, links: ReadableLinks, vault: MemoryVault
) -> None:
    async with opened(open_context) as provider:
        made = await provider.create_receiver(contract.CreateReceiverRequest(name="shop"), call)
        [(purpose, _, expires_at)] = links.made
        assert (purpose, expires_at, made.receiver.path) == ("webhooks", None, "https://erp.example/webhooks/link-1")
        assert (made.receiver.scheme, made.receiver.enabled) == ("standard_webhooks", True)
        assert list(vault.values.values()) == [[made.secret]]
        [listed] = (await provider.list_receivers(contract.ListReceiversRequest(), call)).receivers
        assert listed == made.receiver


async def test_a_message_is_announced_once_with_a_stable_id_however_often_it_comes(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        context = call_context()
        result = await provider.receive(peer.request(), context)
        id_ = peer.claim.partition("~")[0]
        message = {"id": "msg_1", "name": "order.paid", "payload": PAID}
        assert announced(context) == [("received", f"{id_}:msg_1", message)]
        assert (result.reply_status, [item.id for item in result.messages]) == (204, ["msg_1"])
        again = call_context()
        repeated = await provider.receive(peer.request(), again)
        assert (repeated.reply_status, repeated.messages) == (204, [])
        # The same event id: the outbox drops it, unless the first never reached it.
        assert announced(again) == announced(context)
        provider.pass_time(13 * HOURS)
        late = call_context()
        await provider.receive(peer.request(), late)
        assert announced(late) == []
        assert [item.status for item in await received(provider, call_context())] == [
            "repeated",
            "repeated",
            "published",
        ]


async def test_of_many_copies_at_once_one_is_new(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        results = await asyncio.gather(*(provider.receive(peer.request(), call_context()) for _ in range(20)))
        assert sum(len(result.messages) for result in results) == 1


async def test_messages_stay_known_after_a_restart(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        await provider.receive(peer.request(), call_context())
    async with opened(open_context) as provider:
        peer.provider = provider
        assert (await provider.receive(peer.request(), call_context())).messages == []


@pytest.mark.parametrize("wrong", ["signature", "age", "body"])
async def test_what_is_not_proven_is_refused_recorded_with_the_reason_and_not_announced(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks, wrong: str
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        request = peer.request()
        if wrong == "signature":
            request.headers["webhook-signature"] = "v1,AAAA"
        elif wrong == "age":
            provider.pass_time(301)
        else:
            request.body = b"{}"
        context = call_context()
        with pytest.raises(ProviderError) as refusal:
            await provider.receive(request, context)
        assert (refusal.value.code, context.emitted) == (ErrorCode.UNAUTHENTICATED, [])
        [kept] = await received(provider, context)
        assert (kept.status, kept.reason, kept.name) == ("refused", refusal.value.message, UNSET)
        assert (await provider.receive(peer.request(), call_context())).messages != []


async def test_the_previous_secret_is_accepted_until_its_grace_time_ends(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        id_, new = peer.claim.partition("~")[0], generate_secret()
        update = contract.UpdateReceiverRequest(id=id_, secret=new, grace_seconds=100)
        changed = (await provider.update_receiver(update, call_context())).receiver
        assert changed.previous_secret_until.timestamp() == pytest.approx(provider.now + 100)
        await provider.receive(peer.request("old"), call_context())
        provider.pass_time(101)
        with pytest.raises(ProviderError):
            await provider.receive(peer.request("late"), call_context())
        peer.secret = new
        await provider.receive(peer.request("new"), call_context())
        published = await received(provider, call_context(), status="published")
        assert [item.id for item in published] == ["new", "old"]


async def test_a_new_path_closes_the_old_one_and_a_disabled_or_deleted_receiver_is_not_found(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks, vault: MemoryVault
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        id_ = peer.claim.partition("~")[0]
        await provider.update_receiver(contract.UpdateReceiverRequest(id=id_, new_path=True), call_context())
        await assert_not_found(provider, peer.request(), call_context())
        peer.claim = links.made[-1][1]["receiver"]
        assert (await provider.receive(peer.request(), call_context())).reply_status == 204
        await provider.update_receiver(contract.UpdateReceiverRequest(id=id_, enabled=False), call_context())
        await assert_not_found(provider, peer.request("2"), call_context())
        await provider.update_receiver(contract.UpdateReceiverRequest(id=id_, enabled=True), call_context())
        assert (await provider.receive(peer.request("2"), call_context())).reply_status == 204
        delete = contract.DeleteReceiverRequest(id=id_)
        assert [(await provider.delete_receiver(delete, call_context())).deleted for _ in range(2)] == [True, False]
        await assert_not_found(provider, peer.request("3"), call_context())
        assert vault.values == {}


async def assert_not_found(provider: TimedWebhooks, request: contract.ReceiveRequest, call: CallContext) -> None:
    with pytest.raises(ProviderError) as refusal:
        await provider.receive(request, call)
    assert refusal.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize("claim", ["", "rcv_x", "rcv_x~1", "~", "rcv_x~1~1"])
async def test_an_unknown_receiver_is_not_found(
    open_context: OpenContext, call: CallContext, links: ReadableLinks, claim: str
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call)
        await assert_not_found(provider, peer.request(receiver=claim), call)


async def test_received_messages_are_published_again_with_their_own_ids_once_per_call(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        start = provider.now
        for id_ in ("a", "b", "c"):
            await provider.receive(peer.request(id_, {"type": id_}), call_context())
            provider.pass_time(10)
        receiver = peer.claim.partition("~")[0]
        request = contract.ReplayReceivedRequest(
            receiver=receiver,
            received_from=datetime.datetime.fromtimestamp(start + 5, datetime.UTC),
            received_until=datetime.datetime.fromtimestamp(start + 20, datetime.UTC),
        )
        context = call_context(idempotency_key="again")
        assert (await provider.replay_received(request, context)).published == 1
        message = {"id": "b", "name": "b", "payload": {"type": "b"}}
        assert announced(context) == [("received", f"{receiver}:b:again", message)]
        with pytest.raises(ProviderError) as refusal:
            request.receiver = "rcv_x"
            await provider.replay_received(request, call_context())
        assert refusal.value.code is ErrorCode.NOT_FOUND


async def test_the_path_alone_proves_a_token_receiver_and_a_query_is_a_payload(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context) as provider:
        made = await provider.create_receiver(
            contract.CreateReceiverRequest(name="old", scheme="token"), call_context()
        )
        assert made.secret is UNSET
        request = Peer(provider, links, generate_secret()).request(
            headers={}, method="GET", query="event=paid&id=7", body=b""
        )
        [message] = (await provider.receive(request, call_context())).messages
        assert message.payload == {"event": "paid", "id": "7"}
        assert (await provider.receive(request, call_context())).messages == []


@pytest.mark.parametrize(
    ("body", "payload"), [(b"plain text", "plain text"), (b"\xff\x00", {"base64": "/wA="}), (b"[1]", [1])]
)
async def test_a_body_that_is_no_json_is_kept_as_text_or_base64(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks, body: bytes, payload: Any
) -> None:
    async with opened(open_context) as provider:
        peer = await peer_of(provider, links, call_context())
        [message] = (await provider.receive(peer.request(body=body), call_context())).messages
        assert message.payload == payload


async def test_a_configured_scheme_is_a_row_of_data_and_a_removed_one_refuses(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    row = {"proof": "secret_in_header", "signature_header": "x-acme-key", "id_header": "x-acme-id"}
    async with opened(open_context, schemes={"acme": row}) as provider:
        peer = await peer_of(provider, links, call_context(), scheme="acme", secret="a secret of acme")
        headers = {"x-acme-key": "a secret of acme", "x-acme-id": "1"}
        peer.secret = generate_secret()
        request = peer.request(headers=headers)
        assert [item.id for item in (await provider.receive(request, call_context())).messages] == ["1"]
    async with opened(open_context) as provider:
        with pytest.raises(ProviderError) as refusal:
            await provider.receive(request, call_context())
        assert refusal.value.code is ErrorCode.UNAUTHENTICATED


async def test_a_scheme_that_proves_nothing_is_refused_when_opened(open_context: OpenContext) -> None:
    provider = TimedWebhooks({"schemes": {"x": {"signature_header": "x", "signed": "{timestamp}"}}}, open_context)
    with pytest.raises(ProviderError) as refusal:
        await provider.open()
    assert refusal.value.code is ErrorCode.FAILED_PRECONDITION
    await provider.close()


@pytest.mark.parametrize(
    ("facts", "pointer"),
    [({"scheme": "carrier_pigeon"}, "/params/scheme"), ({"secret": "no"}, "/params/secret")],
)
async def test_a_receiver_that_could_not_work_is_refused_by_its_field(
    open_context: OpenContext, call: CallContext, facts: dict[str, str], pointer: str
) -> None:
    async with opened(open_context) as provider:
        with pytest.raises(ProviderError) as refusal:
            await provider.create_receiver(contract.CreateReceiverRequest(name="x", **facts), call)
        assert [error.pointer for error in refusal.value.errors] == [pointer]
        assert (await provider.list_receivers(contract.ListReceiversRequest(), call)).receivers == []


async def test_a_name_belongs_to_one_receiver(open_context: OpenContext, call: CallContext, vault: MemoryVault) -> None:
    async with opened(open_context) as provider:
        await provider.create_receiver(contract.CreateReceiverRequest(name="shop"), call)
        with pytest.raises(ProviderError) as refusal:
            await provider.create_receiver(contract.CreateReceiverRequest(name="shop"), call)
        assert (refusal.value.code, len(vault.values)) == (ErrorCode.ALREADY_EXISTS, 1)


async def test_what_was_received_is_listed_newest_first_by_what_is_asked_and_forgotten_in_time(
    open_context: OpenContext, call_context: MakeCallContext, links: ReadableLinks
) -> None:
    async with opened(open_context, retention_days=1) as provider:
        peer = await peer_of(provider, links, call_context())
        for number in range(3):
            await provider.receive(peer.request(str(number)), call_context())
            provider.pass_time(1)
        first = await provider.list_received(contract.ListReceivedRequest(limit=2), call_context())
        rest = await received(provider, call_context(), cursor=first.next_cursor)
        assert [item.id for item in first.received + rest] == ["2", "1", "0"]
        assert await received(provider, call_context(), receiver="rcv_x") == []
        provider.pass_time(1 * DAYS)
        await provider._forget()
        assert await received(provider, call_context()) == []
