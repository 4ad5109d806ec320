"""Leases of retention, expiry by class, and what is not in the archive yet: on SQLite, and on PostgreSQL."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from erp.control_plane import ControlPlane, moments
from erp.control_plane.expiry import RowClass
from erp.control_plane.outbox import DEAD
from erp.control_plane.tables import consents, outbox, retention
from erp.errors import ProviderError

pytestmark = pytest.mark.anyio

DAY = 86_400


def add(events: list[dict[str, Any]], said: list[dict[str, Any]], connection: sa.Connection) -> None:
    connection.execute(sa.insert(outbox), events)
    connection.execute(sa.insert(consents), said)


async def go_on() -> bool:
    return True


async def test_one_of_many_gets_the_lease_and_gives_it_back(control: ControlPlane) -> None:
    leases = await asyncio.gather(*(control.retention_policies.lease("acme") for _ in range(8)))
    (lease,) = [one for one in leases if one is not None]
    assert await control.retention_policies.lease("acme") is None
    await lease.end()
    assert await control.retention_policies.lease("acme") is not None


async def test_a_clock_that_was_set_back_holds_nothing_up(control: ControlPlane) -> None:
    await control.retention_policies.put("acme", "{}", {})
    far = sa.update(retention).values(leased_until=moments.after(9 * DAY), runs_at=moments.after(9 * DAY))
    await control.database.transact(lambda connection: connection.execute(far).rowcount)
    assert await control.retention_policies.due() == ["acme"]
    assert await control.retention_policies.lease("acme") is not None


async def test_a_policy_replaces_the_rules_for_audit_records_or_nothing_when_another_was_quicker(
    control: ControlPlane,
) -> None:
    await control.retention.set("acme", "calls", 7)
    await control.retention_policies.put("acme", '{"rows": []}', {"refusals": 40}, revision="")
    with pytest.raises(ProviderError, match="created meanwhile"):
        await control.retention_policies.put("acme", "{}", {"security": 100}, revision="")
    assert {rule.name: rule.days for rule in await control.retention.rules("acme") if rule.days} == {"refusals": 40}
    assert await control.retention_policies.get("acme") == ('{"rows": []}', 1)


async def test_rows_are_deleted_by_class_age_and_tenant(control: ControlPlane) -> None:
    for tenant in ("acme", "globex"):
        row = {"tenant": tenant, "event": b"{}", "state": DEAD, "attempts": 1, "due_at": 0}
        rows = [{**row, "id": str(days), "settled_at": moments.after(-days * DAY)} for days in (1, 5, 9)]
        consent = {"tenant": tenant, "purpose": "news", "evidence": "", "recorded_by": "key_1"}
        said = [
            {**consent, "subject": state, "state": state, "recorded_at": moments.after(-99 * DAY)}
            for state in ("granted", "withdrawn")
        ]
        await control.database.transact(partial(add, rows, said))
    expired = control.expired_rows
    assert (await expired.count("acme", "dead_events", 4), await expired.count("acme", "consents", 30)) == (2, 1)
    assert await expired.delete("acme", "dead_events", 4, go_on) == 2
    assert await expired.delete("acme", "consents", 30, go_on) == 1
    names: tuple[RowClass, ...] = ("operations", "privacy_operations", "delivered_events", "break_glass")
    assert [await expired.delete("acme", name, 90, go_on) for name in names] == [0, 0, 0, 0]
    assert (await expired.count("globex", "dead_events", 4), await expired.count("globex", "consents", 30)) == (2, 1)


async def test_checkpoints_wait_for_the_archive_in_their_order(control: ControlPlane) -> None:
    for tenant in ("acme", "globex"):
        for size in (1, 2):
            await control.checkpoints.add(tenant, size, "note")
    await control.checkpoints.archived("acme", 2)
    waiting = await control.checkpoints.unarchived(("", 0), 10)
    assert [(one.tenant, one.size) for one in waiting] == [("acme", 1), ("globex", 1), ("globex", 2)]
    behind = await control.checkpoints.unarchived(("acme", 1), 1)
    assert [(one.tenant, one.size) for one in behind] == [("globex", 1)]
