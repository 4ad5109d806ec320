"""What a tenant keeps is deleted when its time is over: by class, by rule, by one process, and not under a legal hold."""

from __future__ import annotations

import asyncio
import datetime
import os
import uuid
from functools import partial
from types import ModuleType
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from tests.conformance.live import db_mysql, db_postgres
from tests.gateway.conftest import Site

from erp.control_plane import moments
from erp.control_plane.outbox import PURGED_AT_ONCE
from erp.control_plane.tables import outbox, retention
from erp.errors import ProviderError
from erp.security.privacy import retention as keeping

pytestmark = pytest.mark.anyio

DAY = 86_400
RULE = {"provider": "sqlite", "table": "visits", "column": "seen_at", "days": 30}


def days_ago(days: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)).isoformat()


async def sql(client: httpx2.AsyncClient, text: str, *parameters: Any, action: str = "execute") -> Any:
    answer = await client.post(
        f"/providers/db/sqlite/{action}", json={"params": {"sql": text, "parameters": parameters}}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


@pytest.fixture
async def visits(admin: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """A tenant with three old visits and two that are not."""
    await sql(admin, "CREATE TABLE visits (id INTEGER PRIMARY KEY, seen_at TEXT)")
    for days in (400, 31, 31.9, 29, 0):
        await sql(admin, "INSERT INTO visits (seen_at) VALUES (?)", days_ago(days))
    return admin


async def left(client: httpx2.AsyncClient) -> list[int]:
    return [row[0] for row in (await sql(client, "SELECT id FROM visits ORDER BY id", action="query"))["rows"]]


async def say(client: httpx2.AsyncClient, **policy: Any) -> dict[str, Any]:
    answer = await client.put("/privacy/retention", json=policy)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def apply(client: httpx2.AsyncClient, *, dry_run: bool = False) -> dict[str, Any]:
    answer = await client.post("/privacy/retention:apply", json={"dry_run": dry_run})
    assert answer.status_code == 200, answer.text
    done: dict[str, Any] = answer.json()
    return done


async def add_events(site: Site, state: str, count: int, days: int, tenant: str = "acme") -> None:
    moment = moments.after(-days * DAY)
    rows = [
        {"tenant": tenant, "id": f"{state}-{days}-{number}", "event": b"{}", "state": state, "attempts": 1, "due_at": 0, "settled_at": moment}
        for number in range(count)
    ]  # fmt: skip
    await site.layer.control.database.transact(lambda connection: connection.execute(sa.insert(outbox), rows))


async def events(site: Site, tenant: str = "acme") -> int:
    statement = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.tenant == tenant)
    return await site.layer.control.database.run(lambda connection: connection.execute(statement).scalar_one())


async def test_rows_are_counted_first_then_deleted_and_both_kinds_of_records_say_so(
    visits: httpx2.AsyncClient,
) -> None:
    await say(visits, rows=[RULE])
    counted = await apply(visits, dry_run=True)
    assert (counted["dry_run"], counted["rows"]) == (True, [{"place": "db/sqlite#default visits.seen_at", "rows": 3}])
    assert await left(visits) == [1, 2, 3, 4, 5]

    assert (await apply(visits))["rows"] == [{"place": "db/sqlite#default visits.seen_at", "rows": 3}]

    assert await left(visits) == [4, 5]
    records = (await visits.get("/audit")).json()["items"]
    (summary,) = [one for one in records if one["action"] == "privacy.retention"]
    assert summary["detail"] == {"deleted": {"db/sqlite#default visits.seen_at": 3}}
    assert [one["target"] for one in records if one["actor"] == "service:privacy"] == ["db/sqlite.execute"]
    assert (await apply(visits))["rows"] == [{"place": "db/sqlite#default visits.seen_at", "rows": 0}]


async def test_rows_are_deleted_in_bounded_batches(visits: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(keeping, "MOST_BATCHES", 2)
    await say(visits, rows=[RULE])
    assert (await apply(visits))["rows"] == [{"place": "db/sqlite#default visits.seen_at", "rows": 2, "more": True}]
    assert (await apply(visits))["rows"][0]["rows"] == 1
    assert await left(visits) == [4, 5]


@pytest.mark.parametrize(("unit", "factor"), [("epoch_seconds", 1), ("epoch_milliseconds", 1000)])
async def test_moments_may_be_numbers(admin: httpx2.AsyncClient, unit: str, factor: int) -> None:
    await sql(admin, "CREATE TABLE logins (number INTEGER PRIMARY KEY, at INTEGER)")
    now = datetime.datetime.now(datetime.UTC).timestamp()
    for days in (10, 1):
        await sql(admin, "INSERT INTO logins (at) VALUES (?)", int((now - days * DAY) * factor))
    rule = {"provider": "sqlite", "table": "logins", "column": "at", "key": "number", "days": 7, "unit": unit}
    await say(admin, rows=[rule])
    assert (await apply(admin))["rows"][0]["rows"] == 1
    assert (await sql(admin, "SELECT number FROM logins", action="query"))["rows"] == [[2]]


@pytest.mark.parametrize("server", [db_postgres, db_mysql], ids=["postgres", "mysql"])
@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATE", "VARCHAR(40)"])
async def test_rows_of_a_real_server_go_by_dates_moments_and_texts(
    admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, server: ModuleType, kind: str
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")
    address = os.environ.get(server.VARIABLE)
    if not address:
        pytest.skip(f"needs a server: set {server.VARIABLE}")
    provider, table = server.REF.removeprefix("db/"), f"visits_{uuid.uuid4().hex[:8]}"
    made = await admin.post(f"/providers/{server.REF}/configure", json={"config": server.config(address)})
    assert made.status_code < 300, made.text

    async def ask(text: str, action: str = "execute") -> Any:
        answer = await admin.post(f"/providers/{server.REF}/{action}", json={"params": {"sql": text}})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    await ask(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY, seen_at {kind})")
    try:
        for number, days in enumerate((400, 32, 29, 0)):
            day = days_ago(days)[: 10 if kind == "DATE" else 19].replace("T", " ")
            await ask(f"INSERT INTO {table} (number, seen_at) VALUES ({number}, '{day}')")
        await say(admin, rows=[{**RULE, "provider": provider, "table": table, "key": "number"}])
        place = f"{server.REF}#default {table}.seen_at"
        assert (await apply(admin, dry_run=True))["rows"] == [{"place": place, "rows": 2}]
        assert (await apply(admin))["rows"] == [{"place": place, "rows": 2}]
        assert (await ask(f"SELECT number FROM {table} ORDER BY number", "query"))["rows"] == [[2], [3]]
    finally:
        await ask(f"DROP TABLE {table}")


async def test_a_rule_that_cannot_be_applied_is_told_and_holds_up_no_other(visits: httpx2.AsyncClient) -> None:
    await say(visits, rows=[{**RULE, "table": "nothing_here"}, RULE])
    for dry_run in (True, False):
        first, second = (await apply(visits, dry_run=dry_run))["rows"]
        assert "nothing_here" in first["failure"]
        assert second["rows"] == 3
    assert await left(visits) == [4, 5]


async def test_a_legal_hold_stops_everything_until_it_is_lifted(site: Site, visits: httpx2.AsyncClient) -> None:
    await add_events(site, "dead", 2, days=10)
    await site.layer.control.retention.set("acme", "calls", 1)
    hold = {"reason": "Case 7 of the district court"}
    await say(visits, days={"dead_events": 5, "audit_calls": 1}, rows=[RULE], hold=hold)
    await visits.put("/privacy/settings", json={"places": [{"domain": "db", "provider": "sqlite", "table": "visits", "column": "seen_at"}]})  # fmt: skip

    assert (await apply(visits, dry_run=True))["hold"] == hold["reason"]
    assert await apply(visits) == {"dry_run": False, "hold": hold["reason"], "classes": {}, "rows": []}
    refused = await visits.post("/privacy/erasure", json={"subject": "x"})
    assert (refused.status_code, hold["reason"] in refused.text) == (412, True)
    assert (await left(visits), await events(site)) == ([1, 2, 3, 4, 5], 2)

    await say(visits, days={"dead_events": 5}, rows=[RULE])
    done = await apply(visits)
    assert (done["classes"]["dead_events"], done["rows"][0]["rows"]) == (2, 3)


async def test_each_class_is_deleted_by_its_own_days_and_only_of_its_tenant(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    await site.layer.control.tenants.create("globex")
    for tenant in ("acme", "globex"):
        await add_events(site, "dead", PURGED_AT_ONCE + 1, days=10, tenant=tenant)
        await add_events(site, "dead", 1, days=2, tenant=tenant)
        await add_events(site, "delivered", 1, days=10, tenant=tenant)
        await add_events(site, "delivered", 1, days=20, tenant=tenant)
    await say(admin, days={"dead_events": 5, "delivered_events": 15})
    assert await site.layer.control.outbox.purge() == 2  # of globex, which has said nothing
    done = await apply(admin)
    assert {name: count for name, count in done["classes"].items() if count} == {
        "dead_events": PURGED_AT_ONCE + 1,
        "delivered_events": 1,
    }
    assert (await events(site), await events(site, "globex")) == (2, PURGED_AT_ONCE + 2)


async def test_withdrawn_consents_operations_and_audit_records_go_with_their_time(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    for subject, state in (("ada", "withdrawn"), ("jo", "granted")):
        assert (await admin.put(f"/consents/{subject}/news", json={"state": state})).status_code == 200
    assert (await admin.post("/privacy/export", json={"subject": "ada"})).status_code == 200
    await say(admin, days={"consents": 30, "operations": 2, "privacy_operations": 1, "audit_calls": 1})
    changes = [
        f"UPDATE consents SET recorded_at = {moments.after(-31 * DAY)}",
        f"UPDATE operations SET ended_at = {moments.after(-1.5 * DAY)}",
    ]
    for change in changes:
        await site.layer.control.database.transact(partial(sa.Connection.execute, statement=sa.text(change)))
    counted = await apply(admin, dry_run=True)
    done = await apply(admin)
    assert counted["classes"] == done["classes"]
    assert {name: done["classes"][name] for name in ("consents", "operations", "privacy_operations")} == {
        "consents": 1,
        "operations": 0,
        "privacy_operations": 1,
    }
    assert [one["subject"] for one in (await admin.get("/consents")).json()["items"]] == ["jo"]


async def test_the_policy_shows_what_is_in_force_and_comes_back_as_it_was_said(admin: httpx2.AsyncClient) -> None:
    nothing = (await admin.get("/privacy/retention")).json()
    assert (nothing["days"], nothing["rows"], nothing["revision"]) == ({}, [], "0")
    said = await say(admin, days={"audit_calls": 30, "dead_events": 7}, rows=[RULE], revision="")
    assert {one["name"]: one["days"] for one in said["classes"]} == {
        "audit_security": None, "audit_refusals": None, "audit_configuration": None, "audit_calls": 30,
        "operations": 1, "privacy_operations": 1, "delivered_events": 1, "dead_events": 7, "consents": None, "break_glass": None,
    }  # fmt: skip
    assert (said["days"], said["rows"], said["revision"]) == ({"audit_calls": 30, "dead_events": 7}, [RULE], "1")
    kept = (await admin.get("/audit/retention")).json()["items"]
    assert [rule["days"] for rule in kept if rule["name"] == "calls"] == [30]
    assert (await admin.put("/privacy/retention", json={"revision": ""})).status_code == 409


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"days": {"audit_security": 5}}, "/days/audit_security", "90 to 36500"),
        ({"days": {"operations": 400}}, "/days/operations", "1 to 365"),
        ({"days": {"operations": None}}, "/days/operations", "1 to 365"),
        ({"rows": [{**RULE, "table": "a; DROP TABLE b"}]}, "", "rows[0].table"),
        ({"rows": [{**RULE, "key": "a b"}]}, "", "rows[0].key"),
        ({"days": {"everything": 1}}, "/days/everything", "not a known field"),
    ],
)
async def test_a_policy_that_cannot_be_used_changes_nothing(
    admin: httpx2.AsyncClient, body: dict[str, Any], pointer: str, words: str
) -> None:
    refused = await admin.put("/privacy/retention", json={"days": {}, **body})
    (error,) = refused.json()["errors"]
    assert (refused.status_code, error["pointer"], words in error["message"]) == (400, pointer, True)
    assert (await admin.get("/privacy/retention")).json()["revision"] == "0"


async def test_two_processes_never_apply_a_policy_at_once(site: Site, visits: httpx2.AsyncClient) -> None:
    await say(visits, rows=[RULE])
    policies = site.layer.control.retention_policies
    leases = await asyncio.gather(*(policies.lease("acme") for _ in range(5)))
    (lease,) = [one for one in leases if one is not None]
    refused = await visits.post("/privacy/retention:apply", json={"dry_run": False})
    assert (refused.status_code, await left(visits)) == (409, [1, 2, 3, 4, 5])
    assert await lease.renew()
    await lease.end()
    assert not await lease.renew()
    assert len((await apply(visits))["rows"]) == 1


async def test_a_process_that_died_loses_its_right_and_a_new_policy_is_due_at_once(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    await say(admin, days={"dead_events": 5})
    policies, database = site.layer.control.retention_policies, site.layer.control.database
    assert await policies.due() == ["acme"]
    dead = await policies.lease("acme")
    assert dead is not None
    assert await policies.due() == []
    over = sa.update(retention).values(leased_until=moments.now() - 1)
    await database.transact(lambda connection: connection.execute(over).rowcount)
    assert await policies.lease("acme") is not None
    assert not await dead.renew()
    await say(admin, days={"dead_events": 6})
    await database.transact(lambda connection: connection.execute(over).rowcount)
    assert await policies.due() == ["acme"]


async def test_the_layer_does_it_by_itself(
    site: Site, visits: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK_SECONDS", 0.02)
    await say(visits, rows=[RULE])
    worker = asyncio.create_task(site.layer.retention.run())
    try:
        for _ in range(600):
            if await left(visits) == [4, 5]:
                break
            await asyncio.sleep(0.05)
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    assert await left(visits) == [4, 5]


@pytest.mark.parametrize("role", ["operator", "developer"])
async def test_only_administrators_say_and_delete(site: Site, role: str) -> None:
    async with site.client(role) as client:
        put = await client.put("/privacy/retention", json={})
        applied = await client.post("/privacy/retention:apply", json={"dry_run": False})
    assert (put.status_code, applied.status_code) == (403, 403)
    with pytest.raises(ProviderError, match="tenant"):
        await site.layer.control.retention_policies.put("nobody", "{}", {})
