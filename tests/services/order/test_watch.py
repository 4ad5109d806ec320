"""A tenant's database is looked into while orders may be open in it, and not otherwise."""

from __future__ import annotations

import asyncio

import pytest
from tests.services.order.tenant import Tenant, new_order, refusal, settled, until

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.open_work import StoredOpenWork
from erp.errors import ProviderError
from erp.services.order import store
from erp.services.order import watch as watch_module
from erp.services.order.follow_up import OrderFollowUp
from erp.services.order.service import OrderService
from erp.services.order.watch import Watch

pytestmark = pytest.mark.anyio


async def nobody_noted(open_work: StoredOpenWork) -> None:
    """Wait until every tenant is forgotten."""
    for _ in range(3000):
        if not await open_work.marks("order"):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(await open_work.marks("order"))


async def test_nobody_is_looked_into_who_never_had_an_order(tenant: Tenant, at_work: OrderFollowUp) -> None:
    await asyncio.sleep(0.1)  # five sweeps
    assert tenant.statements == []


async def test_a_tenant_is_noted_before_its_order_is_written(
    service: OrderService, tenant: Tenant, open_work: StoredOpenWork
) -> None:
    await service.submit(new_order(), tenant.context())
    before = await open_work.marks("order")
    assert set(before) == {"acme"}
    tenant.failures["db"] = [refusal(ErrorCode.UNAVAILABLE)]
    with pytest.raises(ProviderError):
        await service.submit(new_order(customer_reference="PO-2"), tenant.context("globex"))
    assert set(await open_work.marks("order")) == {"acme", "globex"}


