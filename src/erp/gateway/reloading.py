"""``POST /providers:reload``: take new, changed and removed providers into use without a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.gateway.audit_trail import entry
from erp.runtime.ports import Completion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.hot_swap import Change, HotSwap
    from erp.runtime.ports import Journal


class Reloading:
    """For administrators of the platform: a provider is code that serves every tenant."""

    def __init__(
        self, hot_swap: HotSwap, journal: Journal, credentials: Credentials, tell: Callable[[], Awaitable[None]]
    ) -> None:
        """``tell``: lets the other processes know."""
        self._hot_swap = hot_swap
        self._tell = tell
        self._journal = journal
        self._credentials = credentials

    async def reload(self, visit: Visit) -> tuple[int, Any]:
        """Look for providers anew; answer what was added, changed, removed and refused."""
        await self._credentials.authorise(visit.actor, "catalog", "*", "reload", "write")
        changes = await self._hot_swap.reload()
        await self._tell()
        for change in changes:
            audit = entry(visit, f"catalog.{change.outcome}", change.ref, "write")
            await self._journal.complete(Completion(audit=audit))
        return 200, {"items": [shown(change) for change in changes]}


def shown(change: Change) -> dict[str, Any]:
    """Return what the answer says of one provider."""
    facts = {"version": change.version, "reason": change.reason}
    known = {name: value for name, value in facts.items() if value is not None}
    return {"ref": change.ref, "outcome": change.outcome, "connections": change.connections, **known}
