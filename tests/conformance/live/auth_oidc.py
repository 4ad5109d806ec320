"""auth/oidc against a real OpenID Provider (npm oidc-provider)."""

from __future__ import annotations

import os
from typing import Any

from tests.support.oidc_peer import OidcPeer

REF = "auth/oidc"
VARIABLE = "ERP_TEST_OIDC"


def config(address: str) -> dict[str, Any]:
    peer = OidcPeer.at(address)
    # The operator lets the layer reach this port of this machine, and no other.
    allowed = os.environ.get("ERP_EGRESS_ALLOW", "")
    os.environ["ERP_EGRESS_ALLOW"] = ",".join(filter(None, (allowed, f"127.0.0.1/32:{peer.issuer.rpartition(':')[2]}")))
    return peer.config(narrow_by_scopes=True)


def credentials(address: str) -> dict[str, str]:
    peer = OidcPeer.at(address)
    return {tenant: peer.token(f"{tenant}.developer") for tenant in ("alpha", "beta")}
