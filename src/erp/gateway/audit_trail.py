"""Audit records of administrative requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.runtime.effects import now
from erp.runtime.ports import AuditEntry, Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from erp.gateway.endpoint import Visit
    from erp.runtime.ports import Journal


async def record(
    journal: Journal,
    visit: Visit,
    *,
    tenant: str,
    action: str,
    target: str,
    effect: str = "write",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Keep that something of ``tenant`` was changed; when the platform did it, in both audit trails."""
    await journal.complete(Completion(audit=entry(visit, action, target, effect, tenant=tenant, detail=detail)))
    if tenant != visit.tenant:
        of_the_platform = entry(visit, action, f"{tenant}/{target}", effect, detail=detail)
        await journal.complete(Completion(audit=of_the_platform))


def entry(
    visit: Visit,
    action: str,
    target: str,
    effect: str,
    *,
    tenant: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Describe an administrative request that was carried out, for the audit trail of ``tenant`` (default: the actor's)."""
    return AuditEntry(
        tenant=tenant or visit.tenant,
        actor=visit.actor.id,
        action=action,
        target=target,
        outcome="ok",
        reason="done",
        request_id=visit.inbound.request_id,
        time=now(),
        effect=effect,
        traceparent=visit.inbound.traceparent,
        detail=detail,
    )
