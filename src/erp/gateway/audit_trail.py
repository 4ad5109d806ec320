"""Audit records of administrative requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.runtime.effects import now
from erp.runtime.ports import AuditEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from erp.gateway.endpoint import Visit


def entry(
    visit: Visit, action: str, target: str, effect: str, *, detail: Mapping[str, Any] | None = None
) -> AuditEntry:
    """Describe an administrative request that was carried out."""
    return AuditEntry(
        tenant=visit.tenant,
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
