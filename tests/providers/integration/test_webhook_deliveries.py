"""Deliveries: the schedule of attempts, what ends it, the log, sending again."""

from __future__ import annotations

import asyncio
import datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.providers.integration.peers import (
    DAYS,
    HOURS,
    SECONDS,
    Receiver,
    TimedWebhooks,
    opened,
    receiving,
    submitted,
)

from erp.contracts.models import integration as contract
from erp.providers.integration.webhook import schedule
from erp.providers.integration.webhook.dispatcher import LEASE_SECONDS
from erp.runtime.spi import UNSET, CallContext, ErrorCode, OpenContext, ProviderError

if TYPE_CHECKING:
    from tests.conftest import KeptReminders, MakeCallContext

pytestmark = pytest.mark.anyio

BUSY = "503 Busy"


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture(autouse=True)
def _without_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "JITTER", 0.0)


def events(context: CallContext) -> list[tuple[str, str]]:
    """Names and what became of the delivery or endpoint, as announced."""
    return [
        (event.name, event.data.get("delivery", {}).get("status", event.data.get("reason")))
        for event in context.emitted
    ]


async def details(provider: TimedWebhooks, id_: str, context: CallContext) -> contract.GetDeliveryResult:
    return await provider.get_delivery(contract.GetDeliveryRequest(id=id_, endpoint="configured"), context)


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


async def test_attempts_follow_the_published_schedule_with_one_id_and_end_exhausted(
    open_context: OpenContext, call_context: MakeCallContext, reminders: KeptReminders
) -> None:
    async with receiving(*[BUSY] * 8) as receiver, opened(open_context, receiver.url) as provider:
        context = call_context()
        result = await provider.trigger(submitted(), context)
        assert (result.status, events(context)) == ("accepted", [("delivery_failing", "failing")])
        assert reminders.due[-1] == at(provider.now + 5)
        pauses, announced = [], []
        due: datetime.datetime | None = reminders.due[-1]
        while due is not None:
            pauses.append(round(due.timestamp() - provider.now))
            provider.now = due.timestamp()
            context = call_context()
            due = await provider.work(context)
            announced += events(context)
        assert pauses == [5, 300, 1800, 7200, 18_000, 36_000, 36_000]
        assert announced == [("delivery_failing", "failing")] * 6 + [("delivery_exhausted", "exhausted")]
        assert receiver.ids == [result.id] * 8
        found = await details(provider, result.id, call_context())
        assert (found.delivery.status, found.delivery.attempts) == ("exhausted", 8)
        assert [(item.number, item.status, item.http_status) for item in found.attempts] == [
            (number, "failed", 503) for number in range(1, 9)
        ]
        assert found.payload == receiver.messages[0]


def test_pauses_are_spread_by_a_fifth_and_never_shorter_than_the_endpoint_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedule, "JITTER", 0.2)
    found = [schedule.pause_seconds(2, None) or 0.0 for _ in range(200)]
    assert 240 <= min(found) < 290
    assert 310 < max(found) <= 360
    assert schedule.pause_seconds(1, 600.0) == 600.0
    assert schedule.pause_seconds(1, 1e9) == schedule.LONGEST_SECONDS
    assert schedule.pause_seconds(schedule.ATTEMPTS, None) is None


