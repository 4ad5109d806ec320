"""Tokens of the platform: what is refused, each by its own test, and what a token can do at the gateway."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey
from tests.conftest import NewDataDir

from erp.errors import ProviderError
from erp.main import Layer, Settings, running
from erp.security.tokens import GATEWAY, SIGNING_KEYS, Tokens, is_own

pytestmark = pytest.mark.anyio


@pytest.fixture
async def layer(new_data_dir: NewDataDir) -> AsyncIterator[Layer]:
    async with running(Settings(data_dir=new_data_dir(), database_url=None, log_level="error")) as made:
        for tenant in ("acme", "globex"):
            await made.control.tenants.create(tenant)
        yield made


@pytest.fixture
async def key(layer: Layer) -> str:
    _, text = await layer.control.api_keys.create("acme", role="developer")
    return text


@pytest.fixture
async def token(layer: Layer, key: str) -> str:
    return (await layer.identity.exchange("acme", key)).token


async def is_taken(layer: Layer, credential: str) -> bool:
    """Whether the gateway takes a credential, and ``introspect`` says the same."""
    found = await layer.identity.introspect(credential)
    if found.active:
        assert await layer.identity.authenticate(credential) == found.actor
        return True
    with pytest.raises(ProviderError) as refused:
        await layer.identity.authenticate(credential)
    assert (refused.value.code, refused.value.message) == ("unauthenticated", "The credential is not valid.")
    return False


async def status(layer: Layer, credential: str, path: str = "/providers/cache/memory/get") -> int:
    transport = httpx2.ASGITransport(app=layer.application())
    headers = {"authorization": f"Bearer {credential}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://layer.test", headers=headers) as client:
        return (await client.post(path, json={"params": {"key": "k"}})).status_code


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    head, body, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (head, body))


async def resigned(layer: Layer, token: str, *, signed_by: str = "acme", header: Any = None, **changes: Any) -> str:
    """The token with other claims, signed with a real key of the platform."""
    original, claims = parts(token)
    signer = OKPKey.import_key(json.loads(await layer.vault.get(signed_by, SIGNING_KEYS)))
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode({**original, **(header or {})}, claims, signer, algorithms=["Ed25519"])


async def test_a_token_opens_the_gateway_as_the_key_it_comes_from(layer: Layer, key: str, token: str) -> None:
    assert await layer.identity.authenticate(token) == await layer.identity.authenticate(key)
    assert await status(layer, token) == 200
    header, claims = parts(token)
    assert (header["alg"], header["typ"], header["kid"]) == ("Ed25519", "at+jwt", "acme.1")
    assert (claims["iss"], claims["aud"], claims["tenant"]) == ("urn:erp:platform", GATEWAY, "acme")
    assert 0 < claims["exp"] - claims["iat"] <= 900


async def test_tokens_of_the_platform_are_known_by_how_they_begin(token: str) -> None:
    assert is_own(token)
    assert not is_own(token.replace("eyJ0", "eyJ1", 1))


async def test_a_narrowed_token_can_do_what_its_scopes_say_and_no_more(layer: Layer, key: str) -> None:
    narrow = (await layer.identity.exchange("acme", key, scopes=["providers:cache/*:read"])).token
    assert await status(layer, narrow) == 200
    assert await status(layer, narrow, "/providers/cache/memory/delete") == 403


async def test_an_exchange_never_widens(layer: Layer) -> None:
    _, narrow = await layer.control.api_keys.create("acme", role="developer", scopes=["providers:cache/*:read"])
    for scopes in (["providers:*:*"], ["providers:cache/*:read", "services:order:*"]):
        with pytest.raises(ProviderError) as refused:
            await layer.identity.exchange("acme", narrow, scopes=scopes)
        assert refused.value.code == "permission_denied"
    kept = await layer.identity.exchange("acme", narrow)
    assert kept.scopes == ["providers:cache/*:read"]


async def test_an_exchanged_token_ends_no_later_than_what_it_comes_from(layer: Layer, token: str) -> None:
    first = parts(token)[1]
    second = parts((await layer.identity.exchange("acme", token)).token)[1]
    assert second["exp"] <= first["exp"]
    assert second["client_id"] == first["client_id"]


async def test_who_acts_for_another_is_named(layer: Layer, key: str) -> None:
    acting, text = await layer.control.api_keys.create("acme", role="operator")
    made = await layer.identity.exchange("acme", key, actor_token=text)
    assert parts(made.token)[1]["act"] == {"sub": f"key_{acting.id}"}
    assert parts(made.token)[1]["roles"] == ["developer"]


async def test_a_token_for_somebody_else_opens_nothing_here_and_cannot_be_exchanged(layer: Layer, key: str) -> None:
    foreign = (await layer.identity.exchange("acme", key, audience="https://warehouse.example")).token
    with pytest.raises(ProviderError):
        await layer.identity.authenticate(foreign)
    assert (await layer.identity.introspect(foreign)).audience == "https://warehouse.example"
    with pytest.raises(ProviderError) as refused:
        await layer.identity.exchange("acme", foreign)
    assert refused.value.code == "invalid_argument"


async def test_a_token_dies_with_its_key(layer: Layer, token: str) -> None:
    assert await is_taken(layer, token)
    client = parts(token)[1]["client_id"].removeprefix("key_")
    await layer.control.api_keys.revoke("acme", client)
    assert not await is_taken(layer, token)


async def test_a_token_dies_with_its_tenant(layer: Layer, token: str) -> None:
    await layer.control.tenants.delete("acme")
    layer.identity.forget_all()
    assert not await is_taken(layer, token)


async def test_an_unsigned_token_is_refused(layer: Layer, token: str) -> None:
    _, claims = parts(token)
    header = {"alg": "none", "typ": "at+jwt", "kid": "acme.1"}
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    for signature in ("", "AA"):
        assert not await is_taken(layer, ".".join([*encoded, signature]))


async def test_the_public_key_used_as_a_shared_secret_signs_nothing(layer: Layer, token: str) -> None:
    public = OKPKey.import_key(json.loads(await layer.vault.get("acme", SIGNING_KEYS)))
    secret = OctKey.import_key(public.as_dict(private=False)["x"])
    _, claims = parts(token)
    forged = jwt.encode({"alg": "HS256", "typ": "at+jwt", "kid": "acme.1"}, claims, secret, algorithms=["HS256"])
    assert not await is_taken(layer, forged)


async def test_a_key_of_another_signs_nothing(layer: Layer, token: str) -> None:
    _, claims = parts(token)
    foreign = OKPKey.generate_key("Ed25519")
    header = {"alg": "Ed25519", "typ": "at+jwt", "kid": "acme.1", "jwk": foreign.as_dict(private=False)}
    assert not await is_taken(layer, jwt.encode(header, claims, foreign, algorithms=["Ed25519"]))


async def test_one_tenants_key_signs_for_no_other(layer: Layer, token: str) -> None:
    _, globex = await layer.control.api_keys.create("globex", role="admin")
    await layer.identity.exchange("globex", globex)
    forged = await resigned(layer, token, signed_by="globex", header={"kid": "globex.1"})
    assert not await is_taken(layer, forged)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "https://elsewhere.example"},
        {"tenant": "globex"},
        {"exp": 1_000_000_000},
        {"iat": 9_999_999_000, "exp": 9_999_999_500},
        {"exp": 9_999_999_999},
        {"roles": ["admin"]},
        {"client_id": "key_000000000000"},
        {"exp": None},
        {"tenant": None},
        {"sub": 7},
    ],
    ids=lambda changes: "-".join(f"{name}={value}" for name, value in changes.items()),
)
async def test_claims_that_cannot_be_true_are_refused(layer: Layer, token: str, changes: dict[str, Any]) -> None:
    assert await is_taken(layer, await resigned(layer, token))
    forged = await resigned(layer, token, **changes)
    with pytest.raises(ProviderError) as refused:
        await layer.identity.authenticate(forged)
    assert refused.value.code == "unauthenticated"


@pytest.mark.parametrize(
    "header", [{"typ": "JWT"}, {"kid": "acme.2"}, {"kid": "../acme.1"}, {"kid": "no-such-tenant.1"}]
)
async def test_headers_that_cannot_be_ours_are_refused(layer: Layer, token: str, header: dict[str, str]) -> None:
    assert not await is_taken(layer, await resigned(layer, token, header=header))


async def test_a_changed_token_is_refused(layer: Layer, token: str) -> None:
    head, body, signature = token.split(".")
    swapped = "B" if signature[5] == "A" else "A"
    for changed in (
        f"{head}.{body[:-1]}.{signature}",
        f"{head}.{body}.{signature[:5]}{swapped}{signature[6:]}",
        "a.b.c",
    ):
        assert not await is_taken(layer, changed)
    assert await is_taken(layer, token)


async def test_tokens_of_an_earlier_signing_key_stay_good(layer: Layer, key: str, token: str) -> None:
    assert await layer.tokens.rotate("acme") == "acme.2"
    newer = (await layer.identity.exchange("acme", key)).token
    assert parts(newer)[0]["kid"] == "acme.2"
    assert await is_taken(layer, token)
    assert await is_taken(layer, newer)


async def test_a_token_is_good_until_its_time_and_not_after(layer: Layer) -> None:
    now = time.time()
    clock = [now]
    tokens = Tokens(layer.vault, clock=lambda: clock[0])
    facts: dict[str, Any] = {"subject": "key_a", "client_id": "key_a", "roles": ["developer"], "scopes": []}
    text, claims = await tokens.issue("acme", **facts, audience=GATEWAY, seconds=60)
    assert claims.exp == int(now) + 60
    clock[0] = claims.exp - 0.001
    assert await tokens.check(text) == claims
    clock[0] = claims.exp
    assert await tokens.check(text) is None
    clock[0] = claims.iat - 31
    assert await tokens.check(text) is None


async def test_no_repr_shows_a_token(layer: Layer, key: str) -> None:
    issued = await layer.identity.exchange("acme", key)
    assert issued.token not in repr(issued)


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("get", ("provider", "cache/memory"), True),
        ("set", ("provider", "cache/memory"), False),
        ("get", ("provider", "db/sqlite"), False),
        ("list", ("administration", "keys"), False),
        ("submit", ("service", "order"), False),
        ("no_such_action", ("provider", "cache/memory"), False),
        ("get", ("planet", "mars"), False),
    ],
)
async def test_a_decision_is_the_one_the_gateway_would_make(
    layer: Layer, action: str, resource: tuple[str, str], *, allowed: bool
) -> None:
    made, _ = await layer.control.api_keys.create("acme", role="developer", scopes=["providers:cache/*:read"])
    decision = await layer.identity.evaluate("acme", ("key", f"key_{made.id}"), action, resource)
    assert decision.allow is allowed, decision.reason
    foreign = await layer.identity.evaluate("globex", ("key", f"key_{made.id}"), action, resource)
    assert foreign.allow is False
