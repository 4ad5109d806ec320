"""Signing in at a real OpenID Provider, and calling with its tokens (``ERP_TEST_OIDC``)."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.gateway.conftest import Site
from tests.gateway.test_browser_sessions import LOGIN, browser, csrf, sessions_of_acme
from tests.gateway.test_issuers import OIDC
from tests.support.contract_client import contract_client
from tests.support.oidc_peer import PUBLIC_URL, OidcPeer

pytestmark = [pytest.mark.anyio, pytest.mark.live]


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def peer() -> OidcPeer:
    address = os.environ.get("ERP_TEST_OIDC")
    if not address:
        pytest.skip("needs an OpenID Provider: set ERP_TEST_OIDC")
    return OidcPeer.at(address)


async def test_a_person_signs_in_at_a_real_openid_provider(site: Site, peer: OidcPeer) -> None:
    site.layer.links.public_url = PUBLIC_URL
    async with site.client("admin") as admin:
        answer = await admin.post(OIDC, json={"connection": "staff", "config": peer.config()})
        assert answer.status_code == 200, answer.text
    async with browser(site) as client:
        began = await client.get("/auth/login", params={**LOGIN, "return_to": "/me"})
        with httpx2.Client() as at_issuer:
            back = await asyncio.to_thread(peer.signed_in, at_issuer, began.headers["location"], "acme.admin")
        parts = urlsplit(back)
        assert f"{parts.scheme}://{parts.netloc}" == PUBLIC_URL
        answer = await client.get(f"{parts.path}?{parts.query}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/me"), answer.text
        me = (await client.get("/me")).json()
        assert (me["id"], me["roles"]) == ("user:staff:acme.admin", ["admin"])
        again = await client.get(f"{parts.path}?{parts.query}")
        assert again.status_code == 403
        url = (await client.post("/auth/logout", headers=csrf(client))).json()["logout_url"]
        assert url.startswith(f"{peer.issuer}/session/end?client_id=gateway")


@pytest.mark.parametrize("is_asked", [True, False])
async def test_roles_and_tenant_that_the_id_token_lacks_come_from_the_userinfo(
    site: Site, peer: OidcPeer, is_asked: bool
) -> None:
    if not peer.offers("lean"):
        pytest.skip("the OpenID Provider of ERP_TEST_OIDC has no scope 'lean': start a newer one")
    site.layer.links.public_url = PUBLIC_URL
    config = peer.config(login_scopes=["openid", "lean"], login_userinfo=is_asked)
    async with site.client("admin") as admin:
        assert (await admin.post(OIDC, json={"connection": "staff", "config": config})).status_code == 200
    async with browser(site) as client:
        began = await client.get("/auth/login", params={**LOGIN, "return_to": "/me"})
        with httpx2.Client() as at_issuer:
            back = await asyncio.to_thread(peer.signed_in, at_issuer, began.headers["location"], "acme.admin")
        parts = urlsplit(back)
        answer = await client.get(f"{parts.path}?{parts.query}")
        assert answer.status_code == (303 if is_asked else 403), answer.text
        if is_asked:
            me = (await client.get("/me")).json()
            assert (me["id"], me["tenant"], me["roles"]) == ("user:staff:acme.admin", "acme", ["admin"])
    assert len(await sessions_of_acme(site)) == is_asked


async def test_a_person_of_another_tenant_is_not_signed_in(site: Site, peer: OidcPeer) -> None:
    site.layer.links.public_url = PUBLIC_URL
    async with site.client("admin") as admin:
        await admin.post(OIDC, json={"connection": "staff", "config": peer.config()})
    async with browser(site) as client:
        began = await client.get("/auth/login", params=LOGIN)
        with httpx2.Client() as at_issuer:
            back = await asyncio.to_thread(peer.signed_in, at_issuer, began.headers["location"], "globex.admin")
        parts = urlsplit(back)
        assert (await client.get(f"{parts.path}?{parts.query}")).status_code == 403
    assert await sessions_of_acme(site) == []


async def test_tokens_of_a_real_openid_provider_are_taken(site: Site, peer: OidcPeer) -> None:
    async with site.client("admin") as admin:
        await admin.post(OIDC, json={"connection": "staff", "config": peer.config()})
        opaque = {"audience": "https://opaque.erp.example", "opaque_tokens": True}
        await admin.post(OIDC, json={"connection": "opaque", "config": peer.config(**opaque)})
    signed = peer.token("acme.developer")
    unsigned = peer.token("acme.developer", resource="https://opaque.erp.example", scope="providers:*:*")
    for token, name in ((signed, "staff"), (unsigned, "opaque")):
        async with contract_client(site.layer.application(), token) as client:
            me = await client.get("/me", headers={"x-tenant-id": "acme"})
            assert me.json()["id"] == f"user:{name}:acme.developer"
            assert (await client.get("/me", headers={"x-tenant-id": "globex"})).status_code == 401
    async with site.client("developer") as client:
        revoked = await client.post("/auth/revoke", json={"token": unsigned})
        assert revoked.json() == {"issuer_told": True}
    async with contract_client(site.layer.application(), unsigned) as client:
        assert (await client.get("/me", headers={"x-tenant-id": "acme"})).status_code == 401
