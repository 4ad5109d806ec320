"""Access evaluations (OpenID AuthZEN): who is known as a subject, and that the answer is what the gateway would do."""

from __future__ import annotations

import asyncio
import datetime
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

import erp.gateway
from erp.control_plane.saml import SamlSettings
from erp.security.platform_identity import administrative_effect
from erp.security.sign_in_sources import SamlSource
from erp.vendor_clients.oidc.holder import Holder

pytestmark = pytest.mark.anyio

CACHE = {"type": "provider", "id": "cache/memory"}


async def decided(
    admin: httpx2.AsyncClient, type_: str, id_: str, action: str = "set", resource: dict[str, str] = CACHE
) -> tuple[bool, str]:
    question = {"subject": {"type": type_, "id": id_}, "action": {"name": action}, "resource": resource}
    answer = await admin.post("/access/v1/evaluation", json=question)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made["decision"], made["context"]["reason"]


async def known(admin: httpx2.AsyncClient, type_: str, id_: str) -> bool:
    return (await decided(admin, type_, id_, "get"))[0]


async def test_a_service_account_is_decided_by_its_role_and_scopes_until_it_is_disabled(
    admin: httpx2.AsyncClient,
) -> None:
    account = {"name": "shop", "role": "developer", "scopes": ["providers:cache/*:read"]}
    assert (await admin.post("/service-accounts", json=account)).status_code == 201
    key = (await admin.post("/keys", json={"role": "developer", "service_account": "shop"})).json()["id"]
    subjects = (("service_account", "shop"), ("service_account", "account_shop"), ("key", "account_shop"), ("key", key))
    for type_, id_ in subjects:
        assert await decided(admin, type_, id_, "get") == (True, "role developer")
        assert await decided(admin, type_, id_, "set") == (False, "no scope of the key covers it")
    for is_disabled in (True, False):
        await admin.patch("/service-accounts/shop", json={"disabled": is_disabled})
        assert [await known(admin, *one) for one in subjects] == [not is_disabled] * len(subjects)


@pytest.mark.slow
async def test_a_key_is_known_by_both_forms_of_its_id_until_it_ends(site: Site, admin: httpx2.AsyncClient) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
    ending, _ = await site.layer.control.api_keys.create("acme", role="developer", expires_at=soon)
    key, _ = await site.layer.control.api_keys.create("acme", role="developer")
    assert [await known(admin, "key", id_) for id_ in (key.id, f"key_{key.id}")] == [True, True]
    await asyncio.sleep(1.1)
    assert await known(admin, "key", ending.id) is False
    await admin.delete(f"/keys/{key.id}")
    assert await known(admin, "key", key.id) is False


async def test_a_person_is_who_the_session_says_until_it_ends(site: Site, admin: httpx2.AsyncClient) -> None:
    secret = await signed_in(site, "ada", "developer")
    person = ("user", "user:saml.office:ada")
    assert await decided(admin, *person) == (True, "role developer")
    assert await decided(admin, *person, "list", {"type": "administration", "id": "keys"}) == (
        False,
        "developer may not administer this",
    )
    session = await site.layer.people.browser.sessions.find(secret)
    assert session is not None
    await admin.delete(f"/auth/sessions/{session.id}")
    assert await known(admin, *person) is False


async def signed_in(site: Site, subject: str, role: str) -> str:
    settings = SamlSettings(entity_id="https://idp", sso_url="https://idp/sso", certificates=[])
    trusted = await site.layer.control.saml.put("acme", "office", settings)
    source = SamlSource(tenant="acme", name="saml.office", revision=trusted.revision)
    holder = Holder(subject=subject, roles=[role], scopes=[], expires_at=0.0, audience=[], claims={})
    return await site.layer.people.browser.sessions.open(source, holder, sign_in=subject, user_agent="test")


