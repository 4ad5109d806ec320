"""Tenants, keys, quotas and audit: who may change them, and that a change works at once."""

import asyncio
import time
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

GET = "/providers/cache/memory/get"


async def test_a_platform_administrator_creates_a_tenant_whose_key_works_at_once(site: Site) -> None:
    async with site.client("platform") as platform:
        created = await platform.post("/tenants", json={"id": "globex", "name": "Globex", "region": "eu"})
        assert (created.status_code, created.json()["region"]) == (201, "eu")
        key = await platform.post("/keys", json={"role": "developer", "tenant": "globex"})
        assert key.status_code == 201
    site.keys["globex"] = key.json()["key"]

    async with site.client("globex") as client:
        assert (await client.post(GET, json={"params": {"key": "k"}})).status_code == 200


async def test_a_tenants_administrator_sees_and_changes_only_its_own_tenant(site: Site) -> None:
    await site.layer.control.tenants.create("globex")
    async with site.client("admin") as admin:
        assert [item["id"] for item in (await admin.get("/tenants")).json()["items"]] == ["acme"]
        assert (await admin.get("/tenants/acme")).status_code == 200
        assert (await admin.get("/tenants/globex")).status_code == 403
        assert (await admin.patch("/tenants/globex", json={"name": "Mine"})).status_code == 403
        assert (await admin.post("/tenants", json={"id": "third"})).status_code == 403
        assert (await admin.delete("/tenants/globex")).status_code == 403

    assert await site.layer.control.tenants.ids() == ["acme", "globex", "platform"]
    assert (await site.layer.control.tenants.get("globex")).name is None


@pytest.mark.parametrize("path", ["/tenants", "/keys", "/quotas", "/audit"])
async def test_a_developer_reaches_no_administration(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) == (403, "permission_denied")


async def test_a_revoked_key_is_refused_at_once(site: Site) -> None:
    async with site.client("admin") as admin, site.client("developer") as client:
        assert (await client.post(GET, json={"params": {"key": "k"}})).status_code == 200
        developer = next(item for item in (await admin.get("/keys")).json()["items"] if item["role"] == "developer")

        assert (await admin.delete(f"/keys/{developer['id']}")).status_code == 204

        assert (await client.post(GET, json={"params": {"key": "k"}})).status_code == 401
        assert (await admin.delete(f"/keys/{developer['id']}")).status_code == 404


