"""Turns the credential of a request into an actor, and holds it to its own tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway.client_certificate import presented
from erp.runtime.question import Question

if TYPE_CHECKING:
    from starlette.types import Scope

    from erp.gateway.browser import BrowserCredentials
    from erp.gateway.inbound import Inbound
    from erp.runtime.context import Actor
    from erp.runtime.ports import Journal, Policy
    from erp.security.certificates import CertificateIdentity


class Authenticator(Protocol):
    """Knows who holds a credential."""

    async def authenticate(self, credential: str, tenant: str | None = None) -> Actor:
        """Return who holds ``credential``, which is meant for ``tenant`` when the caller names one.

        Raises:
            ProviderError: ``unauthenticated``.
        """


class Credentials:
    """Who calls, and whether they may use an administrative area."""

    def __init__(
        self,
        identity: Authenticator,
        policy: Policy,
        journal: Journal,
        browser: BrowserCredentials | None = None,
        certificates: CertificateIdentity | None = None,
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._browser = browser
        self._certificates = certificates
        self.journal = journal
        """Where endpoints note what was refused, and what was read under break-glass."""

    async def actor(self, inbound: Inbound, scope: Scope) -> Actor:
        """Return who sent the request: who holds its key or token; without one, whose session or client certificate it has.

        Raises:
            ProviderError: ``unauthenticated``, or ``permission_denied`` when ``X-Tenant-Id`` names
                another tenant than the credential's.
        """
        actor = await self._unasked(inbound, scope) if inbound.is_without_credential else None
        if actor is None:
            actor = await self._identity.authenticate(inbound.credential, inbound.tenant)
        if inbound.tenant is not None and inbound.tenant != actor.tenant:
            message = "X-Tenant-Id names another tenant than the credential belongs to."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
        return actor

    async def _unasked(self, inbound: Inbound, scope: Scope) -> Actor | None:
        """Return who sent a request that carries only what its client sends by itself."""
        if inbound.cookie is not None and self._browser is not None:
            actor = await self._browser.actor(inbound, scope["method"])
            if actor is not None:
                return actor
        certificate = None if self._certificates is None else presented(scope)
        if certificate is None or self._certificates is None:
            return None
        return await self._certificates.authenticate(certificate)

    async def authorise(self, actor: Actor, domain: str, name: str, action: str, effect: str) -> None:
        """Pass when ``actor`` may use an administrative function; otherwise raise ``permission_denied``."""
        question = Question(actor=actor, area="admin", domain=domain, name=name, action=action, effect=effect)
        decision = self._policy.known(question) or await self._policy.decide(question)
        if not decision.allow:
            message = f"{domain}.{action} is not allowed: {decision.reason}."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message, detail=f"{domain}.{action}")