async def test_a_person_of_the_directory_has_the_roles_of_its_groups_until_deactivated(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    directory = site.layer.control.directory
    ada = await directory.create("acme", "User", {"userName": "Ada@example.com", "externalId": "ext-ada"})
    await directory.create("acme", "Group", {"displayName": "buyers", "members": [{"value": ada.id}]})
    names = ("ada@example.com", "ext-ada", ada.id)
    assert [await known(admin, "user", name) for name in names] == [False] * 3, "the group gives no role yet"
    await directory.set_roles("acme", {"buyers": "developer"})
    assert [await decided(admin, "user", name) for name in names] == [(True, "role developer")] * 3
    assert await known(admin, "user", "user:saml.office:ext-ada") is False, "nobody trusts that provider"
    await signed_in(site, "somebody-else", "admin")
    assert await known(admin, "user", "user:saml.office:ext-ada") is True
    await directory.change("acme", "User", ada.id, lambda facts: facts | {"active": False}, None)
    assert [await known(admin, "user", name) for name in (*names, "user:saml.office:ext-ada")] == [False] * 4


@pytest.mark.parametrize(
    "subject",
    [
        ("key", "nobody"),
        ("service_account", "nobody"),
        ("user", "nobody"),
        ("user", "user:x:y"),
        ("user", "user:"),
        ("planet", "mars"),
    ],
)
async def test_who_is_unknown_is_denied(admin: httpx2.AsyncClient, subject: tuple[str, str]) -> None:
    allowed, reason = await decided(admin, *subject)
    assert allowed is False
    assert reason.startswith("nobody of this tenant is this subject, or not any more")
    assert ("key, service_account, user" in reason) is (subject[0] == "planet")


async def test_nobody_of_another_tenant_is_known(site: Site, admin: httpx2.AsyncClient) -> None:
    control = site.layer.control
    await control.tenants.create("globex")
    key, _ = await control.api_keys.create("globex", role="admin")
    await control.service_accounts.create("globex", "theirs", role="admin")
    bob = await control.directory.create("globex", "User", {"userName": "bob"})
    await control.directory.create("globex", "Group", {"displayName": "chiefs", "members": [{"value": bob.id}]})
    await control.directory.set_roles("globex", {"chiefs": "admin"})
    for subject in (("key", key.id), ("service_account", "theirs"), ("user", "bob"), ("user", bob.id)):
        assert await known(admin, *subject) is False


async def test_the_role_that_somebody_has_taken_on_for_a_while_counts(site: Site, admin: httpx2.AsyncClient) -> None:
    await site.layer.control.service_accounts.create("acme", "shop", role="developer")
    _, text = await site.layer.control.api_keys.create("acme", role="developer", service_account="shop")
    connections = {"type": "administration", "id": "connections"}
    assert (await decided(admin, "service_account", "shop", "list", connections))[0] is False
    site.keys["shop"] = text
    async with site.client("shop") as shop:
        asked = {"role": "operator", "reason": "the import has stopped", "minutes": 5}
        assert (await shop.post("/break-glass", json=asked)).status_code in {200, 201}
    assert await decided(admin, "service_account", "shop", "list", connections) == (True, "break-glass operator")


async def test_administration_is_decided_by_what_the_action_does(admin: httpx2.AsyncClient) -> None:
    operator = (await admin.post("/keys", json={"role": "operator"})).json()["id"]
    keys = {"type": "administration", "id": "keys"}
    answers = {name: (await decided(admin, "key", operator, name, keys))[0] for name in ("list", "create", "revoke")}
    assert answers == {"list": True, "create": False, "revoke": False}
    assert (await decided(admin, "key", operator, "whatever", keys))[0] is False


def test_what_actions_of_administration_do_is_what_the_gateway_asks() -> None:
    asked = re.compile(r'authorise\([^)]*"(?P<action>\w+)", "(?P<effect>read|write|destructive)"')
    pages = Path(erp.gateway.__file__).parent.glob("*.py")
    found = {(one["action"], one["effect"]) for page in pages for one in asked.finditer(page.read_text())}
    assert len(found) > 30
    assert {(action, effect) for action, effect in found if administrative_effect(action) != effect} == {
        ("end", "write")
    }


async def test_several_subjects_are_answered_at_once(admin: httpx2.AsyncClient) -> None:
    await admin.post("/service-accounts", json={"name": "shop", "role": "developer"})
    key = (await admin.post("/keys", json={"role": "developer"})).json()["id"]
    subjects = [("service_account", "shop"), ("user", "nobody"), ("key", key)]
    question = {
        "action": {"name": "get"},
        "resource": CACHE,
        "evaluations": [{"subject": {"type": type_, "id": id_}} for type_, id_ in subjects],
    }
    answered = (await admin.post("/access/v1/evaluations", json=question)).json()["evaluations"]
    assert [one["decision"] for one in answered] == [True, False, True]