async def test_an_order_is_not_accepted_when_its_tenant_cannot_be_noted(
    service: OrderService, tenant: Tenant, open_work: StoredOpenWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(service: str, tenant: str) -> None:
        raise refusal(ErrorCode.UNAVAILABLE, "the control plane is away")

    with monkeypatch.context() as broken:
        broken.setattr(open_work, "mark", away)
        with pytest.raises(ProviderError, match="the control plane is away"):
            await service.submit(new_order(), tenant.context())
    assert await tenant.rows("select name from sqlite_master") == []
    assert (await service.submit(new_order(), tenant.context())).created


async def test_orders_within_a_minute_share_a_mark_and_a_later_one_makes_its_own(
    service: OrderService, tenant: Tenant, open_work: StoredOpenWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for number in range(3):
        await service.submit(new_order(customer_reference=f"PO-{number}"), tenant.context())
        seen.append((await open_work.marks("order"))["acme"])
    assert len(set(seen)) == 1
    monkeypatch.setattr(watch_module, "FRESH_SECONDS", 0.0)
    await service.submit(new_order(customer_reference="PO-3"), tenant.context())
    assert (await open_work.marks("order"))["acme"] != seen[0]


async def test_an_order_that_took_longer_to_write_than_a_mark_lasts_is_marked_once_more(
    open_work: StoredOpenWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "FRESH_SECONDS", 0.02)
    watch = Watch(open_work)
    async with watch.over("acme"):
        await asyncio.sleep(0.03)
        (mark,) = (await open_work.marks("order")).values()
        await open_work.clear("order", "acme", mark)  # another process found nothing in all that time
    assert set(await open_work.marks("order")) == {"acme"}


async def test_a_tenant_is_forgotten_once_nothing_was_open_for_a_while(
    tenant: Tenant, open_work: StoredOpenWork, impatient: None
) -> None:
    follow_up = OrderFollowUp(context_for=tenant.context, watch=Watch(open_work, quiet_seconds=0.2), sweep_seconds=0.02)
    service = OrderService(follow_up)
    task = asyncio.create_task(follow_up.run())
    id_ = (await service.submit(new_order(), tenant.context())).order_id
    await settled(service, tenant, id_)
    await nobody_noted(open_work)
    looked = len(tenant.statements)
    await asyncio.sleep(0.1)
    await follow_up.stop()
    await task
    assert len(tenant.statements) == looked


async def test_a_tenant_with_an_open_order_is_kept_however_long_it_takes(
    tenant: Tenant, open_work: StoredOpenWork, impatient: None
) -> None:
    watch = Watch(open_work, quiet_seconds=0.0)
    follow_up = OrderFollowUp(context_for=tenant.context, watch=watch, sweep_seconds=0.01)
    service = OrderService(follow_up)
    held = asyncio.Event()
    tenant.during_trigger = held.wait
    id_ = (await service.submit(new_order(), tenant.context())).order_id
    task = asyncio.create_task(follow_up.run())
    await until(lambda: bool(tenant.triggers))
    looked = len(tenant.statements)
    await until(lambda: len(tenant.statements) > looked + 5)
    assert set(await open_work.marks("order")) == {"acme"}
    held.set()
    await settled(service, tenant, id_)
    await follow_up.stop()
    await task


async def test_a_mark_made_meanwhile_keeps_the_tenant(open_work: StoredOpenWork) -> None:
    watch = Watch(open_work, quiet_seconds=0.0)
    await open_work.mark("order", "acme")
    assert await watch.tenants() == ["acme"]
    await open_work.mark("order", "acme")
    await watch.nothing_open("acme", looked_at=float("inf"))
    assert set(await open_work.marks("order")) == {"acme"}
    assert await watch.tenants() == ["acme"]
    await watch.nothing_open("acme", looked_at=float("inf"))
    assert await open_work.marks("order") == {}


async def test_a_new_mark_begins_its_own_while(open_work: StoredOpenWork, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("erp.services.order.watch.time.monotonic", lambda: now)
    watch = Watch(open_work, quiet_seconds=180.0)
    await open_work.mark("order", "acme")
    await watch.tenants()
    now = 150.0
    await open_work.mark("order", "acme")
    await watch.tenants()
    await watch.nothing_open("acme", looked_at=200.0)
    assert set(await open_work.marks("order")) == {"acme"}
    await watch.tenants()
    await watch.nothing_open("acme", looked_at=330.0)
    assert await open_work.marks("order") == {}


@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT, ErrorCode.PERMISSION_DENIED])
async def test_a_tenant_whose_database_cannot_be_read_is_kept(
    tenant: Tenant, open_work: StoredOpenWork, code: ErrorCode
) -> None:
    await open_work.mark("order", "acme")
    tenant.failures["db"] = [refusal(code)] * 3
    follow_up = OrderFollowUp(
        context_for=tenant.context, watch=Watch(open_work, quiet_seconds=3600.0), sweep_seconds=0.01
    )
    task = asyncio.create_task(follow_up.run())
    await until(lambda: not tenant.failures["db"])
    assert set(await open_work.marks("order")) == {"acme"}
    await follow_up.stop()
    await task


async def test_a_tenant_without_a_database_is_forgotten(tenant: Tenant, open_work: StoredOpenWork) -> None:
    await open_work.mark("order", "acme")
    tenant.failures["db"] = [refusal(ErrorCode.UNSUPPORTED)] * 1000
    follow_up = OrderFollowUp(context_for=tenant.context, watch=Watch(open_work, quiet_seconds=0.0), sweep_seconds=0.01)
    task = asyncio.create_task(follow_up.run())
    await nobody_noted(open_work)
    await follow_up.stop()
    await task
    assert tenant.statements == []


async def test_a_database_that_comes_back_with_open_orders_is_looked_into_at_the_first_call(
    service: OrderService, tenant: Tenant, open_work: StoredOpenWork, impatient: None
) -> None:
    id_ = (await service.submit(new_order(), tenant.context())).order_id
    for name, mark in (await open_work.marks("order")).items():
        await open_work.clear("order", name, mark)  # the tenant had chosen another database for a while

    follow_up = OrderFollowUp(context_for=tenant.context, watch=Watch(open_work), sweep_seconds=0.02)
    another = OrderService(follow_up)
    task = asyncio.create_task(follow_up.run())
    assert (await settled(another, tenant, id_))["event"][0] == "done"
    await follow_up.stop()
    await task
    assert await store.open_orders(tenant.context(), 10) == []
