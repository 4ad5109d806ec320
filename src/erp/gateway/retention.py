"""``/privacy/retention``: how long what is kept, and its deletion on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway.acting import tenant_of
from erp.gateway.audit_trail import record
from erp.security.privacy.retention_policy import BOUNDS, RetentionPolicy

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.security.privacy.retention import RetentionKeeper

AREA = "privacy"


class RetentionPages:
    """Reads are for whoever may read administration; what changes or deletes something is for administrators."""

    def __init__(self, control: ControlPlane, keeper: RetentionKeeper, credentials: Credentials) -> None:
        self._control = control
        self._keeper = keeper
        self._credentials = credentials

    async def _tenant(self, visit: Visit, action: str, effect: str) -> str:
        await self._credentials.authorise(visit.actor, AREA, "*", action, effect)
        return await tenant_of(visit, self._control.tenants)

    async def policy(self, visit: Visit) -> tuple[int, Any]:
        """Show how long what is kept."""
        return 200, await self._shown(await self._tenant(visit, "get", "read"))

    async def put(self, visit: Visit) -> tuple[int, Any]:
        """Say how long what is kept."""
        body = dict(await visit.body("putRetentionPolicy"))
        tenant = await self._tenant(visit, "put", "write")
        revision = body.pop("revision", None)
        try:
            policy = msgspec.convert(body, RetentionPolicy)
        except msgspec.ValidationError as error:
            message = "The policy cannot be used."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError("", str(error))]) from error
        await self._keeper.put(tenant, policy, revision=revision)
        detail = {"days": body.get("days", {}), "rules": len(policy.rows)}
        if policy.hold is not None:
            detail["hold"] = policy.hold.reason
        await self._record(visit, tenant, "put_retention", "write", detail)
        return 200, await self._shown(tenant)

    async def apply(self, visit: Visit) -> tuple[int, Any]:
        """Delete what was kept long enough, or count it."""
        body = await visit.body("applyRetention")
        if body["dry_run"]:
            return 200, await self._keeper.would(await self._tenant(visit, "get", "read"))
        tenant = await self._tenant(visit, "apply_retention", "destructive")
        request_id = visit.inbound.request_id
        done = await self._keeper.apply(tenant, actor=visit.actor.id, request_id=request_id)
        await self._record(visit, tenant, "apply_retention", "destructive")
        return 200, done

    async def _record(self, visit: Visit, tenant: str, action: str, effect: str, detail: Any = None) -> None:
        journal, name = self._control.journal, f"{AREA}.{action}"
        await record(journal, visit, tenant=tenant, action=name, target="retention", effect=effect, detail=detail)

    async def _shown(self, tenant: str) -> dict[str, Any]:
        policy, revision = await self._keeper.policy(tenant)
        classes = [
            {
                "name": name,
                "days": policy.days_of(name),
                "shortest_days": bounds.shortest,
                "longest_days": bounds.longest,
            }
            for name, bounds in BOUNDS.items()
        ]
        said = msgspec.to_builtins(policy)
        return {"days": {}, "rows": [], **said, "classes": classes, "revision": str(revision)}
