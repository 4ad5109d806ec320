"""``/operations``: calls that nobody waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors
from erp.errors import FieldError, ProviderError
from erp.gateway.accepted import LONGEST_WAIT_SECONDS, shown
from erp.gateway.audit_trail import entry
from erp.runtime.ports import Completion

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.operation import Operation
    from erp.runtime.operations import OperationRunner

AREA = "operations"
STATES = ("queued", "running", "succeeded", "failed", "cancelled")


class OperationPages:
    """Callers see what they have started; operators and administrators see all of their tenant."""

    def __init__(self, control: ControlPlane, runner: OperationRunner, credentials: Credentials) -> None:
        self._control = control
        self._runner = runner
        self._credentials = credentials

    async def operations(self, visit: Visit) -> tuple[int, Any]:
        """List operations, the newest first, a page at a time."""
        state = visit.query("state")
        if state is not None and state not in STATES:
            error = FieldError("/query/state", f"Use one of {', '.join(STATES)}.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "There is no such state.", errors=[error])
        found, end = await self._control.operations.page(
            visit.tenant,
            actor=None if await self._sees_all(visit, "list", "read") else visit.actor.id,
            state=state,
            before=cursors.read(visit.query("cursor"), tuple[int, str]),
            limit=visit.limit(),
        )
        items = [shown(operation) for operation in found]
        return 200, {"items": items} if end is None else {"items": items, "next_cursor": cursors.written(end)}

    async def get(self, visit: Visit) -> tuple[int, Any]:
        """Show an operation; ``Prefer: wait=n`` waits for its end."""
        operation = await self._own(visit, "get", "read")
        wait = min(visit.inbound.wait_seconds or 0.0, LONGEST_WAIT_SECONDS)
        if wait and operation.ended_at is None:
            operation = await self._runner.wait(visit.tenant, operation.id, wait) or operation
        return 200, shown(operation)

    async def cancel(self, visit: Visit) -> tuple[int, Any]:
        """Want the end of an operation; one that has ended stays as it is."""
        operation = await self._own(visit, "cancel", "write")
        if operation.ended_at is None:
            operation = await self._runner.cancel(visit.tenant, operation.id) or operation
            audit = entry(visit, f"{AREA}.cancel", operation.id, "write")
            await self._control.journal.complete(Completion(audit=audit))
        return 200 if operation.ended_at is not None else 202, shown(operation)

    async def _own(self, visit: Visit, action: str, effect: str) -> Operation:
        found = await self._control.operations.find(visit.tenant, visit.path("operation"))
        if found is None or not (found.order.actor.id == visit.actor.id or await self._sees_all(visit, action, effect)):
            message = f"There is no operation {visit.path('operation')[:100]!r}. Ended ones are kept for a day."
            raise ProviderError(ErrorCode.NOT_FOUND, message)
        return found

    async def _sees_all(self, visit: Visit, action: str, effect: str) -> bool:
        try:
            await self._credentials.authorise(visit.actor, AREA, "*", action, effect)
        except ProviderError:
            return False
        return True
