"""Endpoints for administrators: service accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erp.gateway.acting import tenant_of
from erp.gateway.administration import no_wider
from erp.gateway.audit_trail import record

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.security.platform_identity import PlatformIdentity


class ServiceAccountPages:
    """Every change is audited before its answer leaves."""

    def __init__(self, control: ControlPlane, identity: PlatformIdentity, credentials: Credentials) -> None:
        self._control = control
        self._accounts = control.service_accounts
        self._identity = identity
        self._credentials = credentials

    async def _tenant(self, visit: Visit, action: str, effect: str) -> str:
        await self._credentials.authorise(visit.actor, "service_accounts", "*", action, effect)
        return await tenant_of(visit, self._control.tenants)

    async def _audited(self, visit: Visit, action: str, tenant: str, name: str, effect: str = "write") -> None:
        journal, action = self._control.journal, f"service_accounts.{action}"
        await record(journal, visit, tenant=tenant, action=action, target=name, effect=effect)

    async def accounts(self, visit: Visit) -> tuple[int, Any]:
        """List service accounts."""
        tenant = await self._tenant(visit, "list", "read")
        items, cursor = await self._accounts.list(tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, {"items": items} if cursor is None else {"items": items, "next_cursor": cursor}

    async def create(self, visit: Visit) -> tuple[int, Any]:
        """Create a service account."""
        tenant = await self._tenant(visit, "create", "write")
        body = await visit.body("createServiceAccount")
        no_wider(visit.actor, body.get("scopes", []))
        created = await self._accounts.create(tenant, **body)
        await self._audited(visit, "create", tenant, created.name)
        return 201, created

    async def get(self, visit: Visit) -> tuple[int, Any]:
        """Show a service account."""
        tenant = await self._tenant(visit, "get", "read")
        return 200, await self._accounts.get(tenant, visit.path("account"))

    async def change(self, visit: Visit) -> tuple[int, Any]:
        """Disable or enable a service account."""
        tenant = await self._tenant(visit, "change", "write")
        name, body = visit.path("account"), await visit.body("changeServiceAccount")
        if not body["disabled"]:
            no_wider(visit.actor, (await self._accounts.get(tenant, name)).scopes)
        changed = await self._accounts.disable(tenant, name, disabled=body["disabled"])
        self._identity.forget_all()
        await self._audited(visit, "disable" if body["disabled"] else "enable", tenant, name)
        return 200, changed

    async def delete(self, visit: Visit) -> tuple[int, Any]:
        """Remove a service account with its keys and certificates."""
        tenant = await self._tenant(visit, "delete", "destructive")
        name = visit.path("account")
        await self._accounts.delete(tenant, name)
        self._identity.forget_all()
        await self._audited(visit, "delete", tenant, name, "destructive")
        return 204, None
