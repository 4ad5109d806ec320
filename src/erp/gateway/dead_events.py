"""``/outbox/dead``: events that nobody tries to deliver any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors
from erp.errors import ProviderError
from erp.gateway.audit_trail import entry
from erp.runtime.ports import Completion

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.control_plane.outbox import DeadEvent
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit

AREA = "outbox"


class DeadEvents:
    """Shows an operator which events were given up, and has them tried again."""

    def __init__(self, control: ControlPlane, credentials: Credentials) -> None:
        self._control = control
        self._credentials = credentials

    async def dead(self, visit: Visit) -> tuple[int, Any]:
        """List dead events, oldest first, a page at a time."""
        await self._credentials.authorise(visit.actor, AREA, "*", "list", "read")
        after = cursors.read(visit.query("cursor"), int) or 0
        found = await self._control.outbox.dead(visit.tenant, after=after, limit=visit.limit() + 1)
        answer: dict[str, Any] = {"items": [_shown(item) for item in found[: visit.limit()]]}
        if len(found) > visit.limit():
            answer["next_cursor"] = cursors.written(found[visit.limit() - 1].position)
        return 200, answer

    async def requeue(self, visit: Visit) -> tuple[int, Any]:
        """Try a dead event again, with its attempts counted anew."""
        await self._credentials.authorise(visit.actor, AREA, "*", "requeue", "write")
        id_ = visit.path("event")
        if not await self._control.outbox.requeue(visit.tenant, id_):
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no dead event {id_[:100]!r}.")
        audit = entry(visit, f"{AREA}.requeue", id_, "write")
        await self._control.journal.complete(Completion(audit=audit))
        return 204, None


def _shown(item: DeadEvent) -> dict[str, Any]:
    event = item.event
    facts = {"key": event.key, "reason": item.reason}
    return {
        "id": event.id,
        "topic": event.topic,
        "type": event.type,
        "time": event.time,
        "attempts": item.attempts,
        **{name: value for name, value in facts.items() if value is not None},
    }
