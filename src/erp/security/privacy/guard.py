"""Treats personal data as its tenant wishes, wherever it would stand: logs, events, audit records, exports, prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from erp.security.privacy.recognisers import hits
from erp.security.privacy.redaction import replaced
from erp.security.privacy.scanning import Marks, treated, treated_where_marked
from erp.security.privacy.settings import PrivacySettings, Use

if TYPE_CHECKING:
    from collections.abc import Callable

    from erp.control_plane.privacy import StoredPrivacy
    from erp.runtime.ports import AuditEntry, Claim, ClaimOutcome, Completion, Journal, OutboxEvent
    from erp.security.privacy.treatment import Treatments

MAX_KNOWN = 10_000
DEFAULT = PrivacySettings()
_decode = msgspec.json.Decoder(PrivacySettings).decode


class PrivacyGuard:
    """Knows how each tenant wants personal data to be treated."""

    def __init__(self, store: StoredPrivacy, treatments: Treatments) -> None:
        self._store = store
        self._treatments = treatments
        self._known: dict[str, tuple[str, PrivacySettings]] = {}

    async def settings(self, tenant: str) -> PrivacySettings:
        """Return the settings of ``tenant``."""
        text, _ = await self._store.get(tenant)
        found = self._known.get(tenant)
        if found is None or found[0] != text:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = self._known[tenant] = (text, _decode(text))
        return found[1]

    def text(self, tenant: str, use: Use, text: str) -> str:
        """Return ``text`` as it may stand there, by the settings that were read last; redacted when none were."""
        found = self._known.get(tenant)
        treatment = (found[1] if found else DEFAULT).treatment_of(use)
        if treatment == "none":
            return text
        return replaced(text, hits(text), self._treatments.of(tenant, treatment))

    async def document(self, tenant: str, use: Use, value: Any, marks: Marks | None = None) -> Any:
        """Return a JSON value as it may stand there; ``marks``: what its contract marks in it."""
        settings = await self.settings(tenant)
        treatment = settings.treatment_of(use)
        if treatment == "none":
            return value
        replacement = self._treatments.of(tenant, treatment)
        if use in settings.only_marked:
            return treated_where_marked(value, replacement, marks or {})
        return treated(value, replacement, marks)


class PrivateJournal:
    """A journal into which personal data comes only as its tenant wishes. Implements ``ports.Journal``.

    Of audit records the reasons are treated, which may repeat what a server said; who did what stays, or it were no record.
    """

    def __init__(self, journal: Journal, guard: PrivacyGuard, marks_of: Callable[[OutboxEvent], Marks]) -> None:
        """``marks_of``: what the contract of an event marks in its data."""
        self._journal = journal
        self._guard = guard
        self._marks_of = marks_of

    async def claim(self, claim: Claim) -> ClaimOutcome:
        return await self._journal.claim(claim)

    async def complete(self, completion: Completion) -> None:
        if completion.audit.outcome != "ok":
            await self._guard.settings(completion.audit.tenant)
        audit = self._treated(completion.audit)
        if completion.events:
            events = [await self._event(one) for one in completion.events]
            completion = msgspec.structs.replace(completion, audit=audit, events=events)
        elif audit is not completion.audit:
            completion = msgspec.structs.replace(completion, audit=audit)
        await self._journal.complete(completion)

    def note(self, audit: AuditEntry) -> None:
        self._journal.note(self._treated(audit))

    async def _event(self, event: OutboxEvent) -> OutboxEvent:
        data = await self._guard.document(event.tenant, "events", event.data, self._marks_of(event))
        return event if data is event.data else msgspec.structs.replace(event, data=data)

    def _treated(self, audit: AuditEntry) -> AuditEntry:
        if audit.outcome == "ok":
            return audit
        reason = self._guard.text(audit.tenant, "audit", audit.reason)
        return audit if reason == audit.reason else msgspec.structs.replace(audit, reason=reason)
