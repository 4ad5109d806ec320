"""auth/oidc on a double: keys that change, issuers that contradict themselves, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from tests.support.issuer_double import IssuerDouble, issuer_double

from erp.contracts.models.auth import ExchangeRequest, IntrospectRequest, VerifyRequest
from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.providers.auth.oidc.provider import OidcIssuer
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.spi import OpenContext
from erp.vendor_clients.oidc.failures import IssuerMisconfiguredError
from erp.vendor_clients.oidc.keys import fitting, read_keys
from erp.vendor_clients.oidc.refreshed import INTERVAL_SECONDS
from erp.vendor_clients.oidc.settings import IssuerSettings

if TYPE_CHECKING:
    from tests.conftest import MakeCallContext

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _loopback_is_allowed_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERP_EGRESS_ALLOW", "127.0.0.1/32")


@pytest.fixture
def issuer() -> Iterator[IssuerDouble]:
    with issuer_double() as double:
        yield double


@pytest.fixture
async def provider(issuer: IssuerDouble, open_context: OpenContext) -> AsyncIterator[OidcIssuer]:
    opened = OidcIssuer(issuer.config(), open_context)
    await opened.open()
    yield opened
    await opened.close()


async def verified(provider: OidcIssuer, token: str, call_context: MakeCallContext) -> bool:
    return (await provider.verify(VerifyRequest(credential=token), call_context())).active


def later(provider: OidcIssuer, seconds: float) -> None:
    """Let time pass for the keys of the issuer."""
    provider._issuer.keys._fetched_at -= seconds


async def test_twenty_cold_verifications_read_the_keys_once(
    issuer: IssuerDouble, provider: OidcIssuer, call_context: MakeCallContext
) -> None:
    assert all(await asyncio.gather(*(verified(provider, issuer.token(), call_context) for _ in range(20))))
    assert issuer.asked["/jwks"] == 1


async def test_a_new_key_is_found_after_the_interval_and_an_old_one_is_forgotten(
    issuer: IssuerDouble, provider: OidcIssuer, call_context: MakeCallContext
) -> None:
    before = issuer.token()
    issuer.keys[:] = [RSAKey.generate_key(2048, {"kid": "second"})]
    rotated = issuer.token(header={"kid": "second"})
    assert not await verified(provider, rotated, call_context)
    assert issuer.asked["/jwks"] == 1

    later(provider, INTERVAL_SECONDS)

    assert await verified(provider, rotated, call_context)
    assert not await verified(provider, before, call_context)
    assert issuer.asked["/jwks"] == 2


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ECKey.generate_key("P-256", {"kid": "k"}), "ES256"),
        (OKPKey.generate_key("Ed25519", {"kid": "k"}), "Ed25519"),
        (RSAKey.generate_key(2048, {"kid": "k"}), "PS256"),
    ],
)
async def test_keys_of_all_kinds_verify(
    issuer: IssuerDouble, open_context: OpenContext, call_context: MakeCallContext, key: Any, algorithm: str
) -> None:
    issuer.keys[:] = [key]
    provider = OidcIssuer(issuer.config(), open_context)
    await provider.open()
    try:
        for kid in ("k", None):
            assert await verified(provider, issuer.token(header={"alg": algorithm, "kid": kid}), call_context)
    finally:
        await provider.close()


def test_weak_secret_and_foreign_keys_are_left_out_and_the_others_stay() -> None:
    good = RSAKey.generate_key(2048, {"kid": "good"})
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    secret = OctKey.generate_key(256, {"kid": "secret"})
    listed = [
        *(key.as_dict(private=False) for key in (weak, good)),
        secret.as_dict(),
        {"kty": "XYZ", "kid": "foreign"},
        {"kty": "RSA", "n": "!", "e": 5},
        {**good.as_dict(private=False), "kid": "encryption", "use": "enc"},
        "no key",
    ]

    found = read_keys({"keys": listed})

    assert [kid for kid, _, _ in found] == ["good"]
    assert fitting(found, "good", "RS256") is not None
    assert fitting(found, None, "RS256") is not None
    assert fitting(found, "good", "ES256") is None
    assert fitting(found, "weak", "RS256") is None
    assert read_keys({"keys": 5}) == read_keys({}) == []


async def test_an_issuer_that_calls_itself_otherwise_is_refused(
    issuer: IssuerDouble, open_context: OpenContext
) -> None:
    issuer.metadata["issuer"] = f"{issuer.issuer}/"

    with pytest.raises(IssuerMisconfiguredError, match="names another issuer"):
        await OidcIssuer(issuer.config(), open_context).open()

    assert OidcIssuer.translate[IssuerMisconfiguredError] is ErrorCode.FAILED_PRECONDITION


async def test_introspection_says_what_the_issuer_says_and_nothing_of_the_inactive(
    issuer: IssuerDouble, provider: OidcIssuer, call_context: MakeCallContext
) -> None:
    issuer.opaque["o-1"] = {"active": True, **issuer.claims(roles=["erp-admin", "other"])}
    issuer.opaque["o-2"] = {"active": True, **issuer.claims(aud="elsewhere")}

    found = await provider.introspect(IntrospectRequest(token="o-1"), call_context())

    assert (found.active, found.subject.id, found.subject.roles, found.issuer) == (
        True,
        "ada",
        ["admin"],
        issuer.issuer,
    )
    for token in ("o-2", "o-3"):
        answer = await provider.introspect(IntrospectRequest(token=token), call_context())
        assert msgspec.to_builtins(answer) == {"active": False}
    assert all("client_secret" not in form for form in issuer.forms), "the secret is in the header alone"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("invalid_client", ErrorCode.UNAUTHENTICATED),
        ("invalid_scope", ErrorCode.PERMISSION_DENIED),
        ("invalid_target", ErrorCode.INVALID_ARGUMENT),
        ("unsupported_grant_type", ErrorCode.UNSUPPORTED),
        ("never heard of", ErrorCode.FAILED_PRECONDITION),
    ],
)
async def test_what_an_exchange_is_refused_with(
    issuer: IssuerDouble,
    provider: OidcIssuer,
    call_context: MakeCallContext,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    code: ErrorCode,
) -> None:
    monkeypatch.setattr(issuer, "_redeemed", lambda _: (400, {"error": error}))

    with pytest.raises(ProviderError) as refused:
        await provider.exchange(ExchangeRequest(subject_token=issuer.token()), call_context())

    assert refused.value.code is code


def test_the_settings_have_the_defaults_of_the_manifest() -> None:
    manifest = ProviderCatalog.load().provider("auth", "oidc")
    settings = msgspec.json.decode(msgspec.json.encode(IssuerSettings(issuer="i", audience="a")))

    assert {name: settings[name] for name in manifest.defaults} == manifest.defaults
    assert set(settings) == set(manifest.config["properties"])
