"""The OpenID Provider of ``ERP_TEST_OIDC`` (``scripts/services.d/oidc``): its clients and accounts are named TENANT.ROLE."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

AUDIENCE = "https://erp.example"
OPAQUE_AUDIENCE = "https://opaque.erp.example"
CALLBACK = "http://erp.example/auth/callback"
PUBLIC_URL = "http://erp.example"


@dataclass(frozen=True)
class OidcPeer:
    """Where it is, and the one secret of all its clients."""

    issuer: str
    secret: str

    @classmethod
    def at(cls, address: str) -> OidcPeer:
        """Read ``http://gateway:SECRET@HOST:PORT``."""
        parts = urlsplit(address)
        return cls(f"{parts.scheme}://{parts.hostname}:{parts.port}", parts.password or "")

    def config(self, **more: Any) -> dict[str, Any]:
        """The configuration of a connection of ``auth/oidc``."""
        return {
            "issuer": self.issuer,
            "audience": AUDIENCE,
            "client_id": "gateway",
            "client_secret": self.secret,
            "tenant_claim": "tenant",
            "role_map": {"developer": "developer", "admin": "admin"},
            **more,
        }

    def offers(self, scope: str) -> bool:
        """Whether a scope may be asked for."""
        return scope in httpx2.get(f"{self.issuer}/.well-known/openid-configuration").json()["scopes_supported"]

    def token(self, client: str, *, scope: str = "providers:*:* services:*:*", resource: str = AUDIENCE) -> str:
        """An access token of a client, by client credentials."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
        answer = httpx2.post(f"{self.issuer}/token", data=form, auth=(client, self.secret))
        return str(answer.raise_for_status().json()["access_token"])

    def signed_in(self, browser: httpx2.Client, url: str, account: str) -> str:
        """Follow an authorization request as a person does; return where the provider sends the browser at the end."""
        answer = browser.get(url)
        for _ in range(12):
            if answer.is_redirect:
                target = str(answer.next_request.url if answer.next_request else "")
                if not target.startswith(self.issuer):
                    return target
                answer = browser.get(target)
                continue
            action = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
            assert action, answer.text[:500]
            hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)"', answer.text))
            answer = browser.post(html.unescape(action[1]), data={**hidden, "login": account, "password": "x"})
        raise AssertionError(f"the sign-in did not end: {answer.url}")