async def test_a_key_is_shown_once_and_never_listed(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/keys", json={"role": "operator", "name": "ci"})).json()

    listing = await admin.get("/keys")
    assert made["key"].startswith("erpk_")
    assert made["key"] not in listing.text
    assert made["id"] in [item["id"] for item in listing.json()["items"]]


async def test_a_narrowed_key_may_only_do_what_its_scopes_say(site: Site) -> None:
    async with site.client("admin") as admin:
        made = await admin.post("/keys", json={"role": "developer", "scopes": ["providers:cache/*:read"]})
    site.keys["reader"] = made.json()["key"]
    async with site.client("reader") as reader:
        assert (await reader.post(GET, json={"params": {"key": "k"}})).status_code == 200
        refused = await reader.post("/providers/cache/memory/set", json={"params": {"key": "k", "value": 1}})
        assert refused.status_code == 403
        read = await reader.post(GET, json={"params": {"key": "k"}})
        assert read.json()["data"]["found"] is False


async def test_a_narrowed_key_cannot_make_a_wider_one(site: Site) -> None:
    async with site.client("admin") as admin:
        made = await admin.post("/keys", json={"role": "admin", "scopes": ["admin:keys:*", "admin:audit:read"]})
    site.keys["narrow"] = made.json()["key"]
    async with site.client("narrow") as narrow:
        before = len((await narrow.get("/keys")).json()["items"])
        wider: list[dict[str, list[str]]] = [
            {},
            {"scopes": []},
            {"scopes": ["providers:*:*"]},
            {"scopes": ["admin:keys:*", "admin:*:*"]},
        ]
        for scopes in wider:
            refused = await narrow.post("/keys", json={"role": "admin", **scopes})
            assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
        assert len((await narrow.get("/keys")).json()["items"]) == before
        assert (await narrow.post("/keys", json={"role": "admin", "scopes": ["admin:audit:read"]})).status_code == 201


async def test_a_quota_is_never_exceeded_by_one(site: Site) -> None:
    async with site.client("admin") as admin, site.client("developer") as client:
        assert (await admin.put("/quotas/day", json={"limit": 5})).status_code == 200
        statuses = [(await client.post(GET, json={"params": {"key": "k"}})).status_code for _ in range(8)]
        assert statuses == [200] * 5 + [429] * 3
        last = await client.post(GET, json={"params": {"key": "k"}})
        assert last.json()["code"] == "quota_exhausted"
        assert int(last.headers["retry-after"]) >= 1

        assert (await admin.delete("/quotas/day")).status_code == 204
        assert (await client.post(GET, json={"params": {"key": "k"}})).status_code == 200


async def test_a_rate_limit_of_a_tenant_is_answered_with_when_to_come_back(site: Site) -> None:
    async with site.client("admin") as admin:
        policy = {"rate": {"requests": 2, "period_seconds": 60}}
        assert (await admin.patch("/tenants/acme", json={"policy": policy})).status_code == 200
    async with site.client("developer") as client:
        answers = [await client.post(GET, json={"params": {"key": "k"}}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30


async def test_every_error_of_an_administrative_request_is_listed(admin: httpx2.AsyncClient) -> None:
    response = await admin.post("/keys", json={"role": "king", "colour": "red", "scopes": "all"})
    assert response.status_code == 400
    assert sorted(error["pointer"] for error in response.json()["errors"]) == ["/colour", "/role", "/scopes"]


async def test_refused_calls_are_audited_with_their_reason(site: Site) -> None:
    async with site.client("admin") as admin:
        made = await admin.post("/keys", json={"role": "developer", "scopes": ["providers:bus/*:read"]})
        site.keys["narrow"] = made.json()["key"]
        async with site.client("narrow") as narrow:
            assert (await narrow.post(GET, json={"params": {"key": "k"}})).status_code == 403
        found: list[dict[str, Any]] = []
        ends = time.monotonic() + 30
        while not found and time.monotonic() < ends:
            await asyncio.sleep(0.01)
            found = (await admin.get("/audit", params={"outcome": "permission_denied"})).json()["items"]

    assert [item["target"] for item in found] == ["cache/memory.get"]
    assert found[0]["reason"]


async def test_a_whole_number_may_be_written_as_a_fraction(admin: httpx2.AsyncClient) -> None:
    answer = await admin.put("/quotas/day", content=b'{"limit": 5.0}', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["revision"]) == (200, "5")


async def test_budgets_are_set_listed_and_removed_by_scope_and_unit(admin: httpx2.AsyncClient) -> None:
    body = {"limit": 200, "unit": "tokens", "scope": "provider:ai/local"}
    made = (await admin.put("/quotas/day", json=body)).json()
    assert {name: made[name] for name in body} == body
    assert (made["used"], made["period"]) == (0, "day")
    assert (await admin.delete("/quotas/day")).status_code == 404
    assert [item["unit"] for item in (await admin.get("/quotas")).json()["items"]] == ["tokens"]
    query = {"scope": "provider:ai/local", "unit": "tokens"}
    assert (await admin.delete("/quotas/day", params=query)).status_code == 204
    assert (await admin.get("/quotas")).json()["items"] == []


async def test_a_call_beyond_a_budget_of_its_key_is_refused_and_others_are_not(admin: httpx2.AsyncClient) -> None:
    body = {"limit": 0, "unit": "bytes", "scope": "action:cache.set"}
    assert (await admin.put("/quotas/day", json=body)).status_code == 200
    refused = await admin.post("/providers/cache/memory/set", json={"params": {"key": "a", "value": 1}})
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exhausted")
    assert int(refused.headers["retry-after"]) > 0
    passed = await admin.post("/providers/cache/memory/get", json={"params": {"key": "a"}})
    assert (passed.status_code, passed.json()["data"]) == (200, {"found": False})
