from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.conftest import OpenControlPlane
from tests.control_plane.test_audit_migration import migrate

from erp.control_plane import ControlPlane, schema
from erp.runtime.ports import Completion

pytestmark = pytest.mark.anyio


async def test_tenants_are_noted_per_service(control: ControlPlane) -> None:
    await control.open_work.mark("order", "acme")
    await control.open_work.mark("invoice", "globex")
    assert set(await control.open_work.marks("order")) == {"acme"}
    assert set(await control.open_work.marks("invoice")) == {"globex"}


async def test_every_mark_is_another_and_only_the_last_one_clears(control: ControlPlane) -> None:
    await control.open_work.mark("order", "acme")
    (first,) = (await control.open_work.marks("order")).values()
    await control.open_work.mark("order", "acme")
    (second,) = (await control.open_work.marks("order")).values()
    await control.open_work.clear("order", "acme", first)
    assert await control.open_work.marks("order") == {"acme": second}
    await control.open_work.clear("invoice", "acme", second)
    assert await control.open_work.marks("order") == {"acme": second}
    await control.open_work.clear("order", "acme", second)
    assert await control.open_work.marks("order") == {}


async def test_processes_that_mark_at_once_leave_one_mark(open_control_plane: OpenControlPlane) -> None:
    planes = [await open_control_plane() for _ in range(3)]
    await planes[0].tenants.create("acme")
    await asyncio.gather(*(plane.open_work.mark("order", "acme") for plane in planes for _ in range(5)))
    assert len(await planes[0].open_work.marks("order")) == 1


async def test_a_mark_goes_with_its_tenant(control: ControlPlane) -> None:
    await control.open_work.mark("order", "acme")
    await control.tenants.delete("acme")
    assert await control.open_work.marks("order") == {}


async def test_whoever_ordered_before_there_were_marks_is_looked_into(control: ControlPlane, make: Any) -> None:
    for tenant, action in (("acme", "order.submit"), ("globex", "cache.set")):
        await control.journal.complete(Completion(audit=make.audit(tenant=tenant, action=action)))
    await control.database.transact(lambda connection: migrate(connection, "downgrade", "0012"))
    await schema.bring_up_to_date(control.database)
    assert await control.open_work.marks("order") == {"acme": "migrated"}
