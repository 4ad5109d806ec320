"""How a tenant trusts one issuer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""Algorithms with a public key (RFC 7518, RFC 9864). None with a shared secret: a public key would become one."""


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a connection of ``auth/oidc``; its manifest describes each."""

    issuer: str
    audience: str
    client_id: str = ""
    client_secret: str = ""
    client_authentication: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    algorithms: tuple[str, ...] = ("RS256", "PS256", "ES256", "Ed25519")
    token_types: tuple[str, ...] = ("at+jwt",)
    clock_skew_seconds: float = 30.0
    required_claims: tuple[str, ...] = ()
    tenant_claim: str = ""
    tenant_value: str = ""
    roles_claim: str = "roles"
    role_map: dict[str, str] = {}
    default_roles: tuple[str, ...] = ()
    scopes_claim: str = "scope"
    scope_map: dict[str, list[str]] = {}
    narrow_by_scopes: bool = False
    opaque_tokens: bool = False
    login_scopes: tuple[str, ...] = ("openid",)
    login_userinfo: bool = False
    timeout_seconds: float = 10.0

    def __repr__(self) -> str:
        return f"IssuerSettings(issuer={self.issuer!r}, audience={self.audience!r})"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> IssuerSettings:
        """Read a configuration that its schema has already judged."""
        return msgspec.convert(dict(config), cls)


def top_level(name: str) -> str:
    """Return which member of the claims ``claim(..., name)`` looks into."""
    return name[1:].split("/", maxsplit=1)[0].replace("~1", "/").replace("~0", "~") if name.startswith("/") else name


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or by a JSON Pointer (RFC 6901) when ``name`` begins with a slash; None: absent."""
    if not name.startswith("/"):
        return claims.get(name)
    found: Any = claims
    for part in name[1:].split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found
