"""Endpoints for administrators: tenants, API keys, quotas, audit search."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway.acting import PLATFORM, platform_only, tenant_of
from erp.gateway.audit_trail import record

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit
    from erp.runtime.context import Actor
    from erp.runtime.plan import PlanBook
    from erp.security.platform_identity import PlatformIdentity


class Administration:
    """Every change is audited before its answer leaves."""

    def __init__(
        self, *, control: ControlPlane, identity: PlatformIdentity, plans: PlanBook, credentials: Credentials
    ) -> None:
        self._control = control
        self._identity = identity
        self._plans = plans
        self._credentials = credentials

    async def _authorise(self, visit: Visit, area: str, action: str, effect: str) -> None:
        await self._credentials.authorise(visit.actor, area, "*", action, effect)

    async def _audited(
        self, visit: Visit, action: str, target: str, effect: str = "write", *, tenant: str | None = None
    ) -> None:
        journal, owner = self._control.journal, tenant or visit.tenant
        await record(journal, visit, tenant=owner, action=action, target=target, effect=effect)

    # -- tenants ---------------------------------------------------------------------------------

    async def tenants(self, visit: Visit) -> tuple[int, Any]:
        """List tenants; other tenants' administrators see their own."""
        await self._authorise(visit, "tenants", "list", "read")
        if visit.tenant != PLATFORM:
            return 200, {"items": [await self._control.tenants.get(visit.tenant)]}
        items, cursor = await self._control.tenants.list(limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, _page(items, cursor)

    async def create_tenant(self, visit: Visit) -> tuple[int, Any]:
        """Create a tenant."""
        await self._authorise(visit, "tenants", "create", "write")
        platform_only(visit)
        body = await visit.body("createTenant")
        created = await self._control.tenants.create(
            body["id"], name=body.get("name"), region=body.get("region"), policy=body.get("policy", {})
        )
        await self._audited(visit, "tenants.create", body["id"])
        return 201, created

    async def tenant(self, visit: Visit) -> tuple[int, Any]:
        """Show a tenant."""
        await self._authorise(visit, "tenants", "get", "read")
        platform_only(visit, visit.path("tenant"))
        return 200, await self._control.tenants.get(visit.path("tenant"))

    async def change_tenant(self, visit: Visit) -> tuple[int, Any]:
        """Change name, region or call policy of a tenant."""
        await self._authorise(visit, "tenants", "change", "write")
        platform_only(visit, visit.path("tenant"))
        changes = await visit.body("changeTenant")
        changed = await self._control.tenants.update(visit.path("tenant"), **changes)
        await self._audited(visit, "tenants.change", visit.path("tenant"))
        self._plans.forget(visit.path("tenant"))
        return 200, changed

    async def delete_tenant(self, visit: Visit) -> tuple[int, Any]:
        """Remove a tenant with its keys, connections and quotas. Its audit records stay."""
        await self._authorise(visit, "tenants", "delete", "destructive")
        platform_only(visit)
        tenant = visit.path("tenant")
        if tenant == PLATFORM:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "The platform's own tenant cannot be removed.")
        await self._control.tenants.delete(tenant, revision=visit.query("revision"))
        await self._audited(visit, "tenants.delete", tenant, "destructive")
        self._plans.forget(tenant)
        self._identity.forget_all()
        return 204, None

    # -- keys ------------------------------------------------------------------------------------

    async def keys(self, visit: Visit) -> tuple[int, Any]:
        """List API keys; the keys themselves are never shown again."""
        await self._authorise(visit, "keys", "list", "read")
        tenant = await tenant_of(visit, self._control.tenants)
        items, cursor = await self._control.api_keys.list(tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, _page(items, cursor)

    async def create_key(self, visit: Visit) -> tuple[int, Any]:
        """Create an API key and show it once."""
        await self._authorise(visit, "keys", "create", "write")
        body = await visit.body("createKey")
        tenant = body.get("tenant", visit.tenant)
        if tenant != visit.tenant:
            platform_only(visit)
        no_wider(visit.actor, body.get("scopes", []))
        key, text = await self._control.api_keys.create(
            tenant,
            role=body["role"],
            name=body.get("name"),
            scopes=body.get("scopes", []),
            expires_at=_time(body.get("expires_at"), "/expires_at"),
            rate=body.get("rate"),
            service_account=body.get("service_account"),
            revision=body.get("revision"),
        )
        await self._audited(visit, "keys.create", key.id, tenant=tenant)
        return 201, {**_fields(key), "key": text}

    async def change_key(self, visit: Visit) -> tuple[int, Any]:
        """Change name, role, scopes or end of an API key; the key itself stays."""
        await self._authorise(visit, "keys", "change", "write")
        key, changes = visit.path("key"), await visit.body("changeKey")
        tenant = await tenant_of(visit, self._control.tenants)
        known = await self._control.api_keys.get(tenant, key)
        # Also what stays as it is must not be more than the actor has: a role alone can widen a key.
        no_wider(visit.actor, changes.get("scopes", known.scopes))
        if "expires_at" in changes:
            changes["expires_at"] = _time(changes["expires_at"], "/expires_at")
        changed = await self._control.api_keys.update(tenant, key, **changes)
        self._identity.forget_all()
        await self._audited(visit, "keys.change", key, tenant=tenant)
        return 200, changed

    async def rotate_key(self, visit: Visit) -> tuple[int, Any]:
        """Put a new API key in the place of an old one and show it once."""
        await self._authorise(visit, "keys", "rotate", "write")
        key, body = visit.path("key"), await visit.body("rotateKey")
        tenant = await tenant_of(visit, self._control.tenants)
        # Whoever rotates a key gets one like it.
        no_wider(visit.actor, (await self._control.api_keys.get(tenant, key)).scopes)
        made, text = await self._control.api_keys.rotate(
            tenant,
            key,
            overlap_seconds=body["overlap_seconds"],
            expires_at=_time(body.get("expires_at"), "/expires_at"),
        )
        self._identity.forget_all()
        await self._audited(visit, "keys.rotate", key, tenant=tenant)
        return 201, {**_fields(made), "key": text}

    async def revoke_key(self, visit: Visit) -> tuple[int, Any]:
        """Revoke an API key at once."""
        await self._authorise(visit, "keys", "revoke", "destructive")
        key = visit.path("key")
        tenant = await tenant_of(visit, self._control.tenants)
        if not await self._control.api_keys.revoke(tenant, key, revision=visit.query("revision")):
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no API key {key[:100]!r}.")
        self._identity.forget_all()
        await self._audited(visit, "keys.revoke", key, "destructive", tenant=tenant)
        return 204, None

    # -- quotas ----------------------------------------------------------------------------------

    async def quotas(self, visit: Visit) -> tuple[int, Any]:
        """List quotas with what is used of them."""
        await self._authorise(visit, "quotas", "list", "read")
        return 200, {"items": await self._control.quotas.list(await tenant_of(visit, self._control.tenants))}

    async def set_quota(self, visit: Visit) -> tuple[int, Any]:
        """Set how many calls a tenant may make in a period."""
        await self._authorise(visit, "quotas", "set", "write")
        body = await visit.body("setQuota")
        tenant, period = await tenant_of(visit, self._control.tenants), visit.path("period")
        quota = await self._control.quotas.set(tenant, period, **body)
        await self._audited(visit, "quotas.set", _quota(quota.scope, quota.unit, period), tenant=tenant)
        return 200, quota

    async def delete_quota(self, visit: Visit) -> tuple[int, Any]:
        """Remove a limit."""
        await self._authorise(visit, "quotas", "delete", "destructive")
        tenant, period = await tenant_of(visit, self._control.tenants), visit.path("period")
        scope, unit = visit.query("scope") or "tenant", visit.query("unit") or "requests"
        revision = visit.query("revision")
        if not await self._control.quotas.delete(tenant, period, scope=scope, unit=unit, revision=revision):
            raise ProviderError(ErrorCode.NOT_FOUND, "There is no quota for this period.")
        await self._audited(visit, "quotas.delete", _quota(scope, unit, period), "destructive", tenant=tenant)
        return 204, None

    # -- audit -----------------------------------------------------------------------------------

    async def audit(self, visit: Visit) -> tuple[int, Any]:
        """Search the tenant's audit records, newest first."""
        await self._authorise(visit, "audit", "search", "read")
        items, cursor = await self._control.audit.search(
            visit.tenant,
            actor=visit.query("actor"),
            target=visit.query("target"),
            outcome=visit.query("outcome"),
            effect=visit.query("effect"),
            request_id=visit.query("request_id"),
            action=visit.query("action"),
            since=_time(visit.query("from"), "/query/from"),
            until=_time(visit.query("to"), "/query/to"),
            limit=visit.limit(),
            cursor=visit.query("cursor"),
        )
        return 200, _page(items, cursor)


def no_wider(actor: Actor, scopes: list[str]) -> None:
    """Refuse a key that could do what its maker cannot: a narrowed key hands on its own scopes, or some of them."""
    if actor.scopes and not (scopes and actor.scopes.issuperset(scopes)):
        allowed = ", ".join(sorted(actor.scopes))
        message = f"A narrowed key can only make keys with its own scopes. Give some of: {allowed}."
        raise ProviderError(ErrorCode.PERMISSION_DENIED, message, errors=[FieldError("/scopes", message)])


def _quota(scope: str, unit: str, period: str) -> str:
    """Name a quota as its audit record does."""
    return period if (scope, unit) == ("tenant", "requests") else f"{period} {unit} {scope}"


def _page(items: list[Any], cursor: str | None) -> dict[str, Any]:
    return {"items": items} if cursor is None else {"items": items, "next_cursor": cursor}


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__ if getattr(record, name) is not None}


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
