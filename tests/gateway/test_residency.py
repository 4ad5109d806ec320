"""Data stays in the region of its tenant: over every action of every provider, and whatever a route leads to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.contracts.loading import catalog
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.main import Settings, running
from erp.providers.cache.memory.provider import MemoryCache
from erp.runtime.call import Call
from erp.runtime.context import Actor
from erp.runtime.ports import Connection
from erp.security.policy.wiring import PolicySettings

pytestmark = pytest.mark.anyio

ADMIN = Actor(id="key_1", tenant="acme", roles=frozenset({"admin"}))
SERVICE = Actor(id="order", tenant="acme", kind="service", roles=frozenset({"service"}))


@pytest.fixture
async def european(site: Site) -> Site:
    """A tenant whose data has to stay in eu."""
    await site.layer.control.tenants.update("acme", region="eu")
    return site


def connection(ref: str, region: str, name: str = "default") -> Connection:
    domain, provider = ref.split("/")
    return Connection(
        tenant="acme",
        domain=domain,
        provider=provider,
        name=name,
        revision="",
        config={},
        secrets={},
        policy={},
        region=region,
    )


@pytest.mark.parametrize("domain", sorted(catalog()["domains"]))
async def test_no_action_of_any_provider_reaches_a_connection_elsewhere(european: Site, domain: str) -> None:
    layer, tried = european.layer, set()
    for manifest in [one for one in layer.catalog.providers.values() if one.domain == domain]:
        await layer.control.connections.put(connection(manifest.ref, "us-east"))
        for action in layer.catalog.actions_of(manifest):
            actor = SERVICE if action.internal else ADMIN
            call = Call(action=action, actor=actor, provider=manifest.name, request={}, request_id=f"r-{action.name}")
            with pytest.raises(ProviderError) as failure:
                await (layer.calls.stream(call) if action.streaming else layer.calls.invoke(call))
            assert (action.ref, failure.value.code) == (action.ref, ErrorCode.PERMISSION_DENIED)
            assert "region" in failure.value.message
            tried.add(action.ref)
        assert not layer.pool.holds(("acme", domain, manifest.name, "default"))
    assert tried
    assert await refused_in_audit(layer, tried) == tried


async def refused_in_audit(layer: Any, wanted: set[str]) -> set[str]:
    """Read the audit trail until it holds what is ``wanted``: refusals are written soon, not at once."""
    found: set[str] = set()
    for _ in range(600):
        items, _ = await layer.control.audit.search("acme", outcome="permission_denied", limit=200)
        found = {item.action for item in items}
        if wanted <= found:
            break
        await asyncio.sleep(0.05)
    return found


async def configure(admin: httpx2.AsyncClient, name: str, region: str) -> httpx2.Response:
    return await admin.post("/providers/cache/memory/configure", json={"connection": name, "region": region})


async def get(client: httpx2.AsyncClient, provider: str, name: str | None = None) -> httpx2.Response:
    headers = {} if name is None else {"x-connection": name}
    return await client.post(f"/providers/cache/{provider}/get", json={"params": {"key": "a"}}, headers=headers)


async def test_the_region_of_a_connection_is_kept_shown_and_decides(
    european: Site, admin: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    shown = (await configure(admin, "near", "eu-central")).json()
    assert shown["region"] == "eu-central"
    await configure(admin, "far", "us")
    assert (await get(client, "memory", "near")).status_code == 200
    refused = await get(client, "memory", "far")
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")

    await configure(admin, "far", "eu")  # its data was moved
    assert (await get(client, "memory", "far")).status_code == 200
    await european.layer.control.tenants.update("acme", region="us")
    assert (await get(client, "memory", "far")).status_code == 403

    listed = (await admin.get("/providers/cache/memory/configure")).json()["items"]
    assert {item["connection"]: item.get("region") for item in listed} == {
        "default": None,
        "near": "eu-central",
        "far": "eu",
    }
    wrong = await configure(admin, "bad", "EU West")
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (400, "/region")


@pytest.mark.usefixtures("european")
async def test_a_route_never_leaves_the_region(admin: httpx2.AsyncClient, client: httpx2.AsyncClient) -> None:
    for name, region in (("near", "eu"), ("far", "us")):
        await configure(admin, name, region)
    near, far = ({"provider": "memory", "connection": name} for name in ("near", "far"))
    bodies = {
        "to-far": {"kind": "single", "targets": [far]},
        "over-far": {"kind": "failover", "targets": [far, near]},
        "over-near": {"kind": "failover", "targets": [near, far]},
    }
    for name, body in bodies.items():
        assert (await admin.put(f"/routes/cache/{name}", json=body)).status_code == 200
    statuses = {name: (await get(client, name)).status_code for name in bodies}
    assert statuses == {"to-far": 403, "over-far": 403, "over-near": 200}


@pytest.mark.usefixtures("european")
async def test_failover_answers_with_the_failure_inside_rather_than_go_outside(
    site: Site, admin: httpx2.AsyncClient, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = site.layer
    for name, region in (("near", "eu"), ("far", "us")):
        await layer.control.connections.put(connection("cache/memory", region, name))
    targets = [{"provider": "memory", "connection": name} for name in ("near", "far")]
    assert (
        await admin.put("/routes/cache/over-both", json={"kind": "failover", "targets": targets})
    ).status_code == 200
    monkeypatch.setattr(MemoryCache, "get", down)

    failed = await get(client, "over-both")

    assert (failed.status_code, failed.json()["code"], failed.json()["detail"]) == (
        503,
        "unavailable",
        "The server is down.",
    )
    assert layer.pool.holds(("acme", "cache", "memory", "near"))
    assert not layer.pool.holds(("acme", "cache", "memory", "far"))


async def down(*_: object) -> None:
    raise ProviderError(ErrorCode.UNAVAILABLE, "The server is down.")


async def test_a_process_elsewhere_serves_nothing(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, log_level="error", policy=PolicySettings(region="us"))
    async with running(settings) as layer:
        await layer.control.tenants.create("acme", region="eu")
        _, key = await layer.control.api_keys.create("acme", role="developer")
        async with Site(layer, {"developer": key}).client() as client:
            assert (await get(client, "memory")).status_code == 403
