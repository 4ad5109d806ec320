"""Where sessions come from: an issuer of OpenID Connect or an identity provider of SAML, and as it was configured then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from erp.control_plane.saml import SamlProviders
    from erp.security.trust import Trust

SAML_PREFIX = "saml."
"""Before the name of a SAML provider; no name of a connection has a dot."""


class Source(Protocol):
    """One tenant's trust in one who signs people in."""

    @property
    def tenant(self) -> str:
        """Whose trust it is."""

    @property
    def name(self) -> str:
        """Of the connection, or ``saml.`` and the name of the provider."""

    @property
    def revision(self) -> str:
        """Changes with its configuration."""


class SamlSource(msgspec.Struct, frozen=True, kw_only=True):
    """A SAML provider as a source."""

    tenant: str
    name: str
    revision: str


class SignInSources:
    """All of them."""

    def __init__(self, trust: Trust, providers: SamlProviders) -> None:
        self._trust = trust
        self._providers = providers

    async def named(self, tenant: str, name: str) -> Source | None:
        """Return a source as it is configured now, if it is."""
        if not name.startswith(SAML_PREFIX):
            return await self._trust.named(tenant, name)
        found = await self._providers.find(tenant, name.removeprefix(SAML_PREFIX))
        return None if found is None else SamlSource(tenant=tenant, name=name, revision=found.revision)
