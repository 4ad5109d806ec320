"""Audit records of administrative requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.runtime.effects import now
from erp.runtime.ports import AuditEntry, Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from erp.errors import ProviderError
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
    outcome: str = "ok",
    reason: str = "done",
    detail: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Describe an administrative request, for the audit trail of ``tenant`` (default: the actor's)."""
    if visit.actor.elevation:
        detail = {**(detail or {}), "break_glass": visit.actor.elevation}
    return AuditEntry(
        tenant=tenant or visit.tenant,
        actor=visit.actor.id,
        action=action,
        target=target,
        outcome=outcome,
        reason=reason,
        request_id=visit.inbound.request_id,
        time=now(),
        effect=effect,
        traceparent=visit.inbound.traceparent,
        detail=detail,
    )


def refusal(visit: Visit, error: ProviderError) -> AuditEntry:
    """Describe an administrative request that was refused."""
    action = error.detail or f"gateway.{visit.request.method.lower()}"
    effect = "read" if visit.request.method == "GET" else "write"
    return entry(visit, action, _path(visit), effect, outcome=error.code.value, reason=error.message)


def elevated_read(visit: Visit) -> AuditEntry:
    """Describe a read of an elevated actor: of others, reads are not recorded."""
    return entry(visit, "gateway.get", _path(visit), "read", reason="read under break-glass")


def _path(visit: Visit) -> str:
    return visit.request.url.path[:200]
