"""auth/oidc against a real OpenID Provider (npm oidc-provider)."""

from __future__ import annotations

from typing import Any

from tests.support.oidc_peer import OidcPeer

REF = "auth/oidc"
VARIABLE = "ERP_TEST_OIDC"


def config(address: str) -> dict[str, Any]:
    return OidcPeer.at(address).config(narrow_by_scopes=True)


def credentials(address: str) -> dict[str, str]:
    peer = OidcPeer.at(address)
    return {tenant: peer.token(f"{tenant}.developer") for tenant in ("alpha", "beta")}
