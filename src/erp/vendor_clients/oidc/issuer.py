"""One issuer as one tenant trusts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from erp.vendor_clients.guarded_http import GuardedHttp
from erp.vendor_clients.oidc.failures import (
    IssuerMisconfiguredError,
    IssuerRefusedError,
    IssuerUnavailableError,
    TokenRefusedError,
)
from erp.vendor_clients.oidc.holder import Holder, holder_of
from erp.vendor_clients.oidc.keys import Keys, read_keys
from erp.vendor_clients.oidc.refreshed import Refreshed
from erp.vendor_clients.oidc.settings import IssuerSettings
from erp.vendor_clients.oidc.tokens import MAX_TOKEN_BYTES, check_claims, looks_signed, signed_claims
from erp.vendor_clients.oidc.wire import Wire

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  (a name, RFC 8693 section 3)
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What an issuer says of itself (OpenID Connect Discovery 1.0; RFC 8414)."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    userinfo_endpoint: str = ""
    introspection_endpoint: str = ""
    revocation_endpoint: str = ""
    end_session_endpoint: str = ""
    authorization_response_iss_parameter_supported: bool = False


class Issuer:
    """Verifies, introspects, exchanges and revokes tokens of one issuer for one tenant."""

    def __init__(self, settings: IssuerSettings, http: GuardedHttp, tenant: str) -> None:
        self.settings = settings
        self.tenant = tenant
        self._http = http
        self.wire = Wire(http, settings)
        self.metadata: Refreshed[Metadata] = Refreshed(self._discover)
        self.keys: Refreshed[Keys] = Refreshed(self._read_keys)

    async def verify(self, token: str, audience: str | None = None) -> Holder:
        """Return who holds a signed access token.

        Raises:
            TokenRefusedError: it is not valid in this tenant or for this audience.
            IssuerUnavailableError, IssuerMisconfiguredError: it cannot be known.
        """
        claims = await signed_claims(token, self.keys, self.settings, self.settings.token_types)
        ends = check_claims(claims, self.settings, audience or self.settings.audience)
        return holder_of(claims, self.settings, self.tenant, ends)

    async def introspect(self, token: str, audience: str | None = None) -> Holder:
        """Return who holds an opaque token, as its issuer says now (RFC 7662).

        Raises:
            TokenRefusedError: it is not active, or not valid in this tenant or for this audience.
            IssuerUnavailableError, IssuerRefusedError, IssuerMisconfiguredError: it cannot be known.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenRefusedError("It is too long.")
        url = await self._endpoint("introspection_endpoint")
        try:
            claims = await self.wire.post(url, {"token": token, "token_type_hint": "access_token"})
        except IssuerRefusedError as error:
            if error.error != "unsupported_token_type":
                raise
            raise TokenRefusedError("The issuer does not introspect tokens of this form.") from error
        if claims.pop("active", None) is not True:
            raise TokenRefusedError("The issuer says that it is not active.")
        # The issuer was asked by us: an answer without iss is its own (RFC 7662, section 2.2: optional).
        claims.setdefault("iss", self.settings.issuer)
        if "sub" not in claims and "client_id" in claims:  # a client's own token (RFC 9068, section 2.2)
            claims["sub"] = claims["client_id"]
        ends = check_claims(claims, self.settings, audience or self.settings.audience)
        return holder_of(claims, self.settings, self.tenant, ends)

    async def holder(self, token: str, audience: str | None = None) -> Holder:
        """Return who holds a token of either kind."""
        if looks_signed(token):
            return await self.verify(token, audience)
        if not self.settings.opaque_tokens:
            raise TokenRefusedError("It is no signed token.")
        return await self.introspect(token, audience)

    async def userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        """Return what the issuer says of a person who has just signed in (OpenID Connect Core 1.0, section 5.3).

        Raises:
            TokenRefusedError: it speaks of somebody else (section 5.3.4).
            IssuerRefusedError, IssuerUnavailableError, IssuerMisconfiguredError: it says nothing.
        """
        found = await self.wire.get(await self._endpoint("userinfo_endpoint"), bearer=access_token)
        if found.get("sub") != subject:
            raise TokenRefusedError("The userinfo is that of somebody else.")
        return found

    async def exchange(
        self,
        subject_token: str,
        *,
        subject_token_type: str = ACCESS_TOKEN,
        actor_token: str | None = None,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Return the issuer's answer to a token exchange (RFC 8693, section 2).

        Raises:
            IssuerRefusedError, IssuerUnavailableError, IssuerMisconfiguredError: no token was issued for us.
        """
        form = {
            "grant_type": EXCHANGE,
            "subject_token": subject_token,
            "subject_token_type": subject_token_type,
            "requested_token_type": ACCESS_TOKEN,
            "audience": audience or self.settings.audience,
        }
        if actor_token is not None:
            form |= {"actor_token": actor_token, "actor_token_type": ACCESS_TOKEN}
        if scopes:
            form["scope"] = " ".join(scopes)
        return await self.wire.post(await self._endpoint("token_endpoint"), form)

    async def revoke(self, token: str) -> bool:
        """Ask the issuer to revoke a token (RFC 7009); False when it has no endpoint for that.

        Raises:
            IssuerRefusedError, IssuerUnavailableError: it did not.
        """
        url = (await self.metadata.get()).revocation_endpoint
        if not url:
            return False
        await self.wire.post(url, {"token": token})
        return True

    async def _endpoint(self, name: str) -> str:
        found: str = getattr(await self.metadata.get(), name)
        if not found:
            raise IssuerMisconfiguredError(f"The issuer has no {name}.")
        return found

    async def _discover(self) -> Metadata:
        # A slash at the end goes first (OpenID Connect Discovery 1.0, section 4.1).
        url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        document = await self.wire.get(url)
        try:
            found = msgspec.convert({name: value for name, value in document.items() if value is not None}, Metadata)
        except msgspec.ValidationError as error:
            raise IssuerUnavailableError(f"{url} is malformed: {error}") from error
        if found.issuer != self.settings.issuer:
            raise IssuerMisconfiguredError(
                f"{url} names another issuer. Configure the one it names, character by character."
            )
        return found

    async def _read_keys(self) -> Keys:
        return read_keys(await self.wire.get((await self.metadata.get()).jwks_uri))

    async def aclose(self) -> None:
        """End what is under way and close all connections."""
        await self.metadata.aclose()
        await self.keys.aclose()
        await self._http.aclose()
