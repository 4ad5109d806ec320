"""The first attempts of an order are claimed as it is written: nothing of it is read again, and nothing is lost by that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.services.order.tenant import Tenant, new_order, settled, until

from erp.contracts.models import order as api
from erp.services.order import follow_up as follow_up_module
from erp.services.order import store
from erp.services.order.follow_up import OrderFollowUp
from erp.services.order.service import OrderService

pytestmark = pytest.mark.anyio


async def submitted(service: OrderService, tenant: Tenant) -> str:
    return (await service.submit(new_order(), tenant.context())).order_id


async def test_what_follows_a_new_order_reads_nothing_of_it_again(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: at_work.lease_seconds > 0)
    reads: list[str] = []
    load = store.load_with_open_steps

    async def counted(context: Any, id_: str) -> Any:
        reads.append(id_)
        return await load(context, id_)

    monkeypatch.setattr(store, "load_with_open_steps", counted)
    id_ = await submitted(service, tenant)
    await until(lambda: len(tenant.published) == 2)
    monkeypatch.undo()

    assert reads == []
    assert {step[:2] for step in (await settled(service, tenant, id_)).values()} == {("done", 1)}
    assert [key for key, _ in tenant.triggers] == [f"order:{id_}:integration"]


async def test_a_process_that_ends_gives_back_what_it_has_claimed_and_not_begun(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = asyncio.create_task(follow_up.run())
    await until(lambda: follow_up.lease_seconds > 0)
    monkeypatch.setattr(follow_up_module, "AT_ONCE", 0)
    id_ = await submitted(service, tenant)
    _, claimed = await store.load_with_open_steps(tenant.context(), id_)
    await follow_up.stop()
    await task
    _, given_back = await store.load_with_open_steps(tenant.context(), id_)

    assert {(step.attempts, step.due_in > 30) for step in claimed} == {(1, True)}
    assert {(step.attempts, step.due_in <= 0) for step in given_back} == {(0, True)}
    assert tenant.triggers == []


async def test_an_order_that_is_cancelled_before_its_turn_is_read_again(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: at_work.lease_seconds > 0)
    monkeypatch.setattr(follow_up_module, "AT_ONCE", 0)
    id_ = await submitted(service, tenant)
    await service.cancel(api.CancelRequest(order_id=id_), tenant.context())
    monkeypatch.undo()
    at_work.nudge("acme", id_)
    steps = await settled(service, tenant, id_)

    assert {name: step[0] for name, step in steps.items()} == {
        "event": "done",
        "integration": "skipped",
        "annotation": "skipped",
        "cancellation": "done",
    }
    assert [event for event, *_ in tenant.published] == ["submitted", "cancelled"]
    assert tenant.triggers == []


async def test_an_order_that_waited_for_long_is_read_again(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: at_work.lease_seconds > 0)
    monkeypatch.setattr(follow_up_module, "HELD_SECONDS", 0.0)
    id_ = await submitted(service, tenant)
    steps = await settled(service, tenant, id_)

    assert {step[:2] for step in steps.values()} == {("done", 1)}
    assert len(tenant.triggers) == 1
