from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.control_plane import ControlPlane, moments
from erp.security.identity import KeyIdentity

pytestmark = pytest.mark.anyio

ASKED = {"reason": "the night batch hangs", "role": "admin", "minutes": 10}
RULES = {"needs_approval": True, "longest_minutes": 30, "roles": ["operator", "admin"]}
SET = "/providers/cache/memory/set"
GET = "/providers/cache/memory/get"


@pytest.fixture
async def operator(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    async with site.client("operator") as made:
        yield made


async def begun(client: httpx2.AsyncClient, **facts: Any) -> dict[str, Any]:
    answer = await client.post("/break-glass", json=ASKED | facts)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_elevation_gives_a_role_marks_all_that_is_done_and_is_reported(
    operator: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    route = {"kind": "single", "targets": [{"provider": "memory"}]}
    assert (await operator.get("/quotas")).status_code == 200
    assert (await operator.put("/quotas/day", json={"limit": 1000})).status_code == 403
    elevation = await begun(operator)
    assert (elevation["state"], elevation["role"], elevation["reason"]) == ("active", "admin", ASKED["reason"])
    assert (await operator.put("/quotas/day", json={"limit": 1000})).status_code == 200
    assert (await operator.post(SET, json={"params": {"key": "a", "value": 1}})).status_code == 200
    assert (await operator.post(GET, json={"params": {"key": "a"}})).status_code == 200
    assert (await operator.put("/routes/cache/my-cache", json=route)).status_code == 200
    ended = await operator.post(f"/break-glass/{elevation['id']}:end")
    assert (ended.status_code, ended.json()["state"], ended.json()["ended_by"]) == (200, "ended", elevation["actor"])
    assert (await operator.put("/quotas/day", json={"limit": 2000})).status_code == 403
    assert (await operator.post(SET, json={"params": {"key": "b", "value": 1}})).status_code == 200

    report = (await admin.get(f"/break-glass/{elevation['id']}")).json()
    done = [item["action"] for item in report["items"]]
    assert done == ["break_glass.end", "routes.put", "cache.get", "cache.set", "quotas.set"]
    assert all(item["detail"]["break_glass"] == elevation["id"] for item in report["items"])
    listed = (await admin.get("/break-glass")).json()["items"]
    assert [item["id"] for item in listed] == [elevation["id"]]
    told = (await admin.get("/audit", params={"action": "break_glass"})).json()["items"]
    assert [item["action"] for item in told] == ["break_glass.end", "break_glass.begin"]
    assert told[1]["detail"]["why"] == ASKED["reason"]


async def test_an_elevation_ends_by_itself_when_its_time_is_over(
    site: Site, operator: httpx2.AsyncClient, admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    elevation = await begun(operator)
    assert (await operator.put("/quotas/day", json={"limit": 1000})).status_code == 200
    later = moments.now() + 10 * 60 * moments.MICROSECONDS
    monkeypatch.setattr(site.layer.control.elevations, "clock", lambda: later)
    # What this process remembers of the actor is only good for seconds: here, it is made to ask at once.
    site.layer.identity.forget_all()
    assert (await operator.put("/quotas/day", json={"limit": 2000})).status_code == 403
    assert (await admin.get(f"/break-glass/{elevation['id']}")).json()["elevation"]["state"] == "over"
    assert (await operator.post(f"/break-glass/{elevation['id']}:end")).status_code == 412


async def test_where_the_rules_ask_somebody_else_has_to_approve(
    site: Site, operator: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    assert (await admin.put("/break-glass/rules", json=RULES)).json() == RULES
    elevation = await begun(operator)
    assert (elevation["state"], "began_at" in elevation) == ("waiting", False)
    approve = f"/break-glass/{elevation['id']}:approve"
    assert (await operator.put("/quotas/day", json={"limit": 1})).status_code == 403
    assert (await operator.post(approve)).status_code == 403
    own = await begun(admin, role="operator")
    refused = await admin.post(f"/break-glass/{own['id']}:approve")
    assert (refused.status_code, refused.json()["detail"]) == (403, "Somebody else has to approve what you ask for.")
    assert (await admin.post(f"/break-glass/{own['id']}:end")).status_code == 200
    approved = await admin.post(approve)
    assert (approved.status_code, approved.json()["state"]) == (200, "active")
    assert approved.json()["approved_by"] == own["actor"]
    assert (await operator.put("/quotas/day", json={"limit": 1000})).status_code == 200
    assert (await admin.post(approve)).status_code == 412


async def test_no_more_is_given_than_the_tenant_allows(
    site: Site, operator: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    await admin.put("/break-glass/rules", json=RULES | {"needs_approval": False, "roles": ["operator"]})
    refused = await operator.post("/break-glass", json=ASKED)
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    async with site.client("developer") as developer:
        long = await developer.post("/break-glass", json=ASKED | {"role": "operator", "minutes": 31})
        assert (long.status_code, long.json()["errors"][0]["pointer"]) == (400, "/minutes")
        elevation = await begun(developer, role="operator")
        again = await developer.post("/break-glass", json=ASKED | {"role": "operator"})
        assert again.status_code == 403  # whoever is elevated asks for nothing more
        assert (await developer.put("/quotas/day", json={"limit": 1})).status_code == 403
        assert (await developer.get("/quotas")).status_code == 200
        assert (await developer.put("/break-glass/rules", json=RULES)).status_code == 403
    assert (await admin.post(f"/break-glass/{elevation['id']}:end")).status_code == 200
    assert (await site.layer.control.elevations.rules("acme")).roles == ["operator"]


async def test_what_would_outlast_an_elevation_is_refused_under_it(operator: httpx2.AsyncClient) -> None:
    await begun(operator)
    for method, path, body in (
        ("POST", "/keys", {"role": "admin"}),
        ("PUT", "/policies", {"source": ""}),
        ("PUT", "/break-glass/rules", RULES),
        ("PUT", "/audit/retention/calls", {"days": 1}),
    ):
        refused = await operator.request(method, path, json=body)
        assert (refused.status_code, path) == (403, path)
    assert (await operator.get("/audit/retention")).json()["items"][3]["days"] is None


async def test_an_elevation_is_of_its_own_tenant_alone(
    site: Site, operator: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    control = site.layer.control
    await control.tenants.create("globex")
    _, text = await control.api_keys.create("globex", role="admin")
    site.keys["globex"] = text
    await admin.put("/break-glass/rules", json=RULES)
    elevation = await begun(operator)
    async with site.client("globex") as other:
        for path in (f"/break-glass/{elevation['id']}:approve", f"/break-glass/{elevation['id']}:end"):
            assert (await other.post(path)).status_code == 404
        assert (await other.get(f"/break-glass/{elevation['id']}")).status_code == 404
        assert (await other.get("/break-glass")).json()["items"] == []
    assert (await control.elevations.get("acme", elevation["id"])).began_at is None
    await admin.post(f"/break-glass/{elevation['id']}:approve")
    assert (await operator.get("/tenants/globex")).status_code == 403
    assert (await operator.put("/quotas/day", params={"tenant": "globex"}, json={"limit": 1})).status_code == 403


@pytest.mark.slow
async def test_what_ends_here_ends_in_other_processes(site: Site, tmp_path: Path, operator: httpx2.AsyncClient) -> None:
    from erp.security.keyring import Keyring

    pepper = Keyring.open(tmp_path / "data").pepper
    other = await ControlPlane.open(tmp_path / "data", pepper=pepper)
    identity = KeyIdentity(other.api_keys, pepper, elevations=other.elevations)
    key = site.keys["operator"]
    try:
        assert (await identity.authenticate(key)).elevated == ""
        elevation = await begun(operator)
        await until(identity, key, "admin")
        await operator.post(f"/break-glass/{elevation['id']}:end")
        await until(identity, key, "")
    finally:
        await other.close()


async def until(identity: KeyIdentity, key: str, role: str) -> None:
    deadline = time.monotonic() + 30
    while (await identity.authenticate(key)).elevated != role:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
