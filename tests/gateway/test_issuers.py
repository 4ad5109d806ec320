"""Tokens of issuers at the gateway: what is taken, and that every attack changes nothing."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import RSAKey
from tests.gateway.conftest import Site
from tests.support.contract_client import contract_client
from tests.support.issuer_double import AUDIENCE, IssuerDouble, issuer_double

pytestmark = pytest.mark.anyio

SET = "/providers/cache/memory/set"
OIDC = "/providers/auth/oidc/configure"


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def issuer() -> Iterator[IssuerDouble]:
    with issuer_double() as double:
        yield double


async def trust(site: Site, issuer: IssuerDouble, *, role: str = "admin", name: str = "staff", **more: Any) -> None:
    async with site.client(role) as client:
        body = {"connection": name, "config": issuer.config(**more)}
        answer = await client.post(OIDC, json=body)
        assert answer.status_code == 200, answer.text


async def other_tenant(site: Site, issuer: IssuerDouble, **more: Any) -> None:
    """Globex trusts the issuer too."""
    await site.layer.control.tenants.create("globex", name="Globex")
    _, site.keys["globex"] = await site.layer.control.api_keys.create("globex", role="admin")
    await trust(site, issuer, role="globex", **more)


async def write(site: Site, token: str, **headers: str) -> httpx2.Response:
    body = {"params": {"key": "k", "value": "written by a token"}}
    async with contract_client(site.layer.application(), token) as client:
        return await client.post(
            SET, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )


async def stored(site: Site, role: str = "developer") -> Any:
    async with site.client(role) as client:
        return (await client.post("/providers/cache/memory/get", json={"params": {"key": "k"}})).json()["data"]


async def refused(site: Site, token: str, **headers: str) -> httpx2.Response:
    """Require that a token is refused, always with the same words, and that nothing has changed."""
    answer = await write(site, token, **headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), answer.text
    assert answer.json()["detail"] == "The credential is not valid."
    assert await stored(site) == {"found": False}
    return answer


# -- what is taken ---------------------------------------------------------------------------------


async def test_a_token_of_a_trusted_issuer_is_a_user_of_the_tenant(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    token = issuer.token()

    assert (await write(site, token)).status_code == 200
    assert (await stored(site))["value"] == "written by a token"
    async with contract_client(site.layer.application(), token) as client:
        assert (await client.get("/me")).json() == {
            "id": "user:staff:ada",
            "tenant": "acme",
            "kind": "user",
            "roles": ["developer"],
            "scopes": [],
        }
    async with site.client("admin") as admin:
        items = (await admin.get("/audit")).json()["items"]
    assert [item["actor"] for item in items if item["action"] == "cache.set"] == ["user:staff:ada"]


async def test_a_role_that_is_not_mapped_gives_nothing(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)

    answer = await write(site, issuer.token(roles=["admin", "developer"]))

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    assert await stored(site) == {"found": False}


async def test_scopes_narrow_a_token(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, narrow_by_scopes=True, scope_map={"erp.read": ["providers:*:read"]})

    answer = await write(site, issuer.token(scope="erp.read email"))

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    await refused(site, issuer.token(scope="email"))
    assert (await write(site, issuer.token(scope="providers:cache/*:write"))).status_code == 200


async def test_of_several_issuers_each_has_its_own_users(site: Site, issuer: IssuerDouble) -> None:
    with issuer_double() as second:
        await trust(site, issuer)
        await trust(site, second, name="partners", roles_claim="/realm_access/roles")
        for token, name in (
            (issuer.token(), "user:staff:ada"),
            (second.token(realm_access={"roles": ["erp-user"]}), "user:partners:ada"),
        ):
            async with contract_client(site.layer.application(), token) as client:
                assert (await client.get("/me")).json()["id"] == name


async def test_an_issuer_that_is_no_longer_trusted_lets_nobody_in(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    token = issuer.token()
    assert (await write(site, token)).status_code == 200

    async with site.client("admin") as admin:
        assert (await admin.delete(OIDC, params={"connection": "staff"})).status_code == 204

    assert (await write(site, token)).status_code == 401


async def test_only_administrators_decide_whom_the_tenant_trusts(site: Site, issuer: IssuerDouble) -> None:
    async with site.client("operator") as operator:
        answer = await operator.post(
            OIDC, json={"connection": "mine", "config": issuer.config(default_roles=["admin"])}
        )

    assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    await refused(site, issuer.token())


async def test_an_opaque_token_is_introspected_in_the_tenant_that_is_named(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, opaque_tokens=True)
    issuer.opaque["opaque-1"] = {"active": True, **issuer.claims()}

    await refused(site, "opaque-1")
    for _ in range(2):  # the first look may come before the layer has seen its own change of the configuration settle
        assert (await write(site, "opaque-1", x_tenant_id="acme")).status_code == 200
    asked = issuer.asked["/introspection"]
    assert (await write(site, "opaque-1", x_tenant_id="acme")).status_code == 200
    assert issuer.asked["/introspection"] == asked, "the answer was not remembered"
    assert (await write(site, "opaque-2", x_tenant_id="acme")).status_code == 401


async def test_a_revoked_token_is_refused_at_once_and_its_issuer_is_told(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    token = issuer.token()
    assert (await write(site, token)).status_code == 200

    async with site.client("developer") as client:
        answer = await client.post("/auth/revoke", json={"token": token})

    assert (answer.status_code, answer.json()) == (200, {"issuer_told": True})
    assert (await write(site, token)).status_code == 401
    # The last character of the signature has bits that decoding ignores: the same token, written otherwise.
    assert (await write(site, token[:-1] + chr(ord(token[-1]) + 1))).status_code == 401
    assert issuer.asked["/revocation"] == 1


# -- attacks ---------------------------------------------------------------------------------------


async def test_a_forged_token_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)

    await refused(site, issuer.token(RSAKey.generate_key(2048, {"kid": "first"})))


async def test_a_changed_token_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    head, _, signature = issuer.token().split(".")
    _, payload, _ = issuer.token(roles=["erp-admin"]).split(".")

    await refused(site, f"{head}.{payload}.{signature}")


async def test_an_expired_token_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)

    await refused(site, issuer.token(exp=int(time.time()) - 31))


async def test_a_token_that_is_not_yet_valid_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)

    await refused(site, issuer.token(nbf=int(time.time()) + 60))
    await refused(site, issuer.token(iat=int(time.time()) + 60))


@pytest.mark.parametrize("exp", [True, "tomorrow", 1e300, None])
async def test_a_token_without_a_sound_end_is_refused(site: Site, issuer: IssuerDouble, exp: Any) -> None:
    await trust(site, issuer)

    await refused(site, issuer.token(exp=exp))


def encoded(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


async def test_an_unsigned_token_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    for alg in ("none", "None", "nOnE"):
        parts = f"{encoded({'alg': alg, 'typ': 'at+jwt'})}.{encoded(issuer.claims())}"
        await refused(site, f"{parts}.")
        await refused(site, f"{parts}.AAAA")


async def test_the_public_key_is_no_shared_secret(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    public = issuer.keys[0]
    signed = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': 'first'})}.{encoded(issuer.claims())}"
    for secret in (public.as_pem(private=False), json.dumps(public.as_dict(private=False)).encode()):
        signature = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), "sha256")).rstrip(b"=").decode()
        await refused(site, f"{signed}.{signature}")


async def test_a_key_that_the_token_brings_along_counts_for_nothing(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    mine = RSAKey.generate_key(2048, {"kid": "mine"})
    header = {"kid": "mine", "jwk": mine.as_dict(private=False), "jku": "https://attacker.example/keys"}

    await refused(site, issuer.token(mine, header))


async def test_an_unknown_critical_extension_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    header = encoded({"alg": "RS256", "typ": "at+jwt", "kid": "first", "crit": ["exp"], "exp": 1})
    signing_input = f"{header}.{encoded(issuer.claims())}"
    model = jws.JWSRegistry.algorithms["RS256"]
    signature = base64.urlsafe_b64encode(model.sign(signing_input.encode(), issuer.keys[0])).rstrip(b"=").decode()

    await refused(site, f"{signing_input}.{signature}")


async def test_an_id_token_is_no_access_token(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)

    await refused(site, issuer.token(header={"typ": "JWT"}))
    await refused(site, issuer.token(header={"typ": None}))


async def test_a_token_for_another_audience_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)

    await refused(site, issuer.token(aud="https://elsewhere.example"))
    await refused(site, issuer.token(aud=[f"{AUDIENCE}/"]))
    await refused(site, issuer.token(aud=None))


async def test_a_token_of_another_issuer_is_refused(site: Site, issuer: IssuerDouble) -> None:
    with issuer_double() as stranger:
        await trust(site, issuer)

        await refused(site, stranger.token())
        await refused(site, stranger.token(iss=issuer.issuer))
        await refused(site, issuer.token(iss=stranger.issuer))
        assert stranger.asked.total() == 0, "an issuer that nobody trusts was asked"


async def test_a_token_of_another_tenant_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, tenant_claim="org")
    await other_tenant(site, issuer, tenant_claim="org")

    await refused(site, issuer.token(org="initech"))
    await refused(site, issuer.token())
    await refused(site, issuer.token(org="globex"), x_tenant_id="acme")
    assert (await write(site, issuer.token(org="globex"))).status_code == 200
    assert await stored(site) == {"found": False}
    assert (await stored(site, "globex"))["found"]


async def test_a_token_that_two_tenants_trust_is_good_only_where_it_is_named(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    token = issuer.token()
    assert (await write(site, token, x_tenant_id="acme")).status_code == 200
    async with site.client("developer") as client:
        await client.post("/providers/cache/memory/delete", json={"params": {"key": "k"}})

    await other_tenant(site, issuer)

    await refused(site, token)
    assert (await write(site, token, x_tenant_id="globex")).status_code == 200
    assert await stored(site) == {"found": False}


async def test_a_token_without_a_required_claim_is_refused(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer, required_claims=["acr"])

    await refused(site, issuer.token())
    await refused(site, issuer.token(acr=""))
    await refused(site, issuer.token(sub=None, acr="2"))
    assert (await write(site, issuer.token(acr="2"))).status_code == 200


async def test_huge_tokens_are_refused_before_they_are_looked_at(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    asked = issuer.asked.total()

    await refused(site, issuer.token(filler="x" * 20_000))
    deep = base64.urlsafe_b64encode(b"[" * 12_000).decode().rstrip("=")
    await refused(site, f"{encoded({'alg': 'RS256', 'typ': 'at+jwt'})}.{deep[:12_000]}.AAAA")
    assert issuer.asked.total() == asked


async def test_a_flood_of_unknown_keys_asks_the_issuer_once_at_most(site: Site, issuer: IssuerDouble) -> None:
    await trust(site, issuer)
    assert (await write(site, issuer.token())).status_code == 200
    asked = issuer.asked["/jwks"]
    stranger = RSAKey.generate_key(2048)
    forged = [issuer.token(stranger, {"kid": f"forged-{number}"}) for number in range(50)]

    answers = await asyncio.gather(*(write(site, token) for token in forged))

    assert {answer.status_code for answer in answers} == {401}
    assert issuer.asked["/jwks"] <= asked + 1
    assert (await write(site, issuer.token(jti="after"))).status_code == 200


async def test_while_the_issuer_is_down_known_keys_serve_and_new_ones_are_a_matter_for_later(
    site: Site, issuer: IssuerDouble
) -> None:
    await trust(site, issuer)
    assert (await write(site, issuer.token())).status_code == 200
    issuer.down = True
    assert (await write(site, issuer.token(jti="another"))).status_code == 200

    with issuer_double() as second:
        await trust(site, second, name="partners")
        second.down = True
        answer = await write(site, second.token())
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
