"""Secrets that rotate themselves: planned over HTTP, carried out by the layer, shown with what went wrong."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from tests.gateway.conftest import Site

from erp.control_plane import moments

pytestmark = pytest.mark.anyio

PLAN = {"path": "crm", "every_days": 30, "value": {"from": "random", "format": "hex"}}
ONE = "/secret-schedules/crm-key"


@pytest.fixture
async def operator(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    async with site.client("operator") as made:
        await made.post("/providers/secrets/local/put", json={"params": {"path": "crm", "value": "first"}})
        yield made


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    ends = time.monotonic() + 30
    while not (found := await condition()):
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)
    return found


async def shown(client: httpx2.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(ONE)).json()
    return found


def has(client: httpx2.AsyncClient, name: str) -> Callable[[], Awaitable[Any]]:
    async def look() -> Any:
        found = await shown(client)
        return found if name in found else None

    return look


async def audited(site: Site, action: str) -> list[Any]:
    found, _ = await site.layer.control.audit.search("acme", action=action)
    return [one for one in found if one.action == action]


async def test_what_is_planned_is_shown_listed_changed_and_removed(
    site: Site, operator: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    made = await operator.put(ONE, json={**PLAN, "revision": ""})
    assert made.status_code == 200, made.text
    plan = made.json()
    assert {name: plan[name] for name in (*PLAN, "provider", "connection", "enabled", "failures")} == {
        **PLAN,
        "provider": "secrets/local",
        "connection": "default",
        "enabled": True,
        "failures": 0,
    }
    assert moments.parsed(plan["due_at"]) == pytest.approx(moments.after(30 * 86_400), abs=60_000_000)
    assert (await operator.get("/secret-schedules")).json() == {"items": [plan]}

    changed = await operator.put(ONE, json={**PLAN, "every_days": 7, "enabled": False, "revision": plan["revision"]})
    assert (changed.json()["every_days"], changed.json()["enabled"]) == (7, False)
    stale = await operator.put(ONE, json={**PLAN, "revision": plan["revision"]})
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
    assert (await operator.post(f"{ONE}:run")).json()["code"] == "failed_precondition"

    assert (await operator.delete(ONE)).status_code == 204
    assert (await operator.get(ONE)).status_code == 404
    assert [one.target for one in await audited(site, "secrets.schedule")] == ["crm-key secrets/local crm"] * 2
    assert len(await audited(site, "secrets.unschedule")) == 1


async def test_a_rotation_makes_a_new_version_through_the_pipeline_and_is_due_again(
    site: Site, operator: httpx2.AsyncClient
) -> None:
    await operator.put(ONE, json={**PLAN, "overlap_seconds": 3600})
    assert (await operator.post(f"{ONE}:run")).status_code == 200

    done = await until(has(operator, "reference"))

    assert (done["reference"], done["failures"]) == ("secret://tenant/crm#2", 0)
    assert moments.parsed(done["due_at"]) == pytest.approx(moments.after(30 * 86_400), abs=60_000_000)
    value = await site.layer.vault.get("acme", "tenant/crm")
    assert re.fullmatch("[0-9a-f]{64}", value)
    old, new = await site.layer.vault.versions("acme", "tenant/crm")
    assert (old.state, new.state) == ("previous", "current")
    assert moments.parsed(old.destroyed_after or "") == pytest.approx(moments.after(3600), abs=60_000_000)
    [record] = await audited(site, "secrets.rotate")
    assert (record.actor, record.outcome) == ("service:rotation", "ok")
    assert len(await audited(site, "secrets.rotate_now")) == 1
    everything = [*await audited(site, "secrets.rotate"), (await operator.get("/secret-schedules")).text]
    assert value not in str(everything)


async def test_a_failure_is_shown_with_its_reason_and_forgotten_after_a_success(
    site: Site, operator: httpx2.AsyncClient
) -> None:
    await operator.put(ONE, json={**PLAN, "path": "nowhere"})
    await operator.post(f"{ONE}:run")

    failed = await until(has(operator, "failure"))

    assert (failed["failures"], failed["failure"]["reason"]) == (1, "There is no secret 'nowhere'. (not_found)")
    wait = moments.parsed(failed["failure"]["retry_at"]) - moments.parsed(failed["failure"]["at"])
    assert 30 <= wait / moments.MICROSECONDS <= 60
    await operator.post("/providers/secrets/local/put", json={"params": {"path": "nowhere", "value": "v"}})
    await operator.post(f"{ONE}:run")
    done = await until(has(operator, "reference"))
    assert ("failure" in done, done["failures"]) == (False, 0)


async def test_a_signing_secret_of_a_webhook_is_rotated_by_its_provider_while_both_sign(
    site: Site, operator: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    where = "/providers/integration/webhook"
    made = await operator.post(f"{where}/create_endpoint", json={"params": {"url": "http://127.0.0.1:9/in"}})
    assert made.status_code == 200, made.text
    endpoint = made.json()["data"]["endpoint"]["id"]
    source = {
        "from": "action",
        "provider": "integration/webhook",
        "action": "rotate_endpoint_secret",
        "params": {"id": endpoint, "grace_seconds": 3600},
        "value_at": "/secret",
    }
    planned = await operator.put(ONE, json={**PLAN, "value": source})
    assert planned.status_code == 200, planned.text
    await operator.post(f"{ONE}:run")
    await until(has(operator, "reference"))

    kept = await site.layer.vault.get("acme", "tenant/crm")
    assert kept.startswith("whsec_")
    listed = await operator.post(f"{where}/list_endpoints", json={"params": {}})
    assert "previous_secret_until" in listed.text, listed.text
    stored = await site.layer.vault.list("acme", "connections/integration/webhook/")
    current = [await site.layer.vault.get("acme", path) for path in stored]
    assert any(kept in one for one in current), "the stored secret is the one that signs"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"every_days": 0}, "/every_days"),
        ({"path": "../x"}, "/path"),
        ({"provider": "cache/memory"}, "/provider"),
        ({"value": {"from": "nowhere"}}, "/value"),
        ({"value": {"from": "random", "bytes": 1}}, "/value"),
        (
            {"value": {"from": "action", "provider": "cache/memory", "action": "get", "value_at": "/value"}},
            "/value/action",
        ),
        (
            {"value": {"from": "action", "provider": "cache/memory", "action": "nope", "value_at": "/v"}},
            "/value/action",
        ),
        ({"value": {"from": "action", "provider": "cache/memory", "action": "set", "value_at": "/v"}}, "/params"),
    ],
)
async def test_what_cannot_be_carried_out_is_refused_and_not_kept(
    operator: httpx2.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    answer = await operator.put(ONE, json={**PLAN, **change})

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument"), answer.text
    assert any(one["pointer"].startswith(pointer) for one in answer.json()["errors"]), answer.text
    assert (await operator.get("/secret-schedules")).json() == {"items": []}


async def test_an_overlap_is_refused_where_it_would_not_be_kept(
    site: Site, operator: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = site.layer.catalog.provider("secrets", "vault")
    plain = msgspec.structs.replace(vault, capabilities=[one for one in vault.capabilities if one != "overlap"])
    monkeypatch.setattr(site.layer.catalog, "provider", lambda *_: plain)
    answer = await operator.put(ONE, json={**PLAN, "provider": "secrets/vault", "overlap_seconds": 60})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/overlap_seconds"), answer.text


async def test_developers_plan_nothing_and_nobody_plans_what_they_may_not_do(
    site: Site, operator: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    assert (await client.put(ONE, json=PLAN)).status_code == 403
    assert (await client.get("/secret-schedules")).status_code == 403
    _, key = await site.layer.control.api_keys.create("acme", role="admin", scopes=["admin:secret_schedules/*:*"])
    narrow = {"authorization": f"Bearer {key}"}
    listed = await operator.get("/secret-schedules", headers=narrow)
    assert listed.status_code == 200, listed.text
    refused = await operator.put(ONE, json=PLAN, headers=narrow)
    assert (refused.status_code, "secrets.rotate is not allowed" in refused.json()["detail"]) == (403, True)
    assert (await operator.get("/secret-schedules")).json() == {"items": []}


async def test_an_action_that_answers_no_value_stores_nothing(site: Site, operator: httpx2.AsyncClient) -> None:
    source = {
        "from": "action",
        "provider": "cache/memory",
        "action": "set",
        "params": {"key": "k", "value": 1},
        "value_at": "/nothing/here",
    }
    assert (await operator.put(ONE, json={**PLAN, "value": source})).status_code == 200
    await operator.post(f"{ONE}:run")

    failed = await until(has(operator, "failure"))

    assert "no text at /nothing/here" in failed["failure"]["reason"]
    assert await site.layer.vault.get("acme", "tenant/crm") == "first"
