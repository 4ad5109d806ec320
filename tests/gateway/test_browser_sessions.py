"""Browser sessions: signing in at an issuer, the cookie, and that every attack changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from tests.gateway.conftest import Site
from tests.gateway.test_issuers import SET, stored, trust
from tests.support.issuer_double import IssuerDouble, issuer_double

from erp.control_plane import moments
from erp.vendor_clients.oidc.sign_in import challenge

pytestmark = pytest.mark.anyio

LOGIN = {"tenant": "acme", "issuer": "staff"}
WRITE = {"params": {"key": "k", "value": 1}}


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def issuer() -> Iterator[IssuerDouble]:
    with issuer_double() as double:
        yield double


def browser(site: Site) -> httpx2.AsyncClient:
    """A browser without a session."""
    return site.client(None)


async def begun(client: httpx2.AsyncClient, **query: str) -> dict[str, str]:
    """Begin a sign-in; return what the issuer is told."""
    answer = await client.get("/auth/login", params={**LOGIN, **query})
    assert answer.status_code == 303, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


async def returned(
    client: httpx2.AsyncClient, issuer: IssuerDouble, told: dict[str, str], **claims: Any
) -> httpx2.Response:
    """Come back from the issuer with a code for ada."""
    code = f"code-{len(issuer.verifiers)}-{told['state'][:6]}"
    issuer.codes[code] = {"nonce": told["nonce"], **claims}
    return await client.get("/auth/callback", params={"code": code, "state": told["state"], "iss": issuer.issuer})


async def signed_in(client: httpx2.AsyncClient, issuer: IssuerDouble, **query: str) -> httpx2.Response:
    answer = await returned(client, issuer, await begun(client, **query))
    assert answer.status_code == 303, answer.text
    return answer


def csrf(client: httpx2.AsyncClient) -> dict[str, str]:
    return {"x-csrf-token": client.cookies["erp_csrf"]}


async def sessions_of_acme(site: Site) -> list[dict[str, Any]]:
    async with site.client("admin") as admin:
        return list((await admin.get("/auth/sessions", params={"all": "true"})).json()["items"])


async def test_a_person_signs_in_works_and_logs_out(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as client:
        told = await begun(client, return_to="/openapi.json")
        answer = await returned(client, issuer, told)
        assert (answer.status_code, answer.headers["location"]) == (303, "/openapi.json")
        assert told["code_challenge"] == challenge(issuer.verifiers[0])
        me = (await client.get("/me")).json()
        assert (me["id"], me["tenant"], me["kind"], me["roles"]) == ("user:staff:ada", "acme", "user", ["developer"])
        assert (await client.post(SET, json=WRITE, headers=csrf(client))).status_code == 200

        (session,) = (await client.get("/auth/sessions")).json()["items"]
        assert (session["user"], session["issuer"], session["current"]) == ("user:staff:ada", "staff", True)
        ended = await client.post("/auth/logout", headers=csrf(client))
        assert ended.json() == {
            "logout_url": f"{issuer.issuer}/end_session?client_id=gateway&post_logout_redirect_uri=http%3A%2F%2F127.0.0.1%3A8080%2F"
        }
        assert "erp_session" not in client.cookies
        assert (await client.get("/me")).status_code == 401
    assert await sessions_of_acme(site) == []


async def test_cookies_cannot_be_read_or_sent_where_they_should_not(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    site.layer.links.public_url = "https://erp.example"
    async with browser(site) as client:
        answer = await client.get("/auth/login", params=LOGIN)
        (sealed,) = answer.headers.get_list("set-cookie")
        assert sealed.endswith("; Path=/auth/callback; SameSite=Lax; HttpOnly; Secure")
        told = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
        issuer.codes["c"] = {"nonce": told["nonce"]}
        cookies = {"cookie": sealed.split(";")[0]}
        answer = await client.get("/auth/callback", params={"code": "c", "state": told["state"]}, headers=cookies)

    session, token, gone = answer.headers.get_list("set-cookie")
    assert session.startswith("__Host-erp_session=")
    assert session.endswith("; Max-Age=43200; Path=/; SameSite=Lax; HttpOnly; Secure")
    assert token.startswith("__Host-erp_csrf=")
    assert token.endswith("; Max-Age=43200; Path=/; SameSite=Lax; Secure")
    assert gone.startswith("__Secure-erp_sign_in=; Max-Age=0;")


async def test_a_session_ends_when_it_is_idle_or_old(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    for column, change in (("seen_at", moments.after(-1801)), ("ends_at", moments.after(-1))):
        async with browser(site) as client:
            await signed_in(client, issuer)
            assert (await client.get("/me")).status_code == 200
            await _set(site, column, change)
            assert (await client.get("/me")).json()["detail"].startswith("The session is over.")
            assert await sessions_of_acme(site) == []


async def _set(site: Site, column: str, value: int) -> None:
    import sqlalchemy as sa

    from erp.control_plane.people_tables import sessions

    await site.layer.control.database.transact(
        lambda one: one.execute(sa.update(sessions).values({column: value})).rowcount
    )
    site.layer.people.browser.sessions.forget_all()


async def test_a_session_ends_with_the_configuration_it_comes_from(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as client:
        await signed_in(client, issuer)
        await trust(site, issuer, role_map={})

        assert (await client.get("/me")).status_code == 401


async def test_one_ends_ones_own_sessions_and_administrators_all(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as ada, browser(site) as other_ada, browser(site) as eve:
        await signed_in(ada, issuer)
        await signed_in(other_ada, issuer)
        assert (await returned(eve, issuer, await begun(eve), sub="eve")).status_code == 303
        own = (await eve.get("/auth/sessions")).json()["items"]
        assert [one["user"] for one in own] == ["user:staff:eve"]
        assert (await eve.get("/auth/sessions", params={"all": "true"})).status_code == 403
        of_ada = [one["id"] for one in (await ada.get("/auth/sessions")).json()["items"] if not one["current"]]

        refused = await eve.delete(f"/auth/sessions/{of_ada[0]}", headers=csrf(eve))
        assert (refused.status_code, len(await sessions_of_acme(site))) == (403, 3)
        assert (await ada.delete(f"/auth/sessions/{of_ada[0]}", headers=csrf(ada))).status_code == 204
        assert (await other_ada.get("/me")).status_code == 401
        async with site.client("admin") as admin:
            assert (await admin.delete(f"/auth/sessions/{own[0]['id']}")).status_code == 204
            assert (await admin.delete(f"/auth/sessions/{own[0]['id']}")).status_code == 404
        assert (await eve.get("/me")).status_code == 401
        assert (await ada.get("/me")).status_code == 200


# -- attacks ---------------------------------------------------------------------------------------


async def test_a_replayed_code_makes_no_second_session(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as client, browser(site) as thief:
        told = await begun(client)
        issuer.codes["once"] = {"nonce": told["nonce"]}
        assert (await client.get("/auth/callback", params={"code": "once", "state": told["state"]})).status_code == 303

        mine = await begun(thief)
        answer = await thief.get("/auth/callback", params={"code": "once", "state": mine["state"]})

        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
        assert "erp_session" not in thief.cookies
    assert len(await sessions_of_acme(site)) == 1


async def test_a_code_of_another_sign_in_makes_no_session(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as victim, browser(site) as thief:
        told, mine = await begun(victim), await begun(thief)
        issuer.codes["stolen"] = {"nonce": told["nonce"]}

        answer = await thief.get("/auth/callback", params={"code": "stolen", "state": mine["state"]})

        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert await sessions_of_acme(site) == []


async def test_a_replayed_state_makes_no_second_session(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as client:
        told = await begun(client)
        sealed = client.cookies["erp_sign_in"]
        assert (await returned(client, issuer, told)).status_code == 303
        async with browser(site) as again:
            again.cookies.set("erp_sign_in", sealed)

            answer = await returned(again, issuer, told)

            assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
            assert "erp_session" not in again.cookies
        assert len(await sessions_of_acme(site)) == 1
        await client.post("/auth/logout", headers=csrf(client))
        async with browser(site) as again:
            again.cookies.set("erp_sign_in", sealed)
            assert (await returned(again, issuer, told)).status_code == 403
    assert await sessions_of_acme(site) == []


async def test_a_sign_in_that_this_browser_has_not_begun_makes_no_session(site: Site, issuer: IssuerDouble) -> None:
    """An attacker's answer cannot sign a victim in as the attacker (login CSRF)."""
    await trust(site, issuer)
    async with browser(site) as attacker, browser(site) as victim:
        told = await begun(attacker)
        assert (await returned(victim, issuer, told)).status_code == 403
        await begun(victim)
        assert (await returned(victim, issuer, told)).status_code == 403
        victim.cookies.set("erp_sign_in", "A" * 200)
        assert (await returned(victim, issuer, told)).status_code == 403
        assert "erp_session" not in victim.cookies
    assert await sessions_of_acme(site) == []
    assert issuer.verifiers == [], "a code was redeemed"


