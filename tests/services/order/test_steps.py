"""The steps and the runtime agree about what it looks like when a tenant does not use a domain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.services.order.tenant import Tenant, new_order

from erp.contracts.models import order as api
from erp.runtime.service_calls import equip
from erp.services.order import steps
from erp.services.order.service import OrderService

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", ["integration", "annotation"])
async def test_a_domain_the_tenant_does_not_use_is_skipped(service: OrderService, tenant: Tenant, name: str) -> None:
    made = await service.submit(new_order(), tenant.context())
    order = await service.get(api.GetRequest(order_id=made.order_id), tenant.context())

    async def default_of(*_: Any) -> None:
        return None

    context = tenant.context()
    calls: Any = SimpleNamespace(plans=SimpleNamespace(default_of=default_of))
    journal: Any = SimpleNamespace()
    equip(context, calls, journal, "order")
    status, detail = await steps.taken(name, context, order)

    assert status == "skipped"
    assert "Configure one" in detail
