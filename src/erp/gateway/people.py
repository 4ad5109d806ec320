"""Puts together what lets people and machines of tenants' issuers in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from erp.gateway.browser import BrowserCredentials, BrowserSessions, SignIns
from erp.gateway.saml import SamlRoutes
from erp.security.issuers import IssuerIdentity
from erp.security.pending_sign_in import SignInSeal
from erp.security.saml_keys import SamlKeys
from erp.security.sessions import Sessions, SessionSettings
from erp.security.sign_in_sources import SignInSources
from erp.security.trust import Trust

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.runtime.pool import ProviderPool
    from erp.runtime.ports import Identity, SecretVault
    from erp.security.links import SealedLinks


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Whom tenants trust, who that lets in, and the sessions of browsers."""

    control: ControlPlane
    links: SealedLinks
    trust: Trust
    sources: SignInSources
    issuers: IssuerIdentity
    browser: BrowserCredentials
    sign_ins: SignIns
    saml: SamlRoutes
    saml_keys: SamlKeys

    def sessions(self, credentials: Credentials) -> BrowserSessions:
        """Return the endpoints about sessions."""
        return BrowserSessions(self.browser, self.trust, self.issuers, self.links, self.control.journal, credentials)


def people(
    control: ControlPlane,
    pool: ProviderPool,
    links: SealedLinks,
    *,
    own: Identity,
    vault: SecretVault,
    pepper: bytes,
    settings: SessionSettings,
) -> People:
    """Put it together.

    Args:
        control: the platform's memory.
        pool: resolves the secrets of connections.
        links: knows where browsers reach the gateway.
        own: the platform's own credentials.
        vault: keeps the keys of tenants.
        pepper: key of the digests and seals.
        settings: how long sessions last.
    """
    trust = Trust(control.connections, pool, control.revisions)
    sources = SignInSources(trust, control.saml)
    browser = BrowserCredentials(Sessions(control.sessions, sources, control.directory, pepper, settings), links)
    seal, saml_keys = SignInSeal(pepper), SamlKeys(vault)
    return People(
        control=control,
        links=links,
        trust=trust,
        sources=sources,
        issuers=IssuerIdentity(own, trust, control.revoked_tokens, control.directory, control.revisions),
        browser=browser,
        sign_ins=SignIns(browser, trust, seal, links, control.journal),
        saml=SamlRoutes(control, browser, seal, links, pepper, saml_keys),
        saml_keys=saml_keys,
    )
