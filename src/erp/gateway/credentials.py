"""Turns the credential of a request into an actor, and holds it to its own tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.gateway.client_certificate import presented
from erp.runtime.question import Question

if TYPE_CHECKING:
    from starlette.types import Scope

    from erp.gateway.inbound import Inbound
    from erp.runtime.context import Actor
    from erp.runtime.ports import Identity, Policy
    from erp.security.certificates import CertificateIdentity


class Credentials:
    """Who calls, and whether they may use an administrative area."""

    def __init__(self, identity: Identity, policy: Policy, certificates: CertificateIdentity | None = None) -> None:
        self._identity = identity
        self._certificates = certificates
        self._policy = policy

    async def actor(self, inbound: Inbound, scope: Scope) -> Actor:
        """Return who sent the request: who holds its key or token, or without one whose client certificate it came with.

        Raises:
            ProviderError: ``unauthenticated``, or ``permission_denied`` when ``X-Tenant-Id`` names
                another tenant than the credential's.
        """
        certificate = None if inbound.authorization or inbound.api_key else presented(scope)
        if certificate is not None and self._certificates is not None:
            actor = await self._certificates.authenticate(certificate)
        else:
            actor = await self._identity.authenticate(inbound.credential)
        if inbound.tenant is not None and inbound.tenant != actor.tenant:
            message = "X-Tenant-Id names another tenant than the credential belongs to."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
        return actor

    async def authorise(self, actor: Actor, domain: str, name: str, action: str, effect: str) -> None:
        """Pass when ``actor`` may use an administrative function; otherwise raise ``permission_denied``."""
        question = Question(actor=actor, area="admin", domain=domain, name=name, action=action, effect=effect)
        decision = self._policy.known(question) or await self._policy.decide(question)
        if not decision.allow:
            message = f"{domain}.{action} is not allowed: {decision.reason}."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
