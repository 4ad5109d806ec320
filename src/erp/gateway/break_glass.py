"""Endpoints of break-glass: ask for a role, approve, end, and show what was done with it."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.elevations import BreakGlassRules, Elevation
from erp.errors import ProviderError
from erp.gateway.audit_trail import record

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit

AREA = "break_glass"
_LATE = datetime.timedelta(days=1)
"""A call that began under an elevation may end, and be recorded, so long after it."""


class BreakGlass:
    """Every step is audited before its answer leaves. All of it stays within the tenant of the credential."""

    def __init__(self, control: ControlPlane, credentials: Credentials) -> None:
        self._control = control
        self._elevations = control.elevations
        self._credentials = credentials

    async def _authorise(self, visit: Visit, action: str, effect: str, name: str = "*") -> None:
        await self._credentials.authorise(visit.actor, AREA, name, action, effect)

    async def request(self, visit: Visit) -> tuple[int, Any]:
        """Ask for a role."""
        body = await visit.body("requestBreakGlass")
        await self._authorise(visit, "request", "write", body["role"])
        made = await self._elevations.request(
            visit.tenant, actor=visit.actor.id, request_id=visit.inbound.request_id, **body
        )
        await self._audited(visit, "begin" if made.began_at else "request", made)
        return 201, self._shown(made)

    async def approve(self, visit: Visit) -> tuple[int, Any]:
        """Let somebody else's elevation begin."""
        await self._authorise(visit, "approve", "write")
        made = await self._elevations.approve(visit.tenant, visit.path("elevation"), by=visit.actor.id)
        await self._audited(visit, "begin", made)
        return 200, self._shown(made)

    async def end(self, visit: Visit) -> tuple[int, Any]:
        """End an elevation before its time: one's own, or as an administrator any."""
        await self._authorise(visit, "end", "write")
        found = await self._elevations.get(visit.tenant, visit.path("elevation"))
        if found.actor != visit.actor.id and "admin" not in visit.actor.roles:
            message = "Only administrators may end what others have taken on."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message, detail=f"{AREA}.end")
        made = await self._elevations.end(visit.tenant, found.id, by=visit.actor.id)
        await self._audited(visit, "end", made)
        return 200, self._shown(made)

    async def elevations(self, visit: Visit) -> tuple[int, Any]:
        """List elevations, newest first."""
        await self._authorise(visit, "list", "read")
        items, cursor = await self._elevations.page(visit.tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        shown = [self._shown(item) for item in items]
        return 200, {"items": shown} if cursor is None else {"items": shown, "next_cursor": cursor}

    async def report(self, visit: Visit) -> tuple[int, Any]:
        """Show an elevation and a page of what was done under it, newest first."""
        await self._authorise(visit, "report", "read")
        found = await self._elevations.get(visit.tenant, visit.path("elevation"))
        answer: dict[str, Any] = {"elevation": self._shown(found), "items": []}
        if found.began_at is None or found.ends_at is None:
            return 200, answer
        records, cursor = await self._control.audit.search(
            visit.tenant,
            actor=found.actor,
            since=_time(found.began_at),
            until=_time(found.ended_at or found.ends_at) + _LATE,
            limit=visit.limit(),
            cursor=visit.query("cursor"),
        )
        answer["items"] = [one for one in records if (one.detail or {}).get("break_glass") == found.id]
        return 200, answer if cursor is None else answer | {"next_cursor": cursor}

    async def rules(self, visit: Visit) -> tuple[int, Any]:
        """Show what the tenant allows."""
        await self._authorise(visit, "rules", "read")
        return 200, await self._elevations.rules(visit.tenant)

    async def set_rules(self, visit: Visit) -> tuple[int, Any]:
        """Change what the tenant allows."""
        await self._authorise(visit, "set_rules", "write")
        body = await visit.body("setBreakGlassRules")
        rules = msgspec.convert(body, BreakGlassRules)
        await self._elevations.set_rules(visit.tenant, rules)
        await record(
            self._control.journal, visit, tenant=visit.tenant, action=f"{AREA}.set_rules", target="rules", detail=body
        )
        return 200, rules

    def _shown(self, found: Elevation) -> dict[str, Any]:
        facts = msgspec.structs.asdict(found) | {"state": found.state(self._elevations.clock())}
        del facts["request_id"]
        for name in ("requested_at", "began_at", "ends_at", "ended_at"):
            facts[name] = moments.optional_text(facts[name])
        return {name: value for name, value in facts.items() if value is not None}

    async def _audited(self, visit: Visit, action: str, made: Elevation) -> None:
        detail = {"actor": made.actor, "role": made.role, "minutes": made.minutes, "why": made.reason}
        journal = self._control.journal
        await record(journal, visit, tenant=visit.tenant, action=f"{AREA}.{action}", target=made.id, detail=detail)


def _time(moment: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(moment / moments.MICROSECONDS, datetime.UTC)
