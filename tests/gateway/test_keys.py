"""Rotation, limits and last use of API keys, and the service accounts that they belong to."""

import asyncio
import datetime
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.control_plane import ControlPlane
from erp.main import Layer, Settings, running

pytestmark = pytest.mark.anyio

GET = "/providers/cache/memory/get"
READ = {"params": {"key": "k"}}
ACCOUNT = {"name": "shop-import", "role": "developer", "scopes": ["providers:cache/*:read", "providers:db/*:read"]}


async def _created(admin: httpx2.AsyncClient, **facts: Any) -> dict[str, Any]:
    answer = await admin.post("/keys", json={"role": "developer", **facts})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def _read(site: Site, key: str) -> httpx2.Response:
    site.keys["other"] = key
    async with site.client("other") as client:
        return await client.post(GET, json=READ)


async def _key(admin: httpx2.AsyncClient, id_: str) -> dict[str, Any]:
    return next(item for item in (await admin.get("/keys")).json()["items"] if item["id"] == id_)


@pytest.mark.slow
async def test_a_rotated_key_and_its_successor_both_work_until_the_overlap_ends(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    old = await _created(admin, name="ci", scopes=["providers:cache/*:read"], rate={"requests": 50})
    rotated = await admin.post(f"/keys/{old['id']}:rotate", json={"overlap_seconds": 2})
    new = rotated.json()

    assert rotated.status_code == 201
    assert (new["replaces"], new["name"], new["scopes"]) == (old["id"], "ci", ["providers:cache/*:read"])
    assert new["rate"]["requests"] == 50
    assert (await _read(site, old["key"])).status_code == 200
    assert (await _read(site, new["key"])).status_code == 200
    deadline = time.monotonic() + 30
    while (answer := await _read(site, old["key"])).status_code == 200 and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert (await _read(site, new["key"])).status_code == 200


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(site: Site, admin: httpx2.AsyncClient) -> None:
    old = await _created(admin)
    new = (await admin.post(f"/keys/{old['id']}:rotate", json={"overlap_seconds": 0})).json()
    assert (await _read(site, old["key"])).status_code == 401
    assert (await _read(site, new["key"])).status_code == 200
    assert (await admin.post(f"/keys/{old['id']}:rotate", json={"overlap_seconds": 0})).status_code == 404


async def test_an_overlap_never_prolongs_a_key(site: Site, admin: httpx2.AsyncClient) -> None:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    old = await _created(admin, expires_at=ends.isoformat())
    later = (ends + datetime.timedelta(days=1)).isoformat()
    new = (await admin.post(f"/keys/{old['id']}:rotate", json={"overlap_seconds": 9000, "expires_at": later})).json()
    assert (await _key(admin, old["id"]))["expires_at"] == old["expires_at"]
    assert new["expires_at"] > old["expires_at"]


async def test_a_narrowed_administrator_cannot_rotate_a_wider_key(site: Site, admin: httpx2.AsyncClient) -> None:
    wide = await _created(admin, role="admin")
    site.keys["narrow"] = (await _created(admin, role="admin", scopes=["admin:keys/*:*"]))["key"]
    async with site.client("narrow") as narrow:
        refused = await narrow.post(f"/keys/{wide['id']}:rotate", json={"overlap_seconds": 60})
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")
    assert len((await admin.get("/keys")).json()["items"]) == 5  # three of the fixture, two of this test


async def test_another_tenants_key_looks_unknown_to_a_rotation(site: Site, admin: httpx2.AsyncClient) -> None:
    await site.layer.control.tenants.create("globex")
    theirs, text = await site.layer.control.api_keys.create("globex", role="developer")
    refused = await admin.post(f"/keys/{theirs.id}:rotate", json={"overlap_seconds": 0})
    assert refused.status_code == 404
    assert (await _read(site, text)).status_code == 200


async def test_a_key_has_a_rate_limit_of_its_own_which_its_headers_show(site: Site, admin: httpx2.AsyncClient) -> None:
    made = await _created(admin, rate={"requests": 2, "period_seconds": 600})
    answers = [await _read(site, made["key"]) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert '"key";r=1;t=600' in answers[0].headers["ratelimit"]
    assert '"key";q=2;w=600' in answers[0].headers["ratelimit-policy"]
    assert answers[2].json()["code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 300
    assert (await _read(site, site.keys["developer"])).status_code == 200, "the tenant itself is not limited"


async def test_a_token_of_a_limited_key_does_not_get_around_the_limit(site: Site, admin: httpx2.AsyncClient) -> None:
    made = await _created(admin, rate={"requests": 3, "period_seconds": 600})
    site.keys["limited"] = made["key"]
    async with site.client("limited") as client:
        exchanged = await client.post("/providers/auth/local/exchange", json={"params": {"subject_token": made["key"]}})
    token = exchanged.json()["data"]["access_token"]
    assert [(await _read(site, token)).status_code for _ in range(3)] == [200, 200, 429]


async def test_a_malformed_rate_is_refused_and_nothing_is_created(admin: httpx2.AsyncClient) -> None:
    before = (await admin.get("/keys")).json()
    refused = await admin.post("/keys", json={"role": "developer", "rate": {"requests": 0}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/rate/requests")
    after = (await admin.get("/keys")).json()
    assert [item["id"] for item in after["items"]] == [item["id"] for item in before["items"]]


async def test_processes_share_the_rate_limit_of_a_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=None, log_level="error", processes=2)
    async with running(settings) as first, running(settings) as second:
        await first.control.tenants.create("acme")
        rate = {"requests": 5, "period_seconds": 600}
        _, text = await first.control.api_keys.create("acme", role="developer", rate=rate)
        statuses = [await _reads_of(layer, text) for layer in (first, second) * 5]
    assert (statuses.count(200), statuses.count(429)) == (5, 5)


async def _reads_of(layer: Layer, text: str) -> int:
    transport = httpx2.ASGITransport(app=layer.application())
    async with httpx2.AsyncClient(transport=transport, base_url="http://layer.test") as client:
        path, headers = "/providers/db/sqlite/query", {"authorization": f"Bearer {text}"}
        return (await client.post(path, json={"params": {"sql": "SELECT 1 AS one"}}, headers=headers)).status_code


async def test_the_last_use_of_a_key_is_written_behind_the_call_and_at_most_once_a_minute(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    made = await _created(admin)
    assert "last_used_at" not in await _key(admin, made["id"])

    await _read(site, made["key"])
    deadline = time.monotonic() + 30
    while (first := (await _key(admin, made["id"])).get("last_used_at")) is None and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert first is not None
    site.layer.identity.forget_all()
    await _read(site, made["key"])
    await site.layer.control.key_uses.close()
    assert (await _key(admin, made["id"]))["last_used_at"] == first
    assert (await _key(admin, made["id"]))["revision"] == made["revision"]


async def test_all_keys_of_a_service_account_are_one_actor(site: Site, admin: httpx2.AsyncClient) -> None:
    assert (await admin.post("/service-accounts", json=ACCOUNT)).status_code == 201
    keys = [
        await _created(admin, service_account="shop-import", scopes=scopes) for scopes in ([], ACCOUNT["scopes"][:1])
    ]

    assert keys[0]["scopes"] == ACCOUNT["scopes"]
    assert keys[1]["scopes"] == ["providers:cache/*:read"]
    for key in keys:
        site.keys["machine"] = key["key"]
        async with site.client("machine") as machine:
            me = (await machine.get("/me")).json()
            assert me["id"] == "account_shop-import"
            assert (await machine.post(GET, json=READ)).status_code == 200
            write = await machine.post("/providers/cache/memory/set", json={"params": {"key": "k", "value": 1}})
            assert write.status_code == 403


async def test_disabling_a_service_account_refuses_all_its_keys_at_once_and_enabling_accepts_them(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    await admin.post("/service-accounts", json=ACCOUNT)
    keys = [(await _created(admin, service_account="shop-import"))["key"] for _ in range(2)]
    assert [(await _read(site, key)).status_code for key in keys] == [200, 200]

    disabled = await admin.patch("/service-accounts/shop-import", json={"disabled": True})
    assert disabled.json()["disabled_at"] is not None
    assert [(await _read(site, key)).status_code for key in keys] == [401, 401]
    await admin.patch("/service-accounts/shop-import", json={"disabled": False})
    assert [(await _read(site, key)).status_code for key in keys] == [200, 200]


@pytest.mark.slow
async def test_another_process_refuses_the_keys_of_a_disabled_account_within_a_second(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=None, log_level="error", processes=2)
    async with running(settings) as first, running(settings) as second:
        await first.control.tenants.create("acme")
        await first.control.service_accounts.create("acme", "bot", role="developer")
        _, text = await first.control.api_keys.create("acme", role="developer", service_account="bot")
        assert await _reads_of(second, text) == 200
        await first.control.service_accounts.disable("acme", "bot", disabled=True)
        await asyncio.sleep(1.0)  # what is promised
        assert await _reads_of(second, text) == 401


async def test_a_removed_service_account_takes_its_keys_along_and_they_stay_dead_when_its_name_is_used_again(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    await admin.post("/service-accounts", json=ACCOUNT)
    key = await _created(admin, service_account="shop-import")
    assert (await admin.delete("/service-accounts/shop-import")).status_code == 204
    assert (await admin.get("/service-accounts/shop-import")).status_code == 404
    assert (await admin.post("/service-accounts", json=ACCOUNT)).status_code == 201
    assert (await _read(site, key["key"])).status_code == 401


@pytest.mark.parametrize(
    ("facts", "pointer"),
    [({"role": "admin"}, "/role"), ({"scopes": ["providers:cache/*:write"]}, "/scopes")],
)
async def test_a_key_cannot_do_more_than_its_service_account(
    admin: httpx2.AsyncClient, facts: dict[str, Any], pointer: str
) -> None:
    await admin.post("/service-accounts", json=ACCOUNT)
    wide = {"role": "developer", "service_account": "shop-import", **facts}
    refused = await admin.post("/keys", json=wide)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    key = await _created(admin, service_account="shop-import")
    refused = await admin.patch(f"/keys/{key['id']}", json=facts)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    assert (await _key(admin, key["id"]))["scopes"] == ACCOUNT["scopes"]


async def test_a_service_account_has_one_name_and_another_tenants_looks_unknown(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    await site.layer.control.tenants.create("globex")
    await site.layer.control.service_accounts.create("globex", "theirs", role="developer")
    assert (await admin.post("/service-accounts", json=ACCOUNT)).status_code == 201
    assert (await admin.post("/service-accounts", json=ACCOUNT)).json()["code"] == "already_exists"
    for method in ("GET", "DELETE"):
        assert (await admin.request(method, "/service-accounts/theirs")).status_code == 404
    assert (await admin.patch("/service-accounts/theirs", json={"disabled": True})).status_code == 404
    assert (await admin.post("/keys", json={"role": "developer", "service_account": "theirs"})).status_code == 404
    assert [item["name"] for item in (await admin.get("/service-accounts")).json()["items"]] == ["shop-import"]
    assert (await site.layer.control.service_accounts.get("globex", "theirs")).disabled_at is None


async def test_a_developer_reaches_no_service_accounts(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/service-accounts")).status_code == 403
    assert (await client.post("/service-accounts", json=ACCOUNT)).status_code == 403


async def test_changes_of_service_accounts_and_rotations_are_audited(admin: httpx2.AsyncClient) -> None:
    await admin.post("/service-accounts", json=ACCOUNT)
    key = await _created(admin, service_account="shop-import")
    await admin.post(f"/keys/{key['id']}:rotate", json={"overlap_seconds": 0})
    await admin.patch("/service-accounts/shop-import", json={"disabled": True})
    await admin.delete("/service-accounts/shop-import")
    actions = [item["action"] for item in (await admin.get("/audit")).json()["items"]]
    assert actions[:5] == [
        "service_accounts.delete",
        "service_accounts.disable",
        "keys.rotate",
        "keys.create",
        "service_accounts.create",
    ]


async def test_a_control_plane_that_closes_writes_the_uses_it_has_noted(tmp_path: Path) -> None:
    control = await ControlPlane.open(tmp_path, None, pepper=b"p")
    await control.tenants.create("acme")
    key, _ = await control.api_keys.create("acme", role="developer")
    control.key_uses.note(key.id, None)
    await control.close()
    again = await ControlPlane.open(tmp_path, None, pepper=b"p")
    assert (await again.api_keys.get("acme", key.id)).last_used_at is not None
    await again.close()
