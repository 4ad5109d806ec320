from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from erp.control_plane import ControlPlane
from erp.errors import ProviderError
from erp.runtime.ports import Connection

pytestmark = pytest.mark.anyio

MAIN = Connection(
    tenant="acme",
    domain="cache",
    provider="redis",
    name="main",
    revision="",
    config={"url": "redis://cache"},
    secrets={"password": "secret://connections/cache/redis/main/password#1"},
    policy={"timeout_seconds": 2},
)


async def within_a_second(question: Callable[[], Awaitable[Any]], answer: object) -> None:
    deadline = time.monotonic() + 30
    while await question() != answer:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_stored_connection_is_found_under_its_tenant_alone(control: ControlPlane) -> None:
    stored = await control.connections.put(MAIN)
    assert stored == msgspec.structs.replace(MAIN, revision=stored.revision)
    assert await control.connections.find("acme", "cache", "redis", "main") == stored
    assert await control.connections.find("globex", "cache", "redis", "main") is None
    assert await control.connections.find("acme", "cache", "redis", "other") is None


async def test_every_change_gives_a_new_revision_and_is_seen_at_once(control: ControlPlane) -> None:
    first = await control.connections.put(MAIN)
    await control.connections.find("acme", "cache", "redis", "main")
    second = await control.connections.put(msgspec.structs.replace(MAIN, config={"url": "redis://other"}))
    assert first.revision != second.revision
    assert await control.connections.find("acme", "cache", "redis", "main") == second
    assert await control.connections.delete("acme", "cache", "redis", "main") is True
    assert await control.connections.find("acme", "cache", "redis", "main") is None
    assert await control.connections.delete("acme", "cache", "redis", "main") is False


async def test_a_connection_needs_a_tenant(control: ControlPlane) -> None:
    with pytest.raises(ProviderError) as refused:
        await control.connections.put(msgspec.structs.replace(MAIN, tenant="nobody"))
    assert refused.value.code == "not_found"
    assert await control.connections.list("nobody") == []


async def test_connections_are_listed_by_domain_and_provider(control: ControlPlane) -> None:
    for domain, provider, name in (("db", "sqlite", "a"), ("cache", "redis", "b"), ("cache", "memory", "c")):
        await control.connections.put(msgspec.structs.replace(MAIN, domain=domain, provider=provider, name=name))
    await control.connections.put(msgspec.structs.replace(MAIN, tenant="globex"))

    async def names(**only: str) -> list[str]:
        return [found.name for found in await control.connections.list("acme", **only)]

    assert await names() == ["c", "b", "a"]
    assert await names(domain="cache") == ["c", "b"]
    assert await names(domain="cache", provider="redis") == ["b"]


async def test_a_domain_has_one_default_which_goes_with_its_connection(control: ControlPlane) -> None:
    assert await control.connections.domain_default("acme", "cache") is None
    await control.connections.put(MAIN)
    await control.connections.set_domain_default("acme", "cache", "memory", "default")
    await control.connections.set_domain_default("acme", "cache", "redis", "main")
    assert await control.connections.domain_default("acme", "cache") == ("redis", "main")
    assert await control.connections.domain_default("globex", "cache") is None
    await control.connections.delete("acme", "cache", "redis", "main")
    assert await control.connections.domain_default("acme", "cache") is None


async def test_a_change_by_another_process_is_seen_within_a_second(open_control_plane: Any) -> None:
    here, there = await open_control_plane(), await open_control_plane()
    await there.tenants.create("acme")
    assert await here.connections.find("acme", "cache", "redis", "main") is None
    assert await here.connections.tenant_policy("acme") == {}

    stored = await there.connections.put(MAIN)
    await there.tenants.update("acme", policy={"timeout_seconds": 1})

    await within_a_second(lambda: here.connections.find("acme", "cache", "redis", "main"), stored)
    await within_a_second(lambda: here.connections.tenant_policy("acme"), {"timeout_seconds": 1})


async def test_known_connections_are_answered_without_the_database(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await control.connections.put(MAIN)
    await control.connections.find("acme", "cache", "redis", "main")
    control.revisions.trusted_until = time.monotonic() + 60
    monkeypatch.setattr(control.database, "run", None)
    assert await control.connections.find("acme", "cache", "redis", "main") == stored


async def test_a_row_read_before_a_change_is_not_remembered_after_it(control: ControlPlane) -> None:
    await control.revisions.refresh()

    async def outdated() -> Connection | None:
        await control.connections.put(MAIN)
        return None

    key = ("acme", "cache", "redis", "main")
    assert await control.connections._connections.get(key, outdated) is None
    found = await control.connections.find(*key)
    assert found is not None
    assert found.config == {"url": "redis://cache"}
