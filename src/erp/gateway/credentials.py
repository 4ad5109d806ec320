"""Turns the credential of a request into an actor, and holds it to its own tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError
from erp.runtime.question import Question

if TYPE_CHECKING:
    from erp.gateway.inbound import Inbound
    from erp.runtime.context import Actor
    from erp.runtime.ports import Identity, Journal, Policy


class Credentials:
    """Who calls, and whether they may use an administrative area."""

    def __init__(self, identity: Identity, policy: Policy, journal: Journal) -> None:
        self._identity = identity
        self._policy = policy
        self.journal = journal
        """Where endpoints note what was refused, and what was read under break-glass."""

    async def actor(self, inbound: Inbound) -> Actor:
        """Return who sent the request.

        Raises:
            ProviderError: ``unauthenticated``, or ``permission_denied`` when ``X-Tenant-Id`` names
                another tenant than the credential's.
        """
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
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message, detail=f"{domain}.{action}")