async def test_a_delivery_that_had_failed_is_announced_as_recovered(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving(BUSY) as receiver, opened(open_context, receiver.url) as provider:
        await provider.trigger(submitted(), call_context())
        provider.pass_time(5)
        context = call_context()
        assert await provider.work(context) is None
        assert events(context) == [("delivery_recovered", "delivered")]
        [endpoint] = (await provider.list_endpoints(contract.ListEndpointsRequest(), context)).endpoints
        assert endpoint.failing_since is UNSET


async def test_nothing_is_attempted_before_its_time(open_context: OpenContext, call_context: MakeCallContext) -> None:
    async with receiving(BUSY) as receiver, opened(open_context, receiver.url) as provider:
        await provider.trigger(submitted(), call_context())
        provider.pass_time(4.9)
        assert await provider.work(call_context()) == at(provider.now + 0.1)
        assert len(receiver.ids) == 1


async def test_retry_after_puts_the_next_attempt_off(
    open_context: OpenContext, call_context: MakeCallContext, reminders: KeptReminders
) -> None:
    async with receiving(f"{BUSY}\r\nretry-after: 900") as receiver, opened(open_context, receiver.url) as provider:
        await provider.trigger(submitted(), call_context())
        assert reminders.due[-1] == at(provider.now + 75)
        provider.pass_time(75)
        assert await provider.work(call_context()) == at(provider.now + 900 - 75)


async def test_gone_disables_the_endpoint_aborts_what_waits_and_fails_the_trigger(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving(BUSY, "410 Gone") as receiver, opened(open_context, receiver.url) as provider:
        waiting = await provider.trigger(submitted(), call_context())
        context = call_context()
        result = await provider.trigger(submitted(), context)
        assert (result.status, events(context)) == ("failed", [("endpoint_disabled", "gone")])
        assert isinstance(result.problem, contract.RecordProblem)
        assert (result.problem.code, result.problem.retryable) == ("failed_precondition", False)
        assert (await details(provider, waiting.id, context)).delivery.status == "aborted"
        provider.pass_time(1 * DAYS)
        assert await provider.work(call_context()) is None
        again = await provider.trigger(submitted(), call_context())
        assert (again.status, len(receiver.ids)) == ("failed", 2)
        await provider.update_endpoint(contract.UpdateEndpointRequest(id="configured", enabled=True), call_context())
        assert (await provider.trigger(submitted(), call_context())).status == "completed"


async def test_an_endpoint_to_which_nothing_got_through_for_five_days_is_disabled(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving(*[BUSY] * 3) as receiver, opened(open_context, receiver.url) as provider:
        await provider.trigger(submitted(), call_context())
        provider.pass_time(5 * DAYS - 10 * SECONDS)
        context = call_context()
        await provider.trigger(submitted(), context)
        assert events(context) == [("delivery_failing", "failing")]
        provider.pass_time(10 * SECONDS)
        context = call_context()
        await provider.trigger(submitted(), context)
        assert events(context) == [("endpoint_disabled", "failing")]
        [endpoint] = (await provider.list_endpoints(contract.ListEndpointsRequest(), context)).endpoints
        assert (endpoint.enabled, endpoint.disabled_reason) == (False, "failing")
        statuses = {item.status for item in (await listed(provider, call_context())).deliveries}
        assert statuses == {"aborted"}


async def listed(provider: TimedWebhooks, context: CallContext, **wanted: Any) -> contract.ListDeliveriesResult:
    return await provider.list_deliveries(contract.ListDeliveriesRequest(**wanted), context)


async def test_an_endpoint_can_refuse_one_message_for_good(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    answer = "422 No\r\nwebhook-delivery: abort-message"
    async with receiving(answer) as receiver, opened(open_context, receiver.url) as provider:
        result = await provider.trigger(submitted(), call_context())
        assert result.status == "failed"
        assert (await details(provider, result.id, call_context())).delivery.status == "aborted"
        assert (await provider.trigger(submitted(), call_context())).status == "completed"


async def test_a_repeated_call_delivers_nothing_twice_and_answers_how_the_delivery_stands(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url) as provider:
        results = [await provider.trigger(submitted(), call_context(idempotency_key="k")) for _ in range(3)]
    assert [result.status for result in results] == ["completed"] * 3
    assert len(receiver.ids) == 1


async def test_a_process_that_dies_in_the_first_attempt_loses_nothing(
    open_context: OpenContext, call_context: MakeCallContext, reminders: KeptReminders, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: Any) -> None:
        raise RuntimeError("the process dies here")

    async with receiving() as receiver:
        async with opened(open_context, receiver.url) as provider:
            monkeypatch.setattr(provider._dispatcher, "_attempt", killed)
            with pytest.raises(RuntimeError, match="dies here"):
                await provider.trigger(submitted(), call_context())
            died_at = provider.now
        assert reminders.due == [at(died_at + LEASE_SECONDS)]
        async with opened(open_context, receiver.url) as provider:
            provider.now = died_at + LEASE_SECONDS
            assert await provider.work(call_context()) is None
        assert len(receiver.messages) == 1


async def test_many_triggers_ask_for_few_reminders(
    open_context: OpenContext, call_context: MakeCallContext, reminders: KeptReminders
) -> None:
    async with receiving() as receiver, opened(open_context, receiver.url) as provider:
        for _ in range(20):
            await provider.trigger(submitted(), call_context())
    assert len(reminders.due) == 1


async def test_deliveries_are_listed_newest_first_by_what_is_asked(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving("204 OK", BUSY) as receiver, opened(open_context, receiver.url) as provider:
        ids = []
        for name in ("a", "b", "c"):
            ids.append((await provider.trigger(contract.TriggerRequest(name=name), call_context())).id)
            provider.pass_time(1)
        first = await listed(provider, call_context(), limit=2)
        rest = await listed(provider, call_context(), limit=2, cursor=first.next_cursor)
        assert [item.id for item in first.deliveries + rest.deliveries] == ids[::-1]
        assert rest.next_cursor is UNSET
        assert [item.name for item in (await listed(provider, call_context(), status="failing")).deliveries] == ["b"]
        until = at(provider.now - 2)
        assert [item.name for item in (await listed(provider, call_context(), created_until=until)).deliveries] == ["a"]
        assert (await listed(provider, call_context(), endpoint="other")).deliveries == []


async def test_a_delivery_can_be_sent_again_by_hand_without_changing_its_schedule(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving(BUSY, BUSY) as receiver, opened(open_context, receiver.url) as provider:
        result = await provider.trigger(submitted(), call_context())
        before = (await details(provider, result.id, call_context())).delivery
        request = contract.ResendDeliveryRequest(id=result.id, endpoint="configured")
        failed = (await provider.resend_delivery(request, call_context())).attempt
        assert (failed.number, failed.status, failed.http_status) == (2, "failed", 503)
        assert (await details(provider, result.id, call_context())).delivery.next_attempt_at == before.next_attempt_at
        context = call_context()
        assert (await provider.resend_delivery(request, context)).attempt.status == "delivered"
        assert events(context) == [("delivery_recovered", "delivered")]
        assert receiver.ids == [result.id] * 3
        provider.pass_time(1 * HOURS)
        assert await provider.work(call_context()) is None
        with pytest.raises(ProviderError) as refusal:
            await provider.resend_delivery(
                contract.ResendDeliveryRequest(id="x", endpoint="configured"), call_context()
            )
        assert refusal.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(("select", "names"), [("failed", ["a"]), ("missing", ["c"]), ("all", ["a", "b", "c"])])
async def test_what_a_period_brought_can_be_delivered_again_with_its_ids(
    open_context: OpenContext, call_context: MakeCallContext, select: Any, names: list[str]
) -> None:
    async with (
        receiving("422 No\r\nwebhook-delivery: abort-message") as receiver,
        opened(open_context, receiver.url) as provider,
    ):
        start = provider.now
        await trigger_all(provider, call_context, ["a", "b"])
        await provider.update_endpoint(contract.UpdateEndpointRequest(id="configured", enabled=False), call_context())
        replay = contract.ReplayDeliveriesRequest(endpoint="configured", created_from=at(start), select=select)
        await trigger_all(provider, call_context, ["c"])
        with pytest.raises(ProviderError) as refusal:
            await provider.replay_deliveries(replay, call_context())
        assert refusal.value.code is ErrorCode.FAILED_PRECONDITION
        await provider.update_endpoint(contract.UpdateEndpointRequest(id="configured", enabled=True), call_context())
        receiver.messages.clear()
        result = await provider.replay_deliveries(replay, call_context())
        assert result.scheduled == len(names)
        assert await provider.work(call_context()) is None
        assert sorted(message["type"] for message in receiver.messages) == names
        provider.pass_time(1)


@pytest.mark.parametrize("answer", ["204 No Content", BUSY])
async def test_a_replay_of_what_is_being_attempted_is_not_settled_by_that_attempt(
    open_context: OpenContext, call_context: MakeCallContext, answer: str
) -> None:
    async with receiving(answer) as receiver, opened(open_context, receiver.url) as provider:
        start = provider.now
        receiver.answering.clear()
        first = asyncio.ensure_future(provider.trigger(submitted(), call_context()))
        await receiver.asked.wait()
        provider.pass_time(1)
        replay = contract.ReplayDeliveriesRequest(endpoint="configured", created_from=at(start), select="all")
        assert (await provider.replay_deliveries(replay, call_context())).scheduled == 1
        receiver.answering.set()
        result = await first
        assert result.status == "accepted"
        assert await provider.work(call_context()) is None
        assert receiver.ids == [result.id] * 2
        found = await details(provider, result.id, call_context())
        assert (found.delivery.status, found.delivery.attempts) == ("delivered", 2)


async def trigger_all(provider: TimedWebhooks, call_context: MakeCallContext, names: list[str]) -> None:
    for name in names:
        await provider.trigger(contract.TriggerRequest(name=name), call_context())
        provider.pass_time(1)


async def test_what_is_old_is_forgotten_unless_somebody_waits_for_it(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving("204 OK", BUSY) as receiver:
        async with opened(open_context, receiver.url, retention_days=1) as provider:
            await trigger_all(provider, call_context, ["delivered", "failing"])
            later = provider.now + 2 * DAYS
        async with opened(open_context, receiver.url, retention_days=1) as provider:
            provider.now = later
            await provider._forget()
            assert [item.name for item in (await listed(provider, call_context())).deliveries] == ["failing"]


async def test_one_endpoint_that_is_silent_holds_up_no_other(
    open_context: OpenContext, call_context: MakeCallContext
) -> None:
    async with receiving(*[BUSY] * 30) as slow, receiving(BUSY) as quick, opened(open_context, slow.url) as provider:
        made = await provider.create_endpoint(contract.CreateEndpointRequest(url=quick.url), call_context())
        quick.secret = made.secret
        for _ in range(10):
            await provider.trigger(submitted(), call_context())
        provider.pass_time(5)
        await provider.work(call_context())
        assert delivered(quick) == 10


def delivered(receiver: Receiver) -> int:
    return len(set(receiver.ids))
