"""An order stands in the database once, whole, or not at all, also when the database misbehaves."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.order.tenant import Tenant, new_order, refusal

from erp.contracts.models import order as api
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.services.order import written
from erp.services.order.service import OrderService

pytestmark = pytest.mark.anyio


async def counts(tenant: Tenant) -> list[int]:
    tables = ("orders", "order_lines", "order_steps")
    return [(await tenant.rows(f"select count(*) from {table}"))[0][0] for table in tables]


async def test_an_order_is_answered_priced_and_stands_in_one_transaction(service: OrderService, tenant: Tenant) -> None:
    result = await service.submit(new_order(), tenant.context())

    assert msgspec.to_builtins(result) == {
        "order_id": written.order_id("acme", "PO-1"),
        "status": "submitted",
        "net_total": "39.80",
        "tax_total": "7.56",
        "total": "47.36",
        "currency": "EUR",
        "created": True,
    }
    assert await counts(tenant) == [1, 1, 3]
    assert [action for action, _ in tenant.statements] == ["execute_batch", "execute_batch"]


async def test_an_order_is_shown_as_it_was_given(service: OrderService, tenant: Tenant) -> None:
    request = new_order(requested_delivery_date="2026-12-01")
    made = await service.submit(request, tenant.context())
    shown = await service.get(api.GetRequest(order_id=made.order_id), tenant.context())

    assert (shown.customer, shown.note, shown.requested_delivery_date) == (
        request.customer,
        request.note,
        request.requested_delivery_date,
    )
    assert msgspec.to_builtins(shown.lines[0]) == {
        "line_number": 1,
        "sku": "SKU-1",
        "quantity": "2",
        "unit_price": "19.90",
        "discount": "0",
        "tax_rate": "0.19",
        "net": "39.80",
        "tax": "7.56",
    }
    assert [(step.name, step.status, step.attempts) for step in shown.steps] == [
        ("event", "pending", 0),
        ("integration", "pending", 0),
        ("annotation", "pending", 0),
    ]


async def test_the_same_order_again_finds_its_own_row_however_its_amounts_are_written(
    service: OrderService, tenant: Tenant
) -> None:
    first = await service.submit(new_order(), tenant.context())
    line = {"line_number": 1, "sku": "SKU-1", "quantity": "2.0", "unit_price": "19.9", "tax_rate": "0.190"}
    again = await service.submit(new_order(lines=[line], total="47.360"), tenant.context())

    assert (first.created, again.created) == (True, False)
    assert again.order_id == first.order_id
    assert await counts(tenant) == [1, 1, 3]


async def test_another_order_with_the_same_reference_is_refused_and_changes_nothing(
    service: OrderService, tenant: Tenant
) -> None:
    await service.submit(new_order(), tenant.context())
    before = await tenant.rows("select * from orders")

    with pytest.raises(ProviderError) as caught:
        await service.submit(new_order(note="another"), tenant.context())

    assert caught.value.code is ErrorCode.ALREADY_EXISTS
    assert [error.pointer for error in caught.value.errors] == ["/params/customer_reference"]
    assert await tenant.rows("select * from orders") == before
    assert (await service.submit(new_order(customer_reference="PO-2"), tenant.context())).created is True


async def test_of_many_at_the_same_time_one_is_created(service: OrderService, tenant: Tenant) -> None:
    results = await asyncio.gather(*(service.submit(new_order(), tenant.context()) for _ in range(20)))

    assert sum(result.created for result in results) == 1
    assert len({result.order_id for result in results}) == 1
    assert await counts(tenant) == [1, 1, 3]


async def test_a_thousand_lines_fit_into_one_transaction(service: OrderService, tenant: Tenant) -> None:
    lines = [{"sku": f"S{number}", "quantity": "1", "unit_price": "0.01"} for number in range(1000)]
    made = await service.submit(new_order(lines=lines, total="10.00"), tenant.context())
    shown = await service.get(api.GetRequest(order_id=made.order_id), tenant.context())

    assert [line.sku for line in shown.lines] == [line["sku"] for line in lines]
    assert await counts(tenant) == [1, 1000, 3]


async def test_a_wrong_order_touches_nothing(service: OrderService, tenant: Tenant) -> None:
    with pytest.raises(ProviderError) as caught:
        await service.submit(new_order(total="47.37"), tenant.context())

    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert tenant.statements == []


async def test_an_order_whose_answer_was_lost_is_found(service: OrderService, tenant: Tenant) -> None:
    invoke = tenant.invoke

    async def losing(domain: str, action: str, request: Any, **options: Any) -> Any:
        result = await invoke(domain, action, request, **options)
        if action == "execute_batch" and "insert into orders" in request.statements[0].sql:
            raise refusal(ErrorCode.OUTCOME_UNKNOWN)
        return result

    context = tenant.context()
    context.invoke = losing
    assert (await service.submit(new_order(), context)).created is True
    assert await counts(tenant) == [1, 1, 3]


async def test_an_order_that_never_arrived_is_not_claimed_to_be_there(service: OrderService, tenant: Tenant) -> None:
    await service.list(api.ListRequest(), tenant.context())
    tenant.failures["db"] = [refusal(ErrorCode.OUTCOME_UNKNOWN)]

    with pytest.raises(ProviderError) as caught:
        await service.submit(new_order(), tenant.context())

    assert caught.value.code is ErrorCode.OUTCOME_UNKNOWN
    assert await counts(tenant) == [0, 0, 0]
    assert (await service.submit(new_order(), tenant.context())).created is True


async def test_a_tenant_that_chose_another_database_can_go_on(service: OrderService, tenant: Tenant) -> None:
    await service.submit(new_order(), tenant.context())
    for table in ("orders", "order_lines", "order_steps"):
        await tenant.change(f"drop table {table}")

    assert (await service.list(api.ListRequest(), tenant.context())).items == []
    assert (await service.submit(new_order(), tenant.context())).created is True


async def test_a_database_that_refuses_the_statements_is_the_tenants_matter(
    service: OrderService, tenant: Tenant
) -> None:
    await tenant.change("create table orders (something text)")

    with pytest.raises(ProviderError) as caught:
        await service.submit(new_order(), tenant.context())

    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
    assert caught.value.errors == ()
    await tenant.change("drop table orders")
    assert (await service.submit(new_order(), tenant.context())).created is True


async def test_an_unknown_order_is_not_found(service: OrderService, tenant: Tenant) -> None:
    for call, request in (
        (service.get, api.GetRequest(order_id="ord_x")),
        (service.cancel, api.CancelRequest(order_id="ord_x")),
        (service.retry, api.RetryRequest(order_id="ord_x")),
    ):
        with pytest.raises(ProviderError) as caught:
            await call(request, tenant.context())
        assert caught.value.code is ErrorCode.NOT_FOUND


async def test_pages_hold_every_order_once_newest_first(service: OrderService, tenant: Tenant) -> None:
    ids = [
        (await service.submit(new_order(customer_reference=f"PO-{number}"), tenant.context())).order_id
        for number in range(5)
    ]
    await service.cancel(api.CancelRequest(order_id=ids[2]), tenant.context())

    seen: list[str] = []
    cursor: Any = msgspec.UNSET
    while True:
        page = await service.list(api.ListRequest(limit=2, cursor=cursor), tenant.context())
        seen += [item.order_id for item in page.items]
        if page.next_cursor is msgspec.UNSET:
            break
        cursor = page.next_cursor

    cancelled = await service.list(api.ListRequest(status="cancelled"), tenant.context())
    theirs = await service.list(api.ListRequest(customer_id="C-2"), tenant.context())
    assert seen == ids[::-1]
    assert [(item.order_id, item.total) for item in cancelled.items] == [(ids[2], Decimal("47.36"))]
    assert theirs.items == []


@pytest.mark.parametrize("cursor", ["x", "%%%", "AAAA", "\u00e9"])
async def test_a_cursor_of_ones_own_making_is_refused(service: OrderService, tenant: Tenant, cursor: str) -> None:
    with pytest.raises(ProviderError) as caught:
        await service.list(api.ListRequest(cursor=cursor), tenant.context())
    assert [error.pointer for error in caught.value.errors] == ["/params/cursor"]


async def test_only_the_first_cancellation_cancels(service: OrderService, tenant: Tenant) -> None:
    made = await service.submit(new_order(), tenant.context())
    request = api.CancelRequest(order_id=made.order_id, reason="too late")
    results = await asyncio.gather(*(service.cancel(request, tenant.context()) for _ in range(5)))
    shown = await service.get(api.GetRequest(order_id=made.order_id), tenant.context())

    assert sorted(result.cancelled for result in results) == [False, False, False, False, True]
    assert (shown.status, shown.cancel_reason, shown.steps[-1].name) == ("cancelled", "too late", "cancellation")
    assert (await service.submit(new_order(), tenant.context())).status == "cancelled"


async def test_a_cancellation_the_database_refused_is_not_claimed(service: OrderService, tenant: Tenant) -> None:
    made = await service.submit(new_order(), tenant.context())
    invoke = tenant.invoke

    async def refusing(domain: str, action: str, request: Any, **options: Any) -> Any:
        if action == "execute_batch":
            raise refusal(ErrorCode.FAILED_PRECONDITION)
        return await invoke(domain, action, request, **options)

    context = tenant.context()
    context.invoke = refusing
    with pytest.raises(ProviderError):
        await service.cancel(api.CancelRequest(order_id=made.order_id), context)

    assert (await service.get(api.GetRequest(order_id=made.order_id), tenant.context())).status == "submitted"
    assert (await service.cancel(api.CancelRequest(order_id=made.order_id), tenant.context())).cancelled is True


def test_ids_differ_between_tenants_and_references(tmp_path: Path) -> None:
    ids = {written.order_id(tenant, reference) for tenant in ("a", "b") for reference in ("1", "2")}
    assert len(ids) == 4
    assert all(id_.startswith("ord_") and len(id_) <= 64 for id_ in ids)
