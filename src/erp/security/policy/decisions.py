"""The one decision point: the platform's policy, then tenants' own, remembered until one of them changes.

Implements ``erp.runtime.question.Policy``. A tenant's policy can only deny more, that of the tenant ``platform`` for
everybody; a policy that fails denies.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.revisions import Topic
from erp.errors import ProviderError
from erp.runtime.question import Decision, Question
from erp.security.policy.document import Facts, document, encoded
from erp.security.policy.engines import UNDECIDED
from erp.security.policy.tenant_rules import TOO_SLOW

if TYPE_CHECKING:
    from erp.control_plane.policies import PolicyRevision
    from erp.control_plane.revisions import Revisions
    from erp.security.policy.engines import Engine
    from erp.security.policy.shadow import Shadow
    from erp.security.policy.tenant_rules import TenantRules

PLATFORM = "platform"
CAPACITY = 20_000


class Store(Protocol):
    """What decisions need of the control plane."""

    async def policy(self, tenant: str) -> PolicyRevision | None:
        """Return the policy in force; None when the tenant has none."""

    async def region(self, tenant: str) -> str:
        """Return where the tenant's data may be; empty: anywhere."""

    async def consent(self, tenant: str, subject: str, purpose: str) -> str:
        """Return ``granted``, ``withdrawn`` or nothing."""


class DecisionPoint:
    """Decides for calls of every entry and for administration."""

    def __init__(
        self,
        engine: Engine,
        rules: TenantRules,
        store: Store,
        revisions: Revisions,
        *,
        region: str = "",
        shadow: Shadow | None = None,
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._store = store
        self._revisions = revisions
        self._region = region
        self.shadow = shadow
        self._decisions: dict[Question, Decision] = {}
        self._generation = 0
        for topic in (Topic.POLICIES, Topic.CONFIGURATION):
            revisions.watch(topic, self.forget_all)

    def forget_all(self) -> None:
        """Decide everything anew: a policy or a region has changed."""
        self._decisions.clear()
        self._generation += 1

    def known(self, question: Question) -> Decision | None:
        if time.monotonic() >= self._revisions.trusted_until:
            return None
        return self._decisions.get(question)

    async def decide(self, question: Question) -> Decision:
        await self._revisions.refresh()
        found = self._decisions.get(question)
        if found is not None:
            return found
        generation = self._generation
        made = await self.explain(question)
        if made is UNDECIDED:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The policy gave no answer.", retry_after_seconds=1.0)
        if generation == self._generation and _is_lasting(question, made):
            if len(self._decisions) >= CAPACITY:
                self._decisions.clear()
            self._decisions[question] = made
        return made

    async def start(self) -> None:
        """Be ready before the first question."""
        await self._engine.start()

    async def explain(self, question: Question, *, source: str | None = None) -> Decision:
        """Return a decision made anew, with everything that speaks for and against it.

        Args:
            question: what to decide.
            source: a policy to be tried in the place of the tenant's own.
        """
        input_ = document(question, await self._facts(question))
        made = await self._engine.decide(input_)
        if self.shadow is not None:
            self.shadow.compare(input_, made)
        if not made.allow or _is_about_policies(question):
            return made
        denials = await self._own_denials(question.actor.tenant, encoded(input_), source)
        if not denials:
            return made
        return Decision(allow=False, reason=denials[0], grants=made.grants, denials=tuple(denials))

    async def _facts(self, question: Question) -> Facts:
        tenant, consent = question.actor.tenant, ""
        if question.purpose and question.subject:
            consent = await self._store.consent(tenant, question.subject, question.purpose)
        region = await self._store.region(question.tenant or tenant)
        return Facts(tenant_region=region, call_region=self._region, consent=consent)

    async def _own_denials(self, tenant: str, input_: str, source: str | None) -> list[str]:
        found: list[str] = []
        for owner in dict.fromkeys((PLATFORM, tenant)):
            if source is not None and owner == tenant:
                found += await self._rules.denials(f"trial/{hash(source)}", source, input_)
                continue
            own = await self._store.policy(owner)
            if own is not None and own.source:
                found += await self._rules.denials(f"{owner}/{own.number}", own.source, input_)
        return found

    async def lint(self, source: str, question: Question) -> list[str]:
        """Return what is wrong with a tenant's policy, tried on a question; nothing: it can be put in force."""
        input_ = encoded(document(question, await self._facts(question)))
        return [str(finding) for finding in await self._rules.lint(source, input_)]

    async def close(self) -> None:
        """Release the engines."""
        await self._rules.close()
        await self._engine.close()
        if self.shadow is not None:
            await self.shadow.close()


def _is_lasting(question: Question, made: Decision) -> bool:
    """A consent can be withdrawn at any moment, and a policy that was too slow may answer the next time."""
    return not question.purpose and TOO_SLOW not in made.denials


def _is_about_policies(question: Question) -> bool:
    """No tenant's policy may forbid its administrators to change that very policy: nobody could let them in again."""
    return question.area == "admin" and question.domain == "policies"
