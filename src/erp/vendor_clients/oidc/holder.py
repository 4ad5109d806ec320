"""Who holds a token of an issuer, in the words of the layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from erp.vendor_clients.oidc.failures import TokenRefusedError
from erp.vendor_clients.oidc.settings import IssuerSettings, claim

_OWN_SCOPE = re.compile(r"(providers|services|admin|\*):[a-z0-9_*/.-]{1,200}:[a-z_*]{1,64}")
MOST_NAMES = 1000


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What a valid token says."""

    subject: str
    roles: list[str]
    scopes: list[str]
    expires_at: float
    """Seconds since 1970, with the clock skew that is allowed."""
    audience: list[str]
    claims: dict[str, Any]

    def __repr__(self) -> str:
        return f"Holder(subject={self.subject!r}, roles={self.roles}, scopes={self.scopes})"


def holder_of(claims: dict[str, Any], settings: IssuerSettings, tenant: str, expires_at: float) -> Holder:
    """Return who holds a token whose claims were verified.

    Raises:
        TokenRefusedError: it belongs to another tenant, or has no scope where scopes are needed.
    """
    if settings.tenant_claim and claim(claims, settings.tenant_claim) != (settings.tenant_value or tenant):
        raise TokenRefusedError("It belongs to another tenant.")
    scopes = _scopes(claims, settings)
    if settings.narrow_by_scopes and not scopes:
        raise TokenRefusedError("It has no scope that is known here.")
    audience = claims.get("aud")
    return Holder(
        subject=claims["sub"],
        roles=_roles(claims, settings),
        scopes=scopes if settings.narrow_by_scopes else [],
        expires_at=expires_at,
        audience=[str(one) for one in (audience if isinstance(audience, list) else [audience])],
        claims=claims,
    )


def _roles(claims: Mapping[str, Any], settings: IssuerSettings) -> list[str]:
    """Only what the tenant has mapped: a role of the issuer is none of the layer by having its name."""
    named = _names(claim(claims, settings.roles_claim))
    return sorted({settings.role_map[name] for name in named if name in settings.role_map} | {*settings.default_roles})


def _scopes(claims: Mapping[str, Any], settings: IssuerSettings) -> list[str]:
    found: set[str] = set()
    for name in _names(claim(claims, settings.scopes_claim)):
        found.update(settings.scope_map.get(name, [name] if _OWN_SCOPE.fullmatch(name) else []))
    return sorted(found)


def _names(value: Any) -> list[str]:
    listed = value.split() if isinstance(value, str) else value
    return [one for one in listed if isinstance(one, str)][:MOST_NAMES] if isinstance(listed, list) else []
