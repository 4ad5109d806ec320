"""Signing a person in: authorization code with PKCE.

Sources: OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE); RFC 9207 (issuer in the answer); RFC 9700 (best
current practice); OpenID Connect RP-Initiated Logout 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from erp.vendor_clients.oidc.failures import IssuerMisconfiguredError, TokenRefusedError
from erp.vendor_clients.oidc.holder import Holder, holder_of
from erp.vendor_clients.oidc.issuer import Issuer
from erp.vendor_clients.oidc.settings import claim, top_level
from erp.vendor_clients.oidc.tokens import check_claims, signed_claims

ID_TOKEN_TYPES = ("JWT",)
SIGNED_ONLY = frozenset({"iss", "sub", "aud", "exp", "iat", "nbf", "azp", "nonce", "acr", "amr", "auth_time"})
"""What nothing but the ID token can say."""


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


async def authorization_url(issuer: Issuer, *, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
    """Return where the browser has to go.

    Raises:
        IssuerUnavailableError, IssuerMisconfiguredError: nobody can sign in there.
    """
    settings, metadata = issuer.settings, await issuer.metadata.get()
    if not settings.client_id or not metadata.authorization_endpoint:
        message = "Browser sign-in needs client_id, and an issuer with an authorization_endpoint."
        raise IssuerMisconfiguredError(message)
    query = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(dict.fromkeys(("openid", *settings.login_scopes))),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge(verifier),
        "code_challenge_method": "S256",
    }
    return _with_query(metadata.authorization_endpoint, query)


def challenge(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636, section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


async def check_stated_issuer(issuer: Issuer, stated: str | None) -> None:
    """Refuse an answer of another issuer (mix-up attack; RFC 9207, section 2.4).

    Raises:
        TokenRefusedError: it is one, or does not say though this issuer always does.
    """
    always = (await issuer.metadata.get()).authorization_response_iss_parameter_supported
    if stated is None and not always:
        return
    if stated != issuer.settings.issuer:
        raise TokenRefusedError("The answer is of another issuer.")


async def redeemed(issuer: Issuer, *, code: str, redirect_uri: str, verifier: str, nonce: str) -> Holder:
    """Redeem an authorization code; return who signed in.

    Raises:
        IssuerRefusedError: the code is not good (any more).
        TokenRefusedError: the ID token is not valid, or was made for another sign-in.
        IssuerUnavailableError, IssuerMisconfiguredError: it cannot be known.
    """
    endpoint = (await issuer.metadata.get()).token_endpoint
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    answer = await issuer.wire.post(endpoint, form)
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise TokenRefusedError("The issuer sent no ID token.")
    claims = await signed_claims(token, issuer.keys, issuer.settings, ID_TOKEN_TYPES)
    _check_id_token(claims, issuer.settings.client_id, nonce)
    ends = check_claims(claims, issuer.settings, issuer.settings.client_id)
    if issuer.settings.login_userinfo:
        claims = await _completed(issuer, claims, answer.get("access_token"))
    return holder_of(claims, issuer.settings, issuer.tenant, ends)


async def _completed(issuer: Issuer, claims: dict[str, Any], access_token: Any) -> dict[str, Any]:
    """Return the claims with those of tenant, roles and scopes that the ID token lacks as the userinfo has them.

    What the ID token says counts: it is signed. The userinfo comes over a connection to the issuer, and is not asked for
    when there is nothing that it could add.
    """
    settings = issuer.settings
    named = (settings.tenant_claim, settings.roles_claim, settings.scopes_claim if settings.narrow_by_scopes else "")
    lacking = {top_level(name) for name in named if name and claim(claims, name) is None} - SIGNED_ONLY
    if not lacking:
        return claims
    if not isinstance(access_token, str) or not access_token.isascii():
        raise TokenRefusedError("The issuer sent no access token to ask for the userinfo with.")
    found = await issuer.userinfo(access_token, claims["sub"])
    return claims | {name: found[name] for name in lacking if name in found}


def _check_id_token(claims: Mapping[str, Any], client_id: str, nonce: str) -> None:
    """Judge what only ID tokens have (OpenID Connect Core 1.0, section 3.1.3.7)."""
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise TokenRefusedError("The ID token was made for another sign-in.")
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != client_id:
        raise TokenRefusedError("The ID token was issued to another client.")
    if claims.get("azp", client_id) != client_id:
        raise TokenRefusedError("The ID token was issued to another client.")


async def logout_url(issuer: Issuer, *, back_to: str) -> str | None:
    """Return where the browser signs out of the issuer too; None when the issuer has no such place."""
    endpoint = (await issuer.metadata.get()).end_session_endpoint
    if not endpoint:
        return None
    return _with_query(endpoint, {"client_id": issuer.settings.client_id, "post_logout_redirect_uri": back_to})
