"""An order that comes as a document is the same order as the one that comes as parameters."""

from __future__ import annotations

import msgspec
import pytest
from tests.services.order.tenant import Tenant, new_order
from tests.services.order.ubl.documents import ORDER, SMALL, changed

from erp.contracts.models import order as api
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.services.order import written
from erp.services.order.service import OrderService

pytestmark = pytest.mark.anyio


def document(text: str) -> api.SubmitDocumentRequest:
    return api.SubmitDocumentRequest(document=text)


async def test_a_document_is_kept_like_any_order(service: OrderService, tenant: Tenant) -> None:
    result = await service.submit_document(document(ORDER), tenant.context())

    assert msgspec.to_builtins(result) == {
        "order_id": written.order_id("acme", "PO-77"),
        "customer_reference": "PO-77",
        "status": "submitted",
        "net_total": "149.80",
        "tax_total": "15.26",
        "total": "165.06",
        "currency": "EUR",
        "created": True,
    }
    kept = await service.get(api.GetRequest(order_id=result.order_id), tenant.context())
    assert [(line.line_number, line.sku, str(line.net), str(line.tax)) for line in kept.lines] == [
        (10, "SKU-1", "39.80", "7.56"),
        (20, "4006381333931", "110.00", "7.70"),
    ]
    assert [(step.name, step.status) for step in kept.steps] == [
        ("event", "pending"),
        ("integration", "pending"),
        ("annotation", "pending"),
    ]


async def test_a_document_sent_twice_is_one_order(service: OrderService, tenant: Tenant) -> None:
    first = await service.submit_document(document(ORDER), tenant.context())
    # Another writing of the same order: comments and white space.
    again = changed(ORDER, "everything that the service looks at", "less")
    second = await service.submit_document(document(again), tenant.context())
    assert (first.created, second.created, second.order_id) == (True, False, first.order_id)
    assert await tenant.rows("select count(*) from orders") == [[1]]


async def test_the_same_order_in_both_forms_is_one_order(service: OrderService, tenant: Tenant) -> None:
    as_parameters = msgspec.convert(
        {
            "customer_reference": "PO-1",
            "customer": {"id": "C-1", "name": "Ada Byron"},
            "currency": "EUR",
            "order_date": "2026-11-23",
            "lines": [{"sku": "SKU-1", "quantity": "2.0", "unit_price": "19.9"}],
            "total": "39.80",
        },
        api.SubmitRequest,
    )
    first = await service.submit(as_parameters, tenant.context())
    second = await service.submit_document(document(SMALL), tenant.context())
    assert (first.created, second.created, second.order_id) == (True, False, first.order_id)


async def test_another_order_under_the_same_reference_is_refused(service: OrderService, tenant: Tenant) -> None:
    await service.submit(new_order(), tenant.context())
    with pytest.raises(ProviderError) as caught:
        await service.submit_document(document(SMALL), tenant.context())
    assert caught.value.code is ErrorCode.ALREADY_EXISTS
    assert await tenant.rows("select total from orders") == [["47.36"]]


async def test_a_refused_document_leaves_nothing_behind(service: OrderService, tenant: Tenant) -> None:
    with pytest.raises(ProviderError):
        await service.submit_document(document(changed(SMALL, ">39.80<", ">39.81<")), tenant.context())
    assert tenant.statements == []

    taken = await service.submit_document(document(SMALL), tenant.context())
    assert taken.created is True
