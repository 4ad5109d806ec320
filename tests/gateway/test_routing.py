"""A tenant's own names for connections, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

SINGLE = {"kind": "single", "targets": [{"provider": "memory"}]}
PAIR = [{"provider": "memory"}, {"provider": "memory", "connection": "second"}]


@pytest.fixture
async def second(admin: httpx2.AsyncClient) -> None:
    """The connection ``second`` of cache/memory."""
    made = await admin.post("/providers/cache/memory/configure", json={"connection": "second"})
    assert made.status_code == 200, made.text


async def put(client: httpx2.AsyncClient, name: str, body: dict[str, Any]) -> httpx2.Response:
    return await client.put(f"/routes/cache/{name}", json=body)


async def call(client: httpx2.AsyncClient, action: str, params: dict[str, Any], name: str = "main-cache") -> Any:
    answer = await client.post(f"/providers/cache/{name}/{action}", json={"params": params})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_route_works_like_a_provider(client: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    made = await put(admin, "main-cache", SINGLE)
    assert (made.status_code, made.json()["kind"]) == (200, "single")

    await call(client, "set", {"key": "a", "value": 1})
    answer = await call(client, "get", {"key": "a"})

    assert answer["data"]["value"] == 1
    assert (answer["meta"]["provider"], answer["meta"]["connection"]) == ("cache/memory", "default")
    health = await client.get("/providers/cache/main-cache/health")
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert [one["name"] for one in health.json()["dependencies"]] == ["memory#default"]


@pytest.mark.usefixtures("second")
async def test_a_changed_route_leads_elsewhere_at_once(client: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    await put(admin, "main-cache", SINGLE)
    await call(client, "set", {"key": "a", "value": "first"})

    await put(admin, "main-cache", {"kind": "single", "targets": PAIR[1:]})

    assert (await call(client, "get", {"key": "a"}))["data"] == {"found": False}


@pytest.mark.usefixtures("second")
async def test_routes_are_listed_by_page_and_shown_with_the_state_of_their_targets(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    for number in range(3):
        await put(admin, f"main-{number}", {"kind": "shadow", "targets": PAIR})
    await call(client, "get", {"key": "a"}, "main-0")

    first = (await admin.get("/routes?limit=2")).json()
    rest = (await admin.get(f"/routes?limit=2&cursor={first['next_cursor']}")).json()
    one = (await admin.get("/routes/cache/main-0")).json()

    assert [item["name"] for item in first["items"] + rest["items"]] == ["main-0", "main-1", "main-2"]
    assert "next_cursor" not in rest
    assert one["state"]["targets"][0]["served"] == 1
    assert one["state"]["shadow"]["different"] == 0


@pytest.mark.parametrize(
    ("name", "body", "pointer"),
    [
        ("maincache", SINGLE, "/name"),
        ("Main-Cache", SINGLE, "/name"),
        ("main-cache", {"kind": "single", "targets": PAIR}, "/targets"),
        ("main-cache", {"kind": "failover", "targets": PAIR[:1]}, "/targets"),
        ("main-cache", {"kind": "failover", "targets": [PAIR[0], PAIR[0]]}, "/targets"),
        ("main-cache", {"kind": "single", "targets": [{"provider": "memry"}]}, "/targets/0"),
        ("main-cache", {"kind": "single", "targets": [{"provider": "memory", "connection": "none"}]}, "/targets/0"),
        ("main-cache", {"kind": "weighted", "targets": [one | {"weight": 0} for one in PAIR]}, "/targets/0/weight"),
        ("main-cache", {"kind": "round", "targets": PAIR}, "/kind"),
        ("main-cache", {"kind": "single", "targets": []}, "/targets"),
        ("main-cache", SINGLE | {"after_failures": 0}, "/after_failures"),
    ],
)
@pytest.mark.usefixtures("second")
async def test_a_wrong_route_is_refused_field_by_field_and_not_made(
    admin: httpx2.AsyncClient, name: str, body: dict[str, Any], pointer: str
) -> None:
    refused = await put(admin, name, body)

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_argument")
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert (await admin.get("/routes")).json() == {"items": []}


async def test_an_unknown_domain_is_named(admin: httpx2.AsyncClient) -> None:
    refused = await admin.put("/routes/cash/main-cache", json=SINGLE)

    assert (refused.status_code, "Did you mean cache" in refused.json()["detail"]) == (404, True)


async def test_a_change_of_another_revision_is_a_conflict(admin: httpx2.AsyncClient) -> None:
    first = (await put(admin, "main-cache", SINGLE)).json()["revision"]
    second = (await put(admin, "main-cache", SINGLE | {"revision": first})).json()["revision"]

    refused = await put(admin, "main-cache", SINGLE | {"revision": first, "after_failures": 9})

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert (await admin.get("/routes/cache/main-cache")).json()["revision"] == second


@pytest.mark.usefixtures("second")
async def test_a_connection_that_a_route_leads_to_is_not_removed(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await put(admin, "main-cache", {"kind": "single", "targets": PAIR[1:]})

    refused = await admin.delete("/providers/cache/memory/configure?connection=second")

    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "main-cache" in refused.json()["detail"]
    await call(client, "set", {"key": "a", "value": 1})
    assert (await admin.delete("/routes/cache/main-cache")).status_code == 204
    assert (await admin.delete("/providers/cache/memory/configure?connection=second")).status_code == 204


async def test_a_removed_route_is_gone(client: httpx2.AsyncClient, admin: httpx2.AsyncClient) -> None:
    await put(admin, "main-cache", SINGLE)
    assert (await admin.delete("/routes/cache/main-cache")).status_code == 204

    gone = await client.post("/providers/cache/main-cache/get", json={"params": {"key": "a"}})

    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert (await admin.delete("/routes/cache/main-cache")).status_code == 404
    assert (await client.get("/providers/cache/main-cache/health")).status_code == 404


async def test_developers_call_routes_and_do_not_change_them(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    refused = await put(client, "main-cache", SINGLE)

    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert (await admin.get("/routes")).json() == {"items": []}


async def test_services_use_a_route_that_is_the_default_of_its_domain(site: Site, admin: httpx2.AsyncClient) -> None:
    made = await admin.put(
        "/routes/db/main-db", json={"kind": "single", "targets": [{"provider": "sqlite"}], "default": True}
    )
    assert made.status_code == 200, made.text

    assert await site.layer.plans.default_of("acme", "db") == ("main-db", "default")
    await admin.delete("/routes/db/main-db")
    assert await site.layer.plans.default_of("acme", "db") == ("sqlite", "default")


async def test_a_transaction_through_a_weighted_route_stays_where_it_began(
    client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await admin.post("/providers/db/sqlite/configure", json={"connection": "second"})
    targets = [{"provider": "sqlite"}, {"provider": "sqlite", "connection": "second"}]
    await admin.put("/routes/db/main-db", json={"kind": "weighted", "targets": targets})

    async def ask(action: str, **params: Any) -> Any:
        answer = await client.post(f"/providers/db/main-db/{action}", json={"params": params})
        assert answer.status_code == 200, answer.text
        return answer.json()

    for _ in range(6):
        began = await ask("begin")
        handle = began["data"]["transaction"]
        for _ in range(4):
            read = await ask("query", sql="SELECT 1", transaction=handle)
            assert read["meta"]["connection"] == began["meta"]["connection"]
        await ask("rollback", transaction=handle)
