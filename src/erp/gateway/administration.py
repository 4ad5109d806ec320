"""Endpoints for administrators: tenants, API keys, quotas, audit search."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway.audit_trail import entry
from erp.runtime.ports import Completion

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.context import Actor
    from erp.runtime.plan import PlanBook
    from erp.security.platform_identity import PlatformIdentity

PLATFORM = "platform"
"""The tenant of the operator; its administrators create and remove other tenants."""


class Administration:
    """Every change is audited before its answer leaves."""

    def __init__(
        self, *, control: ControlPlane, identity: PlatformIdentity, plans: PlanBook, credentials: Credentials
    ) -> None:
        self._control = control
        self._identity = identity
        self._plans = plans
        self._credentials = credentials

    def _authorise(self, visit: Visit, area: str, action: str, effect: str) -> None:
        self._credentials.authorise(visit.actor, area, "*", action, effect)

    async def _audited(self, visit: Visit, action: str, target: str, effect: str = "write") -> None:
        await self._control.journal.complete(Completion(audit=entry(visit, action, target, effect)))

    # -- tenants ---------------------------------------------------------------------------------

    def _platform_only(self, visit: Visit, tenant: str | None = None) -> None:
        if visit.tenant not in {PLATFORM, tenant}:
            message = "Only administrators of the platform may do this to other tenants."
            raise ProviderError(ErrorCode.PERMISSION_DENIED, message)

    async def tenants(self, visit: Visit) -> tuple[int, Any]:
        """List tenants; other tenants' administrators see their own."""
        self._authorise(visit, "tenants", "list", "read")
        if visit.tenant != PLATFORM:
            return 200, {"items": [await self._control.tenants.get(visit.tenant)]}
        items, cursor = await self._control.tenants.list(limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, _page(items, cursor)

    async def create_tenant(self, visit: Visit) -> tuple[int, Any]:
        """Create a tenant."""
        self._authorise(visit, "tenants", "create", "write")
        self._platform_only(visit)
        body = await visit.body("createTenant")
        created = await self._control.tenants.create(
            body["id"], name=body.get("name"), region=body.get("region"), policy=body.get("policy", {})
        )
        await self._audited(visit, "tenants.create", body["id"])
        return 201, created

    async def tenant(self, visit: Visit) -> tuple[int, Any]:
        """Show a tenant."""
        self._authorise(visit, "tenants", "get", "read")
        self._platform_only(visit, visit.path("tenant"))
        return 200, await self._control.tenants.get(visit.path("tenant"))

    async def change_tenant(self, visit: Visit) -> tuple[int, Any]:
        """Change name, region or call policy of a tenant."""
        self._authorise(visit, "tenants", "change", "write")
        self._platform_only(visit, visit.path("tenant"))
        changes = await visit.body("changeTenant")
        changed = await self._control.tenants.update(visit.path("tenant"), **changes)
        await self._audited(visit, "tenants.change", visit.path("tenant"))
        self._plans.forget(visit.path("tenant"))
        return 200, changed

    async def delete_tenant(self, visit: Visit) -> tuple[int, Any]:
        """Remove a tenant with its keys, connections and quotas. Its audit records stay."""
        self._authorise(visit, "tenants", "delete", "destructive")
        self._platform_only(visit)
        tenant = visit.path("tenant")
        if tenant == PLATFORM:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The platform's own tenant cannot be removed.")
        await self._control.tenants.delete(tenant)
        await self._audited(visit, "tenants.delete", tenant, "destructive")
        self._plans.forget(tenant)
        self._identity.forget_all()
        return 204, None

    # -- keys ------------------------------------------------------------------------------------

    async def keys(self, visit: Visit) -> tuple[int, Any]:
        """List API keys; the keys themselves are never shown again."""
        self._authorise(visit, "keys", "list", "read")
        items, cursor = await self._control.api_keys.list(
            visit.tenant, limit=visit.limit(), cursor=visit.query("cursor")
        )
        return 200, _page(items, cursor)

    async def create_key(self, visit: Visit) -> tuple[int, Any]:
        """Create an API key and show it once."""
        self._authorise(visit, "keys", "create", "write")
        body = await visit.body("createKey")
        tenant = body.get("tenant", visit.tenant)
        if tenant != visit.tenant:
            self._platform_only(visit)
        _no_wider(visit.actor, body.get("scopes", []))
        key, text = await self._control.api_keys.create(
            tenant,
            role=body["role"],
            name=body.get("name"),
            scopes=body.get("scopes", []),
            expires_at=_time(body.get("expires_at"), "/expires_at"),
        )
        await self._audited(visit, "keys.create", key.id)
        return 201, {**_fields(key), "key": text}

    async def revoke_key(self, visit: Visit) -> tuple[int, Any]:
        """Revoke an API key at once."""
        self._authorise(visit, "keys", "revoke", "destructive")
        key = visit.path("key")
        if not await self._control.api_keys.revoke(visit.tenant, key):
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no API key {key[:100]!r}.")
        self._identity.forget_all()
        await self._audited(visit, "keys.revoke", key, "destructive")
        return 204, None

    # -- quotas ----------------------------------------------------------------------------------

    async def quotas(self, visit: Visit) -> tuple[int, Any]:
        """List quotas with what is used of them."""
        self._authorise(visit, "quotas", "list", "read")
        return 200, {"items": await self._control.quotas.list(self._quota_tenant(visit))}

    async def set_quota(self, visit: Visit) -> tuple[int, Any]:
        """Set how many calls a tenant may make in a period."""
        self._authorise(visit, "quotas", "set", "write")
        body = await visit.body("setQuota")
        tenant = self._quota_tenant(visit)
        quota = await self._control.quotas.set(tenant, visit.path("period"), body["limit"])
        await self._audited(visit, "quotas.set", f"{tenant}/{visit.path('period')}")
        return 200, quota

    async def delete_quota(self, visit: Visit) -> tuple[int, Any]:
        """Remove a limit."""
        self._authorise(visit, "quotas", "delete", "destructive")
        tenant = self._quota_tenant(visit)
        if not await self._control.quotas.delete(tenant, visit.path("period")):
            raise ProviderError(ErrorCode.NOT_FOUND, "There is no quota for this period.")
        await self._audited(visit, "quotas.delete", f"{tenant}/{visit.path('period')}", "destructive")
        return 204, None

    def _quota_tenant(self, visit: Visit) -> str:
        tenant = visit.query("tenant") or visit.tenant
        if tenant != visit.tenant:
            self._platform_only(visit)
        return tenant

    # -- audit -----------------------------------------------------------------------------------

    async def audit(self, visit: Visit) -> tuple[int, Any]:
        """Search the tenant's audit records, newest first."""
        self._authorise(visit, "audit", "search", "read")
        items, cursor = await self._control.audit.search(
            visit.tenant,
            actor=visit.query("actor"),
            target=visit.query("target"),
            outcome=visit.query("outcome"),
            since=_time(visit.query("from"), "/query/from"),
            until=_time(visit.query("to"), "/query/to"),
            limit=visit.limit(),
            cursor=visit.query("cursor"),
        )
        return 200, _page(items, cursor)


def _no_wider(actor: Actor, scopes: list[str]) -> None:
    """Refuse a key that could do what its maker cannot: a narrowed key hands on its own scopes, or some of them."""
    if actor.scopes and not (scopes and actor.scopes.issuperset(scopes)):
        allowed = ", ".join(sorted(actor.scopes))
        message = f"A narrowed key can only make keys with its own scopes. Give some of: {allowed}."
        raise ProviderError(ErrorCode.PERMISSION_DENIED, message, errors=[FieldError("/scopes", message)])


def _page(items: list[Any], cursor: str | None) -> dict[str, Any]:
    return {"items": items} if cursor is None else {"items": items, "next_cursor": cursor}


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _time(text: str | None, pointer: str) -> datetime.datetime | None:
    if text is None:
        return None
    found: datetime.datetime | None
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        error = FieldError(pointer, "Use RFC 3339 with a time zone, for example 2026-11-23T10:00:00Z.")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A time is malformed.", errors=[error])
    return found
