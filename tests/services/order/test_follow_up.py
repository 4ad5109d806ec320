"""What follows an order happens, once, whatever fails in between."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.services.order.tenant import Tenant, new_order, refusal, settled, until

from erp.contracts.models import integration as peer
from erp.contracts.models import order as api
from erp.contracts.models.errors import ErrorCode
from erp.control_plane.open_work import StoredOpenWork
from erp.services.order import follow_up as follow_up_module
from erp.services.order import store
from erp.services.order.follow_up import AT_ONCE_PER_TENANT, MAX_ATTEMPTS, OrderFollowUp
from erp.services.order.service import OrderService
from erp.services.order.watch import Watch

pytestmark = pytest.mark.anyio
UNAVAILABLE = ErrorCode.UNAVAILABLE


async def submitted(service: OrderService, tenant: Tenant, reference: str = "PO-1") -> str:
    return (await service.submit(new_order(customer_reference=reference), tenant.context())).order_id


async def test_an_order_is_announced_integrated_and_annotated(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp
) -> None:
    id_ = await submitted(service, tenant)
    steps = await settled(service, tenant, id_)
    shown = await service.get(api.GetRequest(order_id=id_), tenant.context())

    assert steps == {
        "event": ("done", 1, "order.submitted"),
        "integration": ("done", 1, "msg_1"),
        "annotation": ("done", 1, "spare parts, urgent (toy)"),
    }
    assert tenant.published == [
        (
            "submitted",
            {
                "order_id": id_,
                "customer_reference": "PO-1",
                "customer_id": "C-1",
                "total": "47.36",
                "currency": "EUR",
                "order_date": "2026-11-23",
                "lines": 1,
            },
            id_,
            f"order.submitted:{id_}",
        ),
        (
            "annotated",
            {"order_id": id_, "category": "spare parts", "urgency": "urgent", "model": "toy"},
            id_,
            f"order.annotated:{id_}",
        ),
    ]
    assert [(key, request.name) for key, request in tenant.triggers] == [
        (f"order:{id_}:integration", "order.submitted")
    ]
    assert shown.annotation.note == "Please deliver before noon, the machine is down. [name], [email] SKU-1"


async def test_no_personal_data_is_asked_about_or_announced(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp
) -> None:
    note = "x" * 1990 + " ada@example.com, +49 170 1234567, Ada"
    id_ = (await service.submit(new_order(note=note), tenant.context())).order_id
    await settled(service, tenant, id_)

    asked = [text for question in tenant.questions for text in question.texts]
    assert len(asked) == 2
    assert all(len(text) <= 2000 for text in asked)
    everything = repr((asked, tenant.published))
    assert [word for word in ("Ada", "Byron", "ada@", "example.com", "1234567") if word in everything] == []


async def test_failing_steps_are_tried_again_until_they_succeed_each_by_itself(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp
) -> None:
    tenant.failures = {
        "integration": [refusal(UNAVAILABLE), refusal(ErrorCode.TIMEOUT), RuntimeError("a bug")],
        "ai": [refusal(UNAVAILABLE)],
        "publish": [refusal(ErrorCode.OUTCOME_UNKNOWN)],
    }
    id_ = await submitted(service, tenant)
    steps = await settled(service, tenant, id_)

    assert {name: step[:2] for name, step in steps.items()} == {
        "event": ("done", 2),
        "integration": ("done", 4),
        "annotation": ("done", 2),
    }
    assert [event for event, *_ in tenant.published] in (["submitted", "annotated"], ["annotated", "submitted"])
    assert len(tenant.triggers) == 1


async def test_after_eight_attempts_a_step_is_failed_and_can_be_opened_again(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp
) -> None:
    tenant.failures["integration"] = [refusal(UNAVAILABLE, "the peer is down")] * MAX_ATTEMPTS
    id_ = await submitted(service, tenant)
    steps = await settled(service, tenant, id_)
    assert steps["integration"] == ("failed", 8, "unavailable: the peer is down")
    assert steps["annotation"][0] == "done"

    assert (await service.retry(api.RetryRequest(order_id=id_), tenant.context())).retried == 1
    assert (await settled(service, tenant, id_))["integration"] == ("done", 1, "msg_1")
    assert len(tenant.triggers) == 1
    assert (await service.retry(api.RetryRequest(order_id=id_), tenant.context())).retried == 0


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (refusal(ErrorCode.UNSUPPORTED, "no trigger"), "skipped"),
        (refusal(ErrorCode.FAILED_PRECONDITION, "410 Gone"), "failed"),
        (refusal(ErrorCode.PERMISSION_DENIED, "not you"), "failed"),
    ],
)
async def test_what_cannot_be_helped_is_not_tried_again(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp, failure: Exception, status: str
) -> None:
    tenant.failures["integration"] = [failure]
    steps = await settled(service, tenant, await submitted(service, tenant))

    assert steps["integration"][:2] == (status, 1)
    assert failure.args[0] in steps["integration"][2]
    assert (steps["event"][0], steps["annotation"][0]) == ("done", "done")


@pytest.mark.parametrize(
    ("result", "step"),
    [
        (peer.TriggerResult(id="m", status="skipped"), ("skipped", 1, "m")),
        (peer.TriggerResult(id="m", status="accepted"), ("done", 1, "m")),
        (
            peer.TriggerResult(
                id="m", status="failed", problem=peer.RecordProblem(code="x", message="no such sku", retryable=False)
            ),
            ("failed", 1, "no such sku"),
        ),
    ],
)
async def test_what_the_peer_answers_is_told(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp, result: Any, step: Any
) -> None:
    tenant.trigger_result = result
    assert (await settled(service, tenant, await submitted(service, tenant)))["integration"] == step


async def test_an_order_cancelled_early_is_announced_twice_and_nobody_acts_on_it(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp
) -> None:
    id_ = await submitted(service, tenant)
    await service.cancel(api.CancelRequest(order_id=id_, reason="mistake"), tenant.context())
    tenant.failures["publish"] = [refusal(UNAVAILABLE), refusal(UNAVAILABLE)]
    task = asyncio.create_task(follow_up.run())
    steps = await settled(service, tenant, id_)
    await follow_up.stop()
    await task

    assert [(event, data.get("reason")) for event, data, *_ in tenant.published] == [
        ("submitted", None),
        ("cancelled", "mistake"),
    ]
    assert {name: step[0] for name, step in steps.items()} == {
        "event": "done",
        "integration": "skipped",
        "annotation": "skipped",
        "cancellation": "done",
    }
    assert tenant.triggers == []


async def test_orders_a_process_left_behind_are_found_by_the_sweep(
    service: OrderService, tenant: Tenant, open_work: StoredOpenWork, impatient: None
) -> None:
    ids = [await submitted(service, tenant, f"PO-{number}") for number in range(12)]

    later = OrderFollowUp(context_for=tenant.context, watch=Watch(open_work))
    task = asyncio.create_task(later.run())
    for id_ in ids:
        assert (await settled(service, tenant, id_))["integration"][0] == "done"
    await later.stop()
    await task
    assert len(tenant.triggers) == 12


async def test_two_processes_never_try_a_step_twice(
    service: OrderService, tenant: Tenant, open_work: StoredOpenWork, impatient: None
) -> None:
    ids = [await submitted(service, tenant, f"PO-{number}") for number in range(6)]
    processes = [
        OrderFollowUp(context_for=tenant.context, watch=Watch(open_work), sweep_seconds=0.001) for _ in range(3)
    ]
    tasks = [asyncio.create_task(process.run()) for process in processes]
    for id_ in ids:
        steps = await settled(service, tenant, id_)
        assert {step[1] for step in steps.values()} == {1}
    await asyncio.gather(*(process.stop() for process in processes))
    await asyncio.gather(*tasks)

    assert sorted(str(key) for key, _ in tenant.triggers) == sorted(f"order:{id_}:integration" for id_ in ids)
    assert len(tenant.published) == 12


async def test_the_claim_of_a_process_that_died_lapses(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp
) -> None:
    id_ = await submitted(service, tenant)
    _, waiting = await store.load_with_open_steps(tenant.context(), id_)
    step = waiting[1]
    assert await store.claim(tenant.context(), id_, [step], lease_seconds=0.1) == [step]
    assert await store.claim(tenant.context(), id_, [step], lease_seconds=0.1) == []

    task = asyncio.create_task(follow_up.run())
    started = time.monotonic()
    steps = await settled(service, tenant, id_)
    await follow_up.stop()
    await task
    assert time.monotonic() - started > 0.05
    assert (steps["event"][:2], steps["integration"][:2]) == (("done", 1), ("done", 2))

    late = store.Settled(step=step, status="failed", detail="too late", pause=None)
    await store.settle(tenant.context(), id_, [late])
    assert (await settled(service, tenant, id_))["integration"][0] == "done"


async def test_submitting_again_does_not_shorten_the_pause_of_a_failing_step(
    service: OrderService, tenant: Tenant, at_work: OrderFollowUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_up_module, "BASE_SECONDS", 3600.0)
    monkeypatch.setattr(follow_up_module, "CAP_SECONDS", 3600.0)
    tenant.failures["integration"] = [refusal(UNAVAILABLE)] * 20
    id_ = await submitted(service, tenant)
    for _ in range(20):
        assert await submitted(service, tenant) == id_
        await asyncio.sleep(0.005)

    shown = await service.get(api.GetRequest(order_id=id_), tenant.context())
    assert [(step.name, step.status, step.attempts) for step in shown.steps] == [
        ("event", "done", 1),
        ("integration", "pending", 1),
        ("annotation", "done", 1),
    ]


async def test_a_tenant_whose_peer_hangs_leaves_room_for_others(
    tenant: Tenant, open_work: StoredOpenWork, impatient: None
) -> None:
    follow_up = OrderFollowUp(context_for=tenant.context, watch=Watch(open_work))
    service = OrderService(follow_up)
    released = asyncio.Event()
    tenant.during_trigger = released.wait
    ids = [await submitted(service, tenant, f"PO-{number}") for number in range(AT_ONCE_PER_TENANT + 4)]
    task = asyncio.create_task(follow_up.run())
    await until(lambda: len(tenant.triggers) == AT_ONCE_PER_TENANT)

    theirs = (await service.submit(new_order(customer_reference="G-1"), tenant.context("globex"))).order_id
    await until(lambda: len(tenant.triggers) == AT_ONCE_PER_TENANT + 1)
    assert tenant.triggers[-1][0] == f"order:{theirs}:integration"

    released.set()
    for id_ in [*ids, theirs]:
        assert (await settled(service, tenant, id_))["integration"][:2] == ("done", 1)
    await follow_up.stop()
    await task


async def test_a_database_that_is_away_for_a_while_is_waited_for(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp
) -> None:
    id_ = await submitted(service, tenant)
    tenant.failures["db"] = [refusal(UNAVAILABLE), RuntimeError("a bug"), refusal(UNAVAILABLE)]
    task = asyncio.create_task(follow_up.run())
    await until(lambda: not tenant.failures["db"])
    assert (await settled(service, tenant, id_))["integration"][0] == "done"
    await follow_up.stop()
    await task


async def test_a_sweep_makes_no_tables(tenant: Tenant, open_work: StoredOpenWork, at_work: OrderFollowUp) -> None:
    await open_work.mark("order", "acme")
    await until(lambda: len(tenant.statements) >= 3)
    assert await tenant.rows("select name from sqlite_master") == []


async def test_stopping_waits_for_an_attempt_under_way(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp
) -> None:
    released = asyncio.Event()
    tenant.during_trigger = released.wait
    id_ = await submitted(service, tenant)
    task = asyncio.create_task(follow_up.run())
    await until(lambda: bool(tenant.triggers))
    asyncio.get_running_loop().call_later(0.05, released.set)
    await follow_up.stop()
    await task

    assert (await settled(service, tenant, id_))["integration"][0] == "done"


async def test_stopping_does_not_wait_for_ever(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_up_module, "STOP_SECONDS", 0.02)
    tenant.during_trigger = asyncio.Event().wait
    id_ = await submitted(service, tenant)
    task = asyncio.create_task(follow_up.run())
    await until(lambda: len(tenant.statements) > 0 and any("set status" in repr(made) for _, made in tenant.statements))
    await follow_up.stop()
    await task

    shown = await service.get(api.GetRequest(order_id=id_), tenant.context())
    assert [(step.status, step.attempts) for step in shown.steps] == [("done", 1), ("pending", 1), ("done", 1)]


async def test_a_step_that_kills_its_process_each_time_is_given_up(
    service: OrderService, tenant: Tenant, follow_up: OrderFollowUp
) -> None:
    id_ = await submitted(service, tenant)
    await tenant.change(f"update order_steps set attempts = {MAX_ATTEMPTS} where name = 'integration'")
    task = asyncio.create_task(follow_up.run())
    steps = await settled(service, tenant, id_)
    await follow_up.stop()
    await task

    assert steps["integration"][0] == "failed"
    assert tenant.triggers == []
    assert steps["annotation"][0] == "done"
