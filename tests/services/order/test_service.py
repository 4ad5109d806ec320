"""Orders are kept exactly, once, and followed up until all is done, whatever fails on the way."""

from __future__ import annotations

import asyncio
import datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.services.order.conftest import Running, World, start

from erp.contracts.models import order as api
from erp.errors import ProviderError
from erp.services.order import store

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("fast")]


def order(reference: str = "PO-1", **changes: Any) -> api.SubmitRequest:
    facts: dict[str, Any] = {
        "customer_reference": reference,
        "customer": api.Customer(id="C-1", name="Ada Byron", email="ada@example.com"),
        "currency": "EUR",
        "order_date": datetime.date(2026, 11, 23),
        "lines": [
            api.NewLine(sku="S-1", quantity=Decimal(2), unit_price=Decimal("19.90"), tax_rate=Decimal("0.19")),
            api.NewLine(sku="S-2", quantity=Decimal("0.5"), unit_price=Decimal("10.01"), discount=Decimal("0.01")),
        ],
        "total": Decimal("52.36"),
        "note": "Machine is down, call +49 170 1234567 or ada@example.com. Ada Byron",
    }
    return api.SubmitRequest(**(facts | changes))


async def settled(running: Running, order_id: str) -> api.GetResult:
    for _ in range(200):
        found = await running.service.get(api.GetRequest(order_id=order_id), running.world.context())
        if all(step.status != "pending" for step in found.steps):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(order_id)


def statuses(found: api.GetResult) -> dict[str, str]:
    return {step.name: step.status for step in found.steps}


async def test_an_order_is_kept_exactly_and_everything_follows(running: Running) -> None:
    result = await running.service.submit(order(), running.world.context())
    assert (result.net_total, result.tax_total, result.total) == (Decimal("44.80"), Decimal("7.56"), Decimal("52.36"))
    assert result.created is True

    found = await settled(running, result.order_id)
    assert statuses(found) == {"event": "done", "integration": "done", "annotation": "done"}
    assert [(line.net, line.tax) for line in found.lines] == [
        (Decimal("39.80"), Decimal("7.56")),
        (Decimal("5.00"), Decimal("0.00")),
    ]
    assert (found.customer.name, str(found.note)[:7], found.order_date) == (
        "Ada Byron",
        "Machine",
        datetime.date(2026, 11, 23),
    )
    assert list(running.world.events) == [f"order.{kind}:{result.order_id}" for kind in ("submitted", "annotated")]
    assert [key for key, _ in running.world.triggers] == [f"order:{result.order_id}:integration"]


async def test_the_model_sees_no_personal_data_and_the_note_has_none(running: Running) -> None:
    result = await running.service.submit(order(), running.world.context())
    found = await settled(running, result.order_id)

    for text in [*running.world.texts, found.annotation.note]:
        for personal in ("Ada", "Byron", "ada@example.com", "1234567"):
            assert personal not in text
    assert (found.annotation.category, found.annotation.model) == ("spare parts", "test-model")