async def test_a_session_that_an_attacker_fixed_is_not_the_one_of_the_victim(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as attacker, browser(site) as victim:
        await returned(attacker, issuer, await begun(attacker), sub="mallory")
        fixed = attacker.cookies["erp_session"]
        victim.cookies.set("erp_session", fixed, domain="layer.test", path="/")

        await signed_in(victim, issuer)

        assert victim.cookies["erp_session"] != fixed
        assert (await attacker.get("/me")).status_code == 401
        assert [one["user"] for one in await sessions_of_acme(site)] == ["user:staff:ada"]


@pytest.mark.parametrize("secret", ["", "x", "A" * 43, "../" * 20])
async def test_a_cookie_that_nobody_was_given_proves_nothing(site: Site, issuer: IssuerDouble, secret: str) -> None:
    async with browser(site) as client:
        answer = await client.get("/me", headers={"cookie": f"erp_session={secret}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_another_site_changes_nothing_with_the_cookie(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as client, browser(site) as attacker:
        await signed_in(client, issuer)
        await returned(attacker, issuer, await begun(attacker), sub="mallory")
        good = csrf(client)
        for headers in (
            {},
            {"x-csrf-token": "x"},
            csrf(attacker),
            {**good, "sec-fetch-site": "cross-site"},
            {**good, "sec-fetch-site": "same-site"},
        ):
            answer = await client.post(SET, json=WRITE, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied"), headers
            assert (await client.post("/auth/logout", headers=headers)).status_code == 403
        assert await stored(site) == {"found": False}
        assert (await client.get("/me")).status_code == 200
        assert (
            await client.post(SET, json=WRITE, headers={**good, "sec-fetch-site": "same-origin"})
        ).status_code == 200


@pytest.mark.parametrize(
    "target",
    ["https://attacker.example", "//attacker.example", "/\\attacker.example", "\\/attacker", "javascript:alert(1)", "/a\r\nb: c", "", "/\t/x", "/ü"],
)  # fmt: skip
async def test_an_open_redirect_is_refused(site: Site, issuer: IssuerDouble, target: str) -> None:
    await trust(site, issuer)
    async with browser(site) as client:
        answer = await client.get("/auth/login", params={**LOGIN, "return_to": target})
        if not target:
            assert answer.status_code == 303  # as if it were not there
            return
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (400, "/query/return_to")
        assert "set-cookie" not in answer.headers


async def test_an_answer_of_another_issuer_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    issuer.metadata["authorization_response_iss_parameter_supported"] = True
    await trust(site, issuer, login_scopes=["openid", "email"])
    async with browser(site) as client:
        told = await begun(client)
        issuer.codes["c"] = {"nonce": told["nonce"]}
        for stated in ({"iss": "https://attacker.example"}, {}):
            answer = await client.get("/auth/callback", params={"code": "c", "state": told["state"], **stated})
            assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
        assert issuer.verifiers == [], "the code was given to somebody"
    assert await sessions_of_acme(site) == []


@pytest.mark.parametrize(
    "claims", [{"aud": "other"}, {"aud": ["gateway", "other"]}, {"azp": "other"}, {"exp": 1}, {"nonce": "x"}]
)
async def test_an_id_token_of_somebody_else_signs_nobody_in(site: Site, issuer: IssuerDouble, claims: Any) -> None:
    await trust(site, issuer)
    async with browser(site) as client:
        answer = await returned(client, issuer, await begun(client), **claims)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert await sessions_of_acme(site) == []


async def test_what_the_issuer_refuses_is_said_and_recorded(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    async with browser(site) as client:
        told = await begun(client)
        answer = await client.get("/auth/callback", params={"error": "access_denied", "state": told["state"]})
        assert answer.json()["detail"] == "The issuer did not sign you in: access_denied."
    found: list[tuple[str, str]] = []
    async with site.client("admin") as admin:
        for _ in range(300):
            items = (await admin.get("/audit")).json()["items"]
            found = [(item["target"], item["outcome"]) for item in items if item["action"] == "sessions.open"]
            if found:
                break
            await asyncio.sleep(0.1)
    assert found == [("staff", "permission_denied")]


async def test_what_the_id_token_lacks_is_asked_of_the_userinfo(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, tenant_claim="org", roles_claim="/realm/roles", login_userinfo=True)
    issuer.userinfo = {"sub": "ada", "org": "acme", "realm": {"roles": ["erp-admin"]}}
    async with browser(site) as client:
        answer = await returned(client, issuer, await begun(client), roles=None)
        assert answer.status_code == 303, answer.text
        assert (await client.get("/me")).json()["roles"] == ["admin"]
    assert issuer.asked["/userinfo"] == 1


async def test_what_the_id_token_says_counts_more_than_the_userinfo(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, tenant_claim="org", login_userinfo=True)
    issuer.userinfo = {"sub": "ada", "org": "acme", "roles": ["erp-admin"]}
    async with browser(site) as client:
        assert (await returned(client, issuer, await begun(client), roles=["erp-user"])).status_code == 303
        assert (await client.get("/me")).json()["roles"] == ["developer"]
        answer = await returned(client, issuer, await begun(client), org="globex", roles=None)
        assert answer.status_code == 403, "the ID token is of another tenant"
    async with browser(site) as client:
        assert (await returned(client, issuer, await begun(client), org="acme")).status_code == 303
    assert issuer.asked["/userinfo"] == 2, "nobody is asked about what is known"


@pytest.mark.parametrize(
    "userinfo",
    [
        pytest.param({"sub": "eve", "org": "acme", "roles": ["erp-admin"]}, id="of-somebody-else"),
        pytest.param({"org": "acme", "roles": ["erp-admin"]}, id="of-nobody"),
        pytest.param({"sub": "ada", "org": "globex", "roles": ["erp-admin"]}, id="another-tenant"),
        pytest.param({"sub": "ada"}, id="no-tenant"),
        pytest.param(None, id="refused"),
    ],
)
async def test_a_userinfo_that_does_not_fit_signs_nobody_in(
    site: Site, issuer: IssuerDouble, userinfo: dict[str, Any] | None
) -> None:
    await trust(site, issuer, tenant_claim="org", login_userinfo=True)
    issuer.userinfo = userinfo
    async with browser(site) as client:
        answer = await returned(client, issuer, await begun(client), roles=None)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
        assert (await client.get("/me")).status_code == 401
    assert await sessions_of_acme(site) == []


async def test_the_userinfo_is_not_asked_unless_it_is_configured(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, tenant_claim="org")
    issuer.userinfo = {"sub": "ada", "org": "acme"}
    async with browser(site) as client:
        assert (await returned(client, issuer, await begun(client))).status_code == 403
    assert issuer.asked["/userinfo"] == 0


async def test_an_issuer_without_userinfo_cannot_be_configured_to_be_asked(site: Site, issuer: IssuerDouble) -> None:
    issuer.metadata = {"userinfo_endpoint": None}
    async with site.client("admin") as admin:
        config = issuer.config(login_userinfo=True)
        answer = await admin.post("/providers/auth/oidc/configure", json={"connection": "staff", "config": config})
        assert (answer.status_code, answer.json()["code"]) == (412, "failed_precondition"), answer.text
        assert "userinfo_endpoint" in answer.json()["detail"]
