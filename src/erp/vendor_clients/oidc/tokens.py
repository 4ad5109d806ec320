"""Signed tokens: form, signature, and the claims that every one of them needs.

Sources: RFC 7519 (JWT), RFC 8725 (best current practices), RFC 9068 (access tokens), OpenID Connect Core 1.0.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from erp.vendor_clients.oidc.failures import TokenRefusedError
from erp.vendor_clients.oidc.keys import Keys, key_for
from erp.vendor_clients.oidc.refreshed import Refreshed
from erp.vendor_clients.oidc.settings import ASYMMETRIC, IssuerSettings

MAX_TOKEN_BYTES = 16_384
LATEST = 253_402_300_799
"""The last second of the year 9999."""
LONGEST_SUBJECT = 255
"""OpenID Connect Core 1.0, section 2."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]{1,4096}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


def looks_signed(token: str) -> bool:
    """Whether ``token`` has the form of a signed token and is not too long (RFC 7515, compact serialization)."""
    return len(token) <= MAX_TOKEN_BYTES and _COMPACT.match(token) is not None


def stated_issuer(token: str) -> str | None:
    """Return which issuer a token names. Nothing is verified yet: it says whom to ask, and no more."""
    import base64
    import binascii

    if not looks_signed(token):
        return None
    part = token.split(".")[1]
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, Any])
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else None


async def signed_claims(
    token: str, keys: Refreshed[Keys], settings: IssuerSettings, types: Sequence[str]
) -> dict[str, Any]:
    """Return the claims of a token whose signature is the issuer's; times, audience and subject are judged elsewhere.

    Raises:
        TokenRefusedError: malformed, of another type, with an algorithm that is not allowed, or not signed by the issuer.
        IssuerUnavailableError: the issuer's keys cannot be read.
    """
    from joserfc import jws
    from joserfc.errors import JoseError

    if not looks_signed(token):
        raise TokenRefusedError("It is no signed token.")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise TokenRefusedError("Its header is malformed.") from error
    algorithm, kid = _checked_header(header, settings, types)
    key = await key_for(keys, kid, algorithm)
    return _decoded(token, key, algorithm)


def _checked_header(
    header: Mapping[str, Any], settings: IssuerSettings, types: Sequence[str]
) -> tuple[str, str | None]:
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in settings.algorithms or algorithm not in ASYMMETRIC:
        raise TokenRefusedError("Its algorithm is not allowed.")
    if "crit" in header:
        raise TokenRefusedError("It needs an extension that is not known (RFC 7515, section 4.1.11).")
    if kid is not None and not isinstance(kid, str):
        raise TokenRefusedError("Its key id is malformed.")
    # A header parameter may leave out "application/" (RFC 7515, section 4.1.9).
    type_ = str(header.get("typ", "JWT")).lower().removeprefix("application/")
    if type_ not in {wanted.lower() for wanted in types}:
        raise TokenRefusedError("It is of another type.")
    return algorithm, kid


def _decoded(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    from joserfc import jws, jwt
    from joserfc.errors import JoseError, SecurityWarning

    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    registry.max_header_length, registry.max_payload_length = 4096, MAX_TOKEN_BYTES
    try:
        with warnings.catch_warnings():
            # Issuers still write EdDSA where RFC 9864 says Ed25519; the key's curve was checked.
            warnings.simplefilter("ignore", SecurityWarning)
            return jwt.decode(token, key, registry=registry).claims
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise TokenRefusedError("Its signature or content is not valid.") from error


def check_claims(
    claims: Mapping[str, Any], settings: IssuerSettings, audience: str, *, now: float | None = None
) -> float:
    """Judge issuer, audience, times and subject (RFC 9068, section 4); return when the token ends, in seconds since 1970.

    Raises:
        TokenRefusedError: one of them is wrong.
    """
    moment, skew = time.time() if now is None else now, settings.clock_skew_seconds
    if claims.get("iss") != settings.issuer:
        raise TokenRefusedError("It is of another issuer.")
    named = claims.get("aud")
    if audience not in (named if isinstance(named, list) else [named]):
        raise TokenRefusedError("It is meant for somebody else.")
    ends = _moment(claims, "exp")
    if ends is None or moment >= ends + skew:
        raise TokenRefusedError("It has expired, or does not say when it does.")
    for name in ("nbf", "iat"):
        begins = _moment(claims, name)
        if begins is not None and begins > moment + skew:
            raise TokenRefusedError("It is not yet valid.")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        raise TokenRefusedError("It names no subject.")
    missing = [name for name in settings.required_claims if claims.get(name) in (None, "", [])]
    if missing:
        raise TokenRefusedError(f"It lacks {', '.join(missing)}.")
    return ends + skew


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519, section 2)."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LATEST:
        raise TokenRefusedError(f"{name} is no time.")
    return float(value)