async def test_an_order_that_is_followed_up_while_it_is_read_is_read_with_what_its_steps_did(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await running.service.submit(order(), running.world.context())
    read, queries = store.rows, 0

    async def slowly(context: Any, sql: str, *parameters: Any, **options: Any) -> list[list[Any]]:
        nonlocal queries
        queries += 1
        found = await read(context, sql, *parameters, **options)
        for _ in range(500 if queries == 1 else 0):
            if not await read(context, "select 1 from order_steps where status = 'pending'"):
                break
            await asyncio.sleep(0.01)
        return found

    monkeypatch.setattr(store, "rows", slowly)
    found = await running.service.get(api.GetRequest(order_id=result.order_id), running.world.context())
    assert queries == 3
    assert found.annotation.category == "spare parts"


async def test_events_and_webhooks_carry_no_names_or_addresses(running: Running) -> None:
    result = await running.service.submit(order(), running.world.context())
    await settled(running, result.order_id)
    sent = str(running.world.events) + str(running.world.triggers)
    assert "Byron" not in sent
    assert "ada@example.com" not in sent


async def test_the_same_order_again_is_found_and_nothing_is_doubled(running: Running) -> None:
    first = await running.service.submit(order(), running.world.context())
    await settled(running, first.order_id)
    again = await running.service.submit(order(), running.world.context())

    assert (again.order_id, again.created) == (first.order_id, False)
    await settled(running, first.order_id)
    assert (len(running.world.events), len(running.world.triggers)) == (2, 1)


async def test_another_order_with_the_same_reference_is_refused_and_changes_nothing(running: Running) -> None:
    first = await running.service.submit(order(), running.world.context())
    with pytest.raises(ProviderError) as refused:
        await running.service.submit(order(note="another"), running.world.context())
    assert refused.value.code == "already_exists"
    found = await running.service.get(api.GetRequest(order_id=first.order_id), running.world.context())
    assert found.note.startswith("Machine")


async def test_fifty_submissions_of_one_order_at_once_make_one(running: Running) -> None:
    results = await asyncio.gather(*(running.service.submit(order(), running.world.context()) for _ in range(50)))
    assert sum(result.created for result in results) == 1
    assert len({result.order_id for result in results}) == 1
    await settled(running, results[0].order_id)
    assert (len(running.world.events), len(running.world.delivered)) == (2, 1)


@pytest.mark.parametrize("domain", ["integration", "ai", "publish"])
async def test_what_fails_for_a_while_is_retried_until_it_is_done(running: Running, domain: str) -> None:
    running.world.failures[domain] = [ProviderError("unavailable", "down"), ProviderError("timeout", "slow")]
    result = await running.service.submit(order(), running.world.context())
    found = await settled(running, result.order_id)

    assert statuses(found) == {"event": "done", "integration": "done", "annotation": "done"}
    assert sum(step.attempts for step in found.steps) == 3 + 2
    assert (len(running.world.events), len(running.world.triggers)) == (2, 1)


async def test_what_fails_for_good_is_shown_and_can_be_tried_again(running: Running) -> None:
    running.world.failures["integration"] = [ProviderError("failed_precondition", "The endpoint is gone.")]
    result = await running.service.submit(order(), running.world.context())
    found = await settled(running, result.order_id)
    step = next(step for step in found.steps if step.name == "integration")
    assert (step.status, step.attempts, step.detail) == ("failed", 1, "failed_precondition: The endpoint is gone.")

    retried = await running.service.retry(api.RetryRequest(order_id=result.order_id), running.world.context())
    assert retried.retried == 1
    assert statuses(await settled(running, result.order_id))["integration"] == "done"


async def test_retries_stop_after_their_limit(running: Running) -> None:
    running.world.failures["ai"] = [ProviderError("unavailable", "down") for _ in range(100)]
    result = await running.service.submit(order(), running.world.context())
    found = await settled(running, result.order_id)
    step = next(step for step in found.steps if step.name == "annotation")
    assert (step.status, step.attempts) == ("failed", 8)


async def test_a_tenant_without_an_integration_has_the_step_skipped(running: Running) -> None:
    running.world.failures["integration"] = [ProviderError("unsupported", "The tenant has no provider.")]
    result = await running.service.submit(order(), running.world.context())
    assert statuses(await settled(running, result.order_id))["integration"] == "skipped"


async def test_an_order_whose_process_died_before_the_follow_up_is_found_by_the_next_one(world: World) -> None:
    first = await start(world)
    await first.stop()
    result = await first.service.submit(order(), world.context())
    assert world.events == {}

    second = await start(world)
    assert statuses(await settled(second, result.order_id))["event"] == "done"
    assert (len(world.events), len(world.triggers)) == (2, 1)
    await second.stop()


async def test_a_process_that_died_between_doing_and_noting_repeats_without_doubling(running: Running) -> None:
    result = await running.service.submit(order(), running.world.context())
    await settled(running, result.order_id)
    await store.change(running.world.context(), "update order_steps set status = 'pending'")
    running.follow_up.nudge("acme", result.order_id)
    await settled(running, result.order_id)
    assert (len(running.world.events), len(running.world.delivered)) == (2, 1)


async def test_a_database_that_is_down_for_a_moment_only_delays_the_follow_up(running: Running) -> None:
    result = await running.service.submit(order("PO-2"), running.world.context())
    running.world.failures["db"] = [ProviderError("unavailable", "locked")]
    running.follow_up.nudge("acme", result.order_id)
    await asyncio.sleep(0.05)
    assert running.world.failures["db"] == []
    assert statuses(await settled(running, result.order_id))["event"] == "done"


async def test_cancelling_announces_after_the_submission_and_only_once(running: Running) -> None:
    running.world.failures["publish"] = [ProviderError("unavailable", "down")]
    result = await running.service.submit(order(), running.world.context())
    request = api.CancelRequest(order_id=result.order_id, reason="too late")
    first = await running.service.cancel(request, running.world.context())
    again = await running.service.cancel(request, running.world.context())

    assert (first.cancelled, again.cancelled) == (True, False)
    found = await settled(running, result.order_id)
    assert (found.status, found.cancel_reason) == ("cancelled", "too late")
    announced = [id_ for id_ in running.world.events if "annotated" not in id_]
    assert announced == [f"order.{kind}:{result.order_id}" for kind in ("submitted", "cancelled")]


async def test_an_unknown_order_is_not_found(running: Running) -> None:
    context = running.world.context()
    for call in (
        running.service.get(api.GetRequest(order_id="nope"), context),
        running.service.cancel(api.CancelRequest(order_id="nope"), context),
        running.service.retry(api.RetryRequest(order_id="nope"), context),
    ):
        with pytest.raises(ProviderError) as refused:
            await call
        assert refused.value.code == "not_found"


async def test_orders_are_listed_newest_first_in_pages(running: Running) -> None:
    context = running.world.context()
    for number in range(5):
        customer = api.Customer(id=f"C-{number % 2}", name="X Y")
        await running.service.submit(order(f"PO-{number}", customer=customer), context)

    seen, cursor = [], None
    while True:
        page = await running.service.list(api.ListRequest(limit=2, **({"cursor": cursor} if cursor else {})), context)
        seen += [item.customer_reference for item in page.items]
        if not isinstance(page.next_cursor, str):
            break
        cursor = page.next_cursor
    assert seen == ["PO-4", "PO-3", "PO-2", "PO-1", "PO-0"]
    narrowed = await running.service.list(api.ListRequest(customer_id="C-1"), context)
    assert [item.customer_reference for item in narrowed.items] == ["PO-3", "PO-1"]
    with pytest.raises(ProviderError):
        await running.service.list(api.ListRequest(cursor="%%%"), context)
