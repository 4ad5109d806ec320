from __future__ import annotations

from typing import Any

import pytest

from erp.control_plane import ControlPlane
from erp.errors import ProviderError
from erp.runtime.ports import Completion, Connection

pytestmark = pytest.mark.anyio


async def test_a_created_tenant_can_be_read(control: ControlPlane) -> None:
    created = await control.tenants.create("initech", name="Initech", region="eu", policy={"timeout_seconds": 3})
    assert created == await control.tenants.get("initech")
    assert (created.id, created.name, created.region, created.policy) == (
        "initech",
        "Initech",
        "eu",
        {"timeout_seconds": 3},
    )
    assert created.created_at == created.updated_at
    assert created.created_at.endswith("Z")


@pytest.mark.parametrize("id_", ["", "a", "Acme", "1acme", "a_b", "a" * 64, "acme\n", "a/b", "-acme"])
async def test_an_id_that_cannot_stand_in_paths_and_topics_is_refused(control: ControlPlane, id_: str) -> None:
    with pytest.raises(ProviderError) as refused:
        await control.tenants.create(id_)
    assert refused.value.code == "invalid_argument"
    assert [error.pointer for error in refused.value.errors] == ["/id"]
    assert await control.tenants.ids() == ["acme", "globex"]


async def test_an_id_is_given_once(control: ControlPlane) -> None:
    with pytest.raises(ProviderError) as refused:
        await control.tenants.create("acme", name="Another")
    assert refused.value.code == "already_exists"
    assert (await control.tenants.get("acme")).name == "Acme"


async def test_a_change_leaves_the_rest_alone(control: ControlPlane) -> None:
    changed = await control.tenants.update("acme", region="us")
    assert (changed.name, changed.region) == ("Acme", "us")
    changed = await control.tenants.update("acme", policy={"rate": {"per_second": 5}})
    assert (changed.name, changed.region, changed.policy) == ("Acme", "us", {"rate": {"per_second": 5}})
    with pytest.raises(ProviderError) as refused:
        await control.tenants.update("nobody", region="us")
    assert refused.value.code == "not_found"


async def test_pages_of_tenants_join_to_the_whole(control: ControlPlane) -> None:
    await control.tenants.create("initech")
    first, cursor = await control.tenants.list(limit=2)
    second, end = await control.tenants.list(limit=2, cursor=cursor)
    assert [tenant.id for tenant in first + second] == ["acme", "globex", "initech"]
    assert end is None
    with pytest.raises(ProviderError) as refused:
        await control.tenants.list(cursor="§§")
    assert refused.value.code == "invalid_argument"


async def test_a_removed_tenant_leaves_nothing_but_its_audit_records(control: ControlPlane, make: Any) -> None:
    connection = Connection(
        tenant="acme", domain="db", provider="sqlite", name="main", revision="", config={}, secrets={}, policy={}
    )
    await control.connections.put(connection)
    await control.connections.set_domain_default("acme", "db", "sqlite", "main")
    _, text = await control.api_keys.create("acme", role="admin")
    await control.quotas.set("acme", "day", 5)
    await control.quotas.reserve("acme")
    await control.secrets.add("acme", "a", 1, "kek", b"sealed")
    claim = make.claim()
    await control.journal.claim(claim)
    await control.journal.complete(Completion(audit=make.audit(), events=[make.event()], claim=claim, status=200))

    await control.tenants.delete("acme")

    assert await control.tenants.ids() == ["globex"]
    assert await control.connections.find("acme", "db", "sqlite", "main") is None
    assert await control.connections.domain_default("acme", "db") is None
    assert (await control.api_keys.list("acme")) == ([], None)
    assert await control.quotas.list("acme") == []
    assert await control.secrets.paths("acme", "") == []
    assert await control.outbox.next_due_seconds() is None
    assert [record.seq for record in (await control.audit.search("acme"))[0]] == [1]
    assert (await control.journal.claim(make.claim())).state == "won"
    with pytest.raises(ProviderError) as refused:
        await control.tenants.delete("acme")
    assert refused.value.code == "not_found"
    assert text.startswith("erpk_live_")
