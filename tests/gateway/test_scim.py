"""SCIM 2.0: people and groups are provisioned, change who may do what, and are kept apart by tenant."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import Site

from erp.control_plane.directory import Standing
from erp.main import running

pytestmark = pytest.mark.anyio

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ADA: dict[str, Any] = {
    "schemas": [USER],
    "userName": "Ada@example.com",
    "externalId": "ext-ada",
    "displayName": "Ada Byron",
    "active": True,
    "name": {"givenName": "Ada", "familyName": "Byron"},
    "emails": [{"type": "work", "value": "ada@example.com"}],
}


async def _created(admin: httpx2.AsyncClient, kind: str, **facts: Any) -> dict[str, Any]:
    schema = USER if kind == "Users" else GROUP
    made = await admin.post(f"/scim/v2/{kind}", json={"schemas": [schema], **facts})
    assert made.status_code == 201, made.text
    return dict(made.json())


async def _patch(admin: httpx2.AsyncClient, path: str, *operations: dict[str, Any], **headers: str) -> httpx2.Response:
    return await admin.patch(path, json={"schemas": [PATCH], "Operations": list(operations)}, headers=headers)


async def _names(admin: httpx2.AsyncClient, **query: Any) -> list[str]:
    found = await admin.get("/scim/v2/Users", params=query)
    assert found.status_code == 200, found.text
    return [one["userName"] for one in found.json()["Resources"]]


async def test_a_user_is_created_read_replaced_and_deleted(admin: httpx2.AsyncClient) -> None:
    made = await admin.post("/scim/v2/Users", json=ADA, headers={"content-type": "application/scim+json"})
    body = made.json()
    path = f"/scim/v2/Users/{body['id']}"
    assert (made.status_code, made.headers["content-type"]) == (201, "application/scim+json")
    assert (made.headers["etag"], made.headers["location"]) == ('W/"1"', body["meta"]["location"])
    assert {name: body[name] for name in ADA} == ADA
    assert (await admin.get(path)).json() == body

    replaced = await admin.put(path, json={"schemas": [USER], "userName": "ada", "id": "mine"})
    assert (replaced.status_code, replaced.json()["id"], replaced.headers["etag"]) == (200, body["id"], 'W/"2"')
    assert "emails" not in replaced.json()
    assert (await admin.delete(path)).status_code == 204
    gone = await admin.get(path)
    assert (gone.status_code, gone.json()["schemas"]) == (404, ["urn:ietf:params:scim:api:messages:2.0:Error"])
    assert gone.json()["status"] == "404"


async def test_a_name_is_taken_once_whatever_its_case(admin: httpx2.AsyncClient) -> None:
    await admin.post("/scim/v2/Users", json=ADA)
    again = await admin.post("/scim/v2/Users", json={**ADA, "userName": "ADA@EXAMPLE.COM"})
    assert (again.status_code, again.json()["scimType"]) == (409, "uniqueness")
    assert await _names(admin) == ["Ada@example.com"]


async def test_an_etag_guards_against_changes_made_meanwhile(admin: httpx2.AsyncClient) -> None:
    path = f"/scim/v2/Users/{(await _created(admin, 'Users', userName='ada'))['id']}"
    assert (await admin.get(path, headers={"if-none-match": 'W/"1"'})).status_code == 304
    operation = {"op": "replace", "path": "displayName", "value": "Ada"}
    assert (await _patch(admin, path, operation, **{"if-match": 'W/"1"'})).status_code == 200
    stale = await _patch(admin, path, {**operation, "value": "Eve"}, **{"if-match": 'W/"1"'})
    assert (stale.status_code, (await admin.get(path)).json()["displayName"]) == (412, "Ada")
    assert (await admin.delete(path, headers={"if-match": 'W/"1"'})).status_code == 412
    assert (await admin.delete(path, headers={"if-match": 'W/"2"'})).status_code == 204


@pytest.mark.parametrize(
    ("operation", "attribute", "value"),
    [
        ({"op": "Replace", "path": "active", "value": "False"}, "active", False),
        ({"op": "replace", "value": {"displayName": "A"}}, "displayName", "A"),
        ({"op": "add", "path": "name.middleName", "value": "K"}, "name", {**ADA["name"], "middleName": "K"}),
        ({"op": "remove", "path": "name.givenName"}, "name", {"familyName": "Byron"}),
        (
            {"op": "replace", "path": 'emails[type eq "work"].value', "value": "a@b"},
            "emails",
            [{"type": "work", "value": "a@b"}],
        ),
        ({"op": "remove", "path": 'emails[type eq "work"]'}, "emails", []),
        ({"op": "replace", "path": f"{USER}:displayName", "value": "B"}, "displayName", "B"),
    ],
)
async def test_a_patch_changes_what_its_path_means(
    admin: httpx2.AsyncClient, operation: dict[str, Any], attribute: str, value: Any
) -> None:
    made = (await admin.post("/scim/v2/Users", json=ADA)).json()
    changed = await _patch(admin, f"/scim/v2/Users/{made['id']}", operation)
    assert (changed.status_code, changed.json()[attribute]) == (200, value)
    rest = {name: made[name] for name in ADA if name != attribute}
    assert {name: changed.json()[name] for name in rest} == rest


@pytest.mark.parametrize(
    ("operations", "kind"),
    [
        (
            [{"op": "replace", "path": "displayName", "value": "X"}, {"op": "replace", "path": "id", "value": "1"}],
            "mutability",
        ),
        ([{"op": "replace", "path": "displayName", "value": "X"}, {"op": "move", "path": "a"}], "invalidSyntax"),
        ([{"op": "replace", "path": 'emails[value co "a"]', "value": "X"}], "invalidPath"),
        ([{"op": "replace", "path": "a' OR '1'='1", "value": "X"}], "invalidPath"),
        ([{"op": "replace", "path": 'emails[type eq "home"].value', "value": "X"}], "noTarget"),
        ([{"op": "remove"}], "noTarget"),
        ([{"op": "replace", "path": "active", "value": "perhaps"}], "invalidValue"),
        ([{"op": "remove", "path": "userName"}], "invalidValue"),
        ([{"op": "add", "path": "nickName", "value": "x" * 70_000}], "tooMany"),
        ([{"op": "add", "path": "a", "value": 1}] * 101, "invalidSyntax"),
        ([], "invalidSyntax"),
    ],
)
async def test_a_patch_that_is_wrong_anywhere_changes_nothing(
    admin: httpx2.AsyncClient, operations: list[dict[str, Any]], kind: str
) -> None:
    made = (await admin.post("/scim/v2/Users", json=ADA)).json()
    refused = await _patch(admin, f"/scim/v2/Users/{made['id']}", *operations)
    assert (refused.status_code, refused.json()["scimType"]) == (400, kind)
    assert (await admin.get(f"/scim/v2/Users/{made['id']}")).json() == made


async def test_a_patch_that_is_too_large_is_refused_and_changes_nothing(admin: httpx2.AsyncClient) -> None:
    made = (await admin.post("/scim/v2/Users", json=ADA)).json()
    operation = {"op": "add", "path": "nickName", "value": "x" * 1_100_000}
    assert (await _patch(admin, f"/scim/v2/Users/{made['id']}", operation)).status_code == 413
    assert (await admin.get(f"/scim/v2/Users/{made['id']}")).json() == made


async def test_filters_find_by_equality_and_pages_join_to_the_whole(admin: httpx2.AsyncClient) -> None:
    for number in range(5):
        facts = {"userName": f"u{number}", "externalId": f"e{number}", "active": number != 3}
        await _created(admin, "Users", **facts)
    assert await _names(admin, filter='userName eq "U2"') == ["u2"]
    assert await _names(admin, filter='externalId eq "e3" and active eq false') == ["u3"]
    assert await _names(admin, filter='active eq true and externalId eq "e3"') == []
    pages = [await _names(admin, startIndex=start, count=2) for start in (1, 3, 5)]
    assert pages == [["u0", "u1"], ["u2", "u3"], ["u4"]]
    none = (await admin.get("/scim/v2/Users", params={"count": 0})).json()
    assert (none["totalResults"], none["Resources"]) == (5, [])


@pytest.mark.parametrize(
    "text",
    [
        'userName eq "x" or active eq true',
        'userName co "a"',
        "userName eq 'a'",
        'password eq "x"',
        'userName eq "a" and',
        'userName eq "x\\u0000"',
        'userName eq "a"; DROP TABLE tenants',
        'tenant eq "globex"',
        'active eq "true"',
        "",
        " and ".join(['userName eq "a"'] * 11),
        'userName eq "' + "a" * 2000 + '"',
    ],
)
async def test_any_other_filter_is_refused(admin: httpx2.AsyncClient, text: str) -> None:
    refused = await admin.get("/scim/v2/Users", params={"filter": text})
    assert (refused.status_code, refused.json()["scimType"]) == (400, "invalidFilter")


@pytest.mark.parametrize("value", ["x' OR '1'='1", '\\" or 1 eq 1 or \\"', "%", "_da"])
async def test_the_value_of_a_filter_is_a_value_and_nothing_else(admin: httpx2.AsyncClient, value: str) -> None:
    await _created(admin, "Users", userName="ada")
    found = await admin.get("/scim/v2/Users", params={"filter": f'userName eq "{value}"'})
    assert (found.status_code, found.json()["totalResults"]) == (200, 0)


async def test_members_come_and_go_one_by_one(admin: httpx2.AsyncClient) -> None:
    users = [(await _created(admin, "Users", userName=f"u{number}"))["id"] for number in range(3)]
    group = await _created(admin, "Groups", displayName="Buyers", members=[{"value": users[0]}])
    path = f"/scim/v2/Groups/{group['id']}"
    await _patch(admin, path, {"op": "add", "path": "members", "value": [{"value": one} for one in users]})
    changed = await _patch(admin, path, {"op": "remove", "path": f'members[value eq "{users[1]}"]'})
    assert sorted(one["value"] for one in changed.json()["members"]) == sorted([users[0], users[2]])
    user = (await admin.get(f"/scim/v2/Users/{users[0]}")).json()
    assert user["groups"] == [{"value": group["id"], "display": "Buyers"}]
    await admin.delete(f"/scim/v2/Users/{users[0]}")
    assert [one["value"] for one in (await admin.get(path)).json()["members"]] == [users[2]]
    unknown = await _patch(admin, path, {"op": "add", "path": "members", "value": [{"value": "nobody"}]})
    assert unknown.status_code == 400
    assert [one["value"] for one in (await admin.get(path)).json()["members"]] == [users[2]]


async def test_another_tenants_people_look_unknown(site: Site, admin: httpx2.AsyncClient) -> None:
    await site.layer.control.tenants.create("globex")
    theirs = await site.layer.control.directory.create("globex", "User", {"userName": "eve"})
    path = f"/scim/v2/Users/{theirs.id}"
    assert (await admin.get(path)).status_code == 404
    assert (await admin.delete(path)).status_code == 404
    assert (await admin.put(path, json={"schemas": [USER], "userName": "mine"})).status_code == 404
    assert (await _patch(admin, path, {"op": "replace", "path": "active", "value": False})).status_code == 404
    joined = await admin.post(
        "/scim/v2/Groups", json={"schemas": [GROUP], "displayName": "g", "members": [{"value": theirs.id}]}
    )
    assert joined.status_code == 400
    assert (await admin.get("/scim/v2/Groups")).json()["totalResults"] == 0
    assert await _names(admin) == []
    assert await site.layer.control.directory.get("globex", "User", theirs.id) == theirs


async def test_only_administrators_and_keys_for_it_provision(site: Site, client: httpx2.AsyncClient) -> None:
    refused = await client.get("/scim/v2/Users")
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/scim+json")
    _, site.keys["provisioner"] = await site.layer.control.api_keys.create(
        "acme", role="admin", scopes=["admin:scim/*:*"]
    )
    async with site.client("provisioner") as provisioner:
        assert (await provisioner.post("/scim/v2/Users", json=ADA)).status_code == 201
        assert (await provisioner.get("/keys")).status_code == 403
    async with site.client(None) as nobody:
        assert (await nobody.get("/scim/v2/Users")).status_code == 401


async def test_groups_give_the_roles_that_the_tenant_has_mapped(site: Site, admin: httpx2.AsyncClient) -> None:
    ada = (await admin.post("/scim/v2/Users", json=ADA)).json()
    for name in ("Buyers", "admin"):
        await _created(admin, "Groups", displayName=name, members=[{"value": ada["id"]}])
    assert (await admin.put("/directory-roles", json={"roles": {"Buyers": "developer"}})).status_code == 200
    directory = site.layer.control.directory
    for subject in ("ada@EXAMPLE.com", "ext-ada"):
        assert await directory.standing("acme", subject) == Standing(is_active=True, roles=frozenset({"developer"}))
    assert await directory.standing("acme", "stranger") is None
    assert (await admin.put("/directory-roles", json={"roles": {"Buyers": "root"}})).status_code == 400
    assert (await admin.get("/directory-roles")).json() == {"roles": {"Buyers": "developer"}}


async def test_what_the_service_can_do_is_described(admin: httpx2.AsyncClient) -> None:
    config = (await admin.get("/scim/v2/ServiceProviderConfig")).json()
    assert (config["patch"]["supported"], config["bulk"]["supported"]) == (True, False)
    types = (await admin.get("/scim/v2/ResourceTypes")).json()["Resources"]
    assert [one["endpoint"] for one in types] == ["/Users", "/Groups"]
    assert [one["id"] for one in (await admin.get("/scim/v2/Schemas")).json()["Resources"]] == [USER, GROUP]


@pytest.mark.slow
async def test_a_deactivated_person_is_refused_within_a_second_in_other_processes(
    site: Site, admin: httpx2.AsyncClient
) -> None:
    from erp.control_plane.saml import SamlSettings
    from erp.security.sign_in_sources import SamlSource
    from erp.vendor_clients.oidc.holder import Holder

    ada = (await admin.post("/scim/v2/Users", json=ADA)).json()
    settings = SamlSettings(entity_id="https://idp", sso_url="https://idp/sso", certificates=[])
    trusted = await site.layer.control.saml.put("acme", "office", settings)
    source = SamlSource(tenant="acme", name="saml.office", revision=trusted.revision)
    holder = Holder(subject="ext-ada", roles=["developer"], scopes=[], expires_at=0.0, audience=[], claims={})
    secret = await site.layer.people.browser.sessions.open(source, holder, sign_in="s", user_agent="test")
    async with running(site.layer.settings) as other:
        assert await other.people.browser.sessions.find(secret) is not None
        operation = {"op": "replace", "path": "active", "value": False}
        assert (await _patch(admin, f"/scim/v2/Users/{ada['id']}", operation)).status_code == 200
        assert await site.layer.people.browser.sessions.find(secret) is None
        await asyncio.sleep(1.0)  # what is promised
        assert await other.people.browser.sessions.find(secret) is None
