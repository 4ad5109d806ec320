"""Registering client certificates: by whom, for whom, and what is refused."""

from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

pytestmark = pytest.mark.anyio

PRINT = "AB:" * 31 + "AB"


@pytest.fixture
async def shop(site: Site) -> None:
    await site.layer.control.service_accounts.create("acme", "shop", role="developer")


@pytest.mark.usefixtures("shop")
async def test_a_fingerprint_is_registered_listed_and_removed(admin: httpx2.AsyncClient) -> None:
    made = await admin.post("/certificates", json={"service_account": "shop", "fingerprint": PRINT})
    assert (made.status_code, made.json()["kind"], made.json()["value"]) == (201, "fingerprint", "ab" * 32)
    assert (await admin.get("/certificates")).json()["items"] == [made.json()]
    assert (await admin.delete(f"/certificates/{made.json()['id']}")).status_code == 204
    assert (await admin.get("/certificates")).json()["items"] == []
    assert (await admin.delete(f"/certificates/{made.json()['id']}")).status_code == 404
    actions = [item["action"] for item in (await admin.get("/audit")).json()["items"]]
    assert actions[:2] == ["certificates.remove", "certificates.register"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("name", [{"uri": "spiffe://example.com/shop"}, {"dns": "shop.example.com"}])
async def test_only_the_platform_registers_names(site: Site, admin: httpx2.AsyncClient, name: dict[str, str]) -> None:
    refused = await admin.post("/certificates", json={"service_account": "shop", **name})
    assert (refused.status_code, (await admin.get("/certificates")).json()["items"]) == (403, [])
    async with site.client("platform") as platform:
        made = await platform.post("/certificates?tenant=acme", json={"service_account": "shop", **name})
    assert (made.status_code, made.json()["tenant"]) == (201, "acme")


@pytest.mark.usefixtures("shop")
async def test_a_certificate_means_one_account_of_one_tenant(site: Site, admin: httpx2.AsyncClient) -> None:
    await site.layer.control.tenants.create("globex")
    await site.layer.control.service_accounts.create("globex", "theirs", role="developer")
    _, site.keys["globex"] = await site.layer.control.api_keys.create("globex", role="admin")
    made = await admin.post("/certificates", json={"service_account": "shop", "fingerprint": PRINT})
    async with site.client("globex") as globex:
        again = await globex.post("/certificates", json={"service_account": "theirs", "fingerprint": PRINT})
        assert (again.status_code, again.json()["code"]) == (409, "already_exists")
        assert (await globex.delete(f"/certificates/{made.json()['id']}")).status_code == 404
        assert (await globex.get("/certificates")).json()["items"] == []
    assert (await admin.get("/certificates")).json()["items"] == [made.json()]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"fingerprint": "ab"}, "/fingerprint"),
        ({"fingerprint": "g" * 64}, "/fingerprint"),
        ({}, ""),
        ({"fingerprint": PRINT, "dns": "shop.example.com"}, ""),
    ],
)
async def test_what_is_no_certificate_is_refused(admin: httpx2.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    refused = await admin.post("/certificates", json={"service_account": "shop", **body})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, pointer)
    assert (await admin.get("/certificates")).json()["items"] == []


async def test_an_unknown_account_and_a_developer_are_refused(
    admin: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    body = {"service_account": "nobody", "fingerprint": PRINT}
    assert (await admin.post("/certificates", json=body)).status_code == 404
    assert (await client.post("/certificates", json=body)).status_code == 403
    assert (await client.get("/certificates")).status_code == 403
