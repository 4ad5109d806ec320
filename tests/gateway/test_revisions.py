"""A change that was meant for another state than the present one is answered with conflict and changes nothing."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.control_plane import ControlPlane

pytestmark = pytest.mark.anyio

MEMORY = "/providers/cache/memory/configure"
ROUTE = "/routes/cache/main-cache"
SINGLE = {"kind": "single", "targets": [{"provider": "memory"}]}


async def listed(client: httpx2.AsyncClient, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(path)).json()["items"]
    return items


def refused(answer: httpx2.Response, what: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), answer.text
    assert what in answer.json()["detail"]


@pytest.mark.parametrize(
    ("listing", "method", "path", "first", "second"),
    [
        ("/connections", "POST", MEMORY, {"connection": "c"}, {"connection": "c", "policy": {"timeout_seconds": 1}}),
        ("/routes", "PUT", ROUTE, SINGLE, {**SINGLE, "after_failures": 9}),
        ("/quotas", "PUT", "/quotas/day", {"limit": 5}, {"limit": 6}),
    ],
)
async def test_what_was_changed_meanwhile_stays_as_it_is(
    admin: httpx2.AsyncClient, listing: str, method: str, path: str, first: dict, second: dict
) -> None:
    made = await admin.request(method, path, json={**first, "revision": ""})
    assert made.status_code == 200, made.text
    refused(await admin.request(method, path, json={**second, "revision": ""}), "was created meanwhile")
    changed = await admin.request(method, path, json={**second, "revision": made.json()["revision"]})
    assert changed.status_code == 200, changed.text
    before = await listed(admin, listing)

    stale = made.json()["revision"]
    refused(await admin.request(method, path, json={**first, "revision": stale}), "was changed meanwhile")
    name = {"connection": "c"} if path == MEMORY else {}
    refused(await admin.delete(path, params={**name, "revision": stale}), "was changed meanwhile")

    assert await listed(admin, listing) == before
    present = {**name, "revision": changed.json()["revision"]}
    assert (await admin.delete(path, params=present)).status_code == 204
    refused(await admin.request(method, path, json={**first, **present}), "was removed meanwhile")
    assert await listed(admin, listing) == []


async def test_a_tenant_that_was_changed_meanwhile_stays_as_it_is(site: Site) -> None:
    async with site.client("platform") as platform:
        seen = (await platform.get("/tenants/acme")).json()["revision"]
        changed = await platform.patch("/tenants/acme", json={"region": "eu", "revision": seen})
        assert changed.json()["revision"] != seen

        refused(await platform.patch("/tenants/acme", json={"region": "us", "revision": seen}), "was changed")
        refused(await platform.delete("/tenants/acme", params={"revision": seen}), "was changed")

        assert (await platform.get("/tenants/acme")).json()["region"] == "eu"
        newest = {"revision": changed.json()["revision"]}
        assert (await platform.delete("/tenants/acme", params=newest)).status_code == 204


async def test_a_key_is_changed_without_becoming_another_one(site: Site, admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/keys", json={"role": "developer", "name": "robot"})).json()
    site.keys["robot"] = made["key"]
    async with site.client("robot") as robot:
        assert (await robot.get("/connections")).status_code == 403
        changed = await admin.patch(f"/keys/{made['id']}", json={"role": "operator", "revision": made["revision"]})
        assert (changed.status_code, changed.json()["role"], changed.json()["name"]) == (200, "operator", "robot")
        assert (await robot.get("/connections")).status_code == 200

    stale = await admin.patch(f"/keys/{made['id']}", json={"role": "admin", "revision": made["revision"]})
    refused(stale, "was changed meanwhile")
    refused(await admin.delete(f"/keys/{made['id']}", params={"revision": made["revision"]}), "was changed meanwhile")
    [key] = [item for item in await listed(admin, "/keys") if item["id"] == made["id"]]
    assert (key["role"], "revoked_at" in key) == ("operator", False)


async def test_a_key_can_be_given_an_end_and_lose_it_again(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/keys", json={"role": "developer"})).json()
    path = f"/keys/{made['id']}"

    ended = await admin.patch(path, json={"expires_at": "2099-01-01T00:00:00Z", "scopes": ["providers:cache/*:read"]})
    assert (ended.json()["expires_at"], ended.json()["scopes"]) == ("2099-01-01T00:00:00Z", ["providers:cache/*:read"])
    endless = await admin.patch(path, json={"expires_at": None})
    assert "expires_at" not in endless.json()

    wrong = await admin.patch(path, json={"expires_at": "2001-01-01T00:00:00Z", "scopes": ["nonsense"]})
    assert [error["pointer"] for error in wrong.json()["errors"]] == ["/scopes/0", "/expires_at"]
    assert (await listed(admin, "/keys"))[-1]["scopes"] == ["providers:cache/*:read"]


async def test_a_narrowed_key_cannot_widen_one_by_changing_it(site: Site, admin: httpx2.AsyncClient) -> None:
    wide = (await admin.post("/keys", json={"role": "developer"})).json()
    made = await admin.post("/keys", json={"role": "admin", "scopes": ["admin:keys:*"]})
    site.keys["narrow"] = made.json()["key"]
    async with site.client("narrow") as narrow:
        changes: list[dict[str, Any]] = [{"role": "admin"}, {"scopes": []}, {"scopes": ["providers:*:*"]}]
        for change in changes:
            for key in (wide, made.json()):
                if change.get("role") and key is not wide:
                    continue
                answer = await narrow.patch(f"/keys/{key['id']}", json=change)
                assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert [item["role"] for item in await listed(admin, "/keys") if item["id"] == wide["id"]] == ["developer"]


async def test_a_revoked_key_cannot_be_changed(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/keys", json={"role": "developer"})).json()
    await admin.delete(f"/keys/{made['id']}")

    assert (await admin.patch(f"/keys/{made['id']}", json={"role": "admin"})).status_code == 404


async def test_a_default_is_given_up_by_the_one_that_has_it_alone(admin: httpx2.AsyncClient) -> None:
    await admin.post(MEMORY, json={"connection": "a", "default": True})
    await admin.post(MEMORY, json={"connection": "b", "default": False})

    assert [(item["connection"], item["default"]) for item in await listed(admin, "/connections")] == [
        ("a", True),
        ("b", False),
    ]
    await admin.put(ROUTE, json={**SINGLE, "default": True})
    assert [item["default"] for item in await listed(admin, "/connections")] == [False, False]
    assert [item["default"] for item in await listed(admin, "/routes")] == [True]
    await admin.put(ROUTE, json={**SINGLE, "default": False})
    assert [item["default"] for item in await listed(admin, "/routes")] == [False]


async def test_a_revision_that_another_process_made_just_now_is_no_conflict(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    first = (await admin.post(MEMORY, json={"connection": "c"})).json()
    stored = await site.layer.control.connections.find("acme", "cache", "memory", "c")
    assert stored is not None
    elsewhere = await ControlPlane.open(site.layer.settings.data_dir, None, pepper=b"of another process, 32 bytes....")
    try:
        newer = await elsewhere.connections.put(stored)
    finally:
        await elsewhere.close()

    refused(await admin.post(MEMORY, json={"connection": "c", "revision": first["revision"]}), "was changed meanwhile")
    changed = await admin.post(MEMORY, json={"connection": "c", "revision": newer.revision})

    assert changed.status_code == 200, changed.text
