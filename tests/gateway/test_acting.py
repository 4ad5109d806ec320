"""The platform administers what other tenants have; nobody else does, and both audit trails say so."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

MEMORY = "/providers/cache/memory/configure"
SINGLE = {"kind": "single", "targets": [{"provider": "memory"}]}
OTHERS = [
    ("GET", "/connections", None),
    ("GET", MEMORY, None),
    ("POST", MEMORY, {"connection": "small"}),
    ("DELETE", f"{MEMORY}?connection=small", None),
    ("GET", "/routes", None),
    ("GET", "/routes/cache/main-cache", None),
    ("PUT", "/routes/cache/main-cache", SINGLE),
    ("DELETE", "/routes/cache/main-cache", None),
    ("GET", "/keys", None),
    ("PATCH", "/keys/abc", {"name": "mine"}),
    ("DELETE", "/keys/abc", None),
    ("GET", "/quotas", None),
    ("PUT", "/quotas/day", {"limit": 1}),
    ("DELETE", "/quotas/day", None),
]


@pytest.fixture
async def platform(site: Site) -> Any:
    async with site.client("platform") as made:
        yield made


async def sent(client: httpx2.AsyncClient, method: str, path: str, body: Any, tenant: str) -> httpx2.Response:
    url = f"{path}{'&' if '?' in path else '?'}tenant={tenant}"
    return await client.request(method, url, json=body)


@pytest.mark.parametrize(("method", "path", "body"), OTHERS)
async def test_an_administrator_cannot_act_for_another_tenant(
    site: Site, admin: httpx2.AsyncClient, method: str, path: str, body: Any
) -> None:
    await site.layer.control.tenants.create("globex")

    answer = await sent(admin, method, path, body, "globex")

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert await site.layer.control.connections.list("globex") == []
    assert await site.layer.control.quotas.list("globex") == []


@pytest.mark.parametrize(("method", "path", "body"), OTHERS)
async def test_a_tenant_that_is_not_there_is_not_found(
    platform: httpx2.AsyncClient, method: str, path: str, body: Any
) -> None:
    answer = await sent(platform, method, path, body, "nobody")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "'nobody'" in answer.json()["detail"]


async def test_the_platform_configures_routes_limits_and_names_keys_for_a_tenant(
    site: Site, platform: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    made = await sent(platform, "POST", MEMORY, {"connection": "small", "default": True}, "acme")
    assert made.status_code == 200, made.text
    assert made.json()["default"] is True
    assert (await sent(platform, "PUT", "/routes/cache/main-cache", SINGLE, "acme")).status_code == 200
    assert (await sent(platform, "PUT", "/quotas/day", {"limit": 9}, "acme")).status_code == 200

    listed = (await sent(platform, "GET", "/connections", None, "acme")).json()["items"]
    assert [(item["provider"], item["connection"]) for item in listed] == [("cache/memory", "small")]
    called = await client.post(
        "/providers/cache/memory/get", json={"params": {"key": "k"}}, headers={"X-Connection": "small"}
    )
    assert called.status_code == 200, called.text
    assert (await platform.get("/connections")).json()["items"] == []


async def test_both_audit_trails_say_what_the_platform_changed(
    platform: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await sent(platform, "POST", MEMORY, {"connection": "small"}, "acme")

    of_the_tenant = (await admin.get("/audit")).json()["items"][0]
    of_the_platform = (await platform.get("/audit")).json()["items"][0]
    assert (of_the_tenant["action"], of_the_tenant["target"]) == ("connections.configure", "cache/memory#small")
    assert of_the_platform["target"] == "acme/cache/memory#small"
    assert of_the_tenant["actor"] == of_the_platform["actor"]


async def test_an_operator_of_the_platform_may_look_and_not_touch(site: Site) -> None:
    _, site.keys["watcher"] = await site.layer.control.api_keys.create("platform", role="operator")
    async with site.client("watcher") as watcher:
        assert (await sent(watcher, "GET", "/connections", None, "acme")).status_code == 200
        refused = await sent(watcher, "POST", MEMORY, {"connection": "small"}, "acme")

    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert await site.layer.control.connections.list("acme") == []


async def test_all_connections_come_in_pages_and_by_domain(admin: httpx2.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        await admin.post(MEMORY, json={"connection": name})
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await admin.get("/connections", params={"limit": "2", **cursor})).json()
        seen += [item["connection"] for item in page["items"]]
        if "next_cursor" not in page:
            break
        cursor = {"cursor": page["next_cursor"]}

    assert seen == ["a", "b", "c"]
    assert (await admin.get("/connections?domain=db")).json()["items"] == []
    assert (await admin.get("/connections?cursor=x")).status_code == 400
