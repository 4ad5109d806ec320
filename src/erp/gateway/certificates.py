"""Endpoints for administrators: which client certificate means which service account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.client_certificates import Kind
from erp.errors import FieldError, ProviderError
from erp.gateway.acting import platform_only, tenant_of
from erp.gateway.administration import no_wider
from erp.gateway.audit_trail import record

if TYPE_CHECKING:
    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.gateway.endpoint import Visit


class CertificatePages:
    """A tenant registers certificates, the platform also names.

    A name means whoever a trusted CA has given it to: a tenant that registered the name of another's machine would
    receive what that machine sends.
    """

    def __init__(self, control: ControlPlane, credentials: Credentials) -> None:
        self._control = control
        self._certificates = control.client_certificates
        self._credentials = credentials

    async def _tenant(self, visit: Visit, action: str, effect: str) -> str:
        await self._credentials.authorise(visit.actor, "certificates", "*", action, effect)
        return await tenant_of(visit, self._control.tenants)

    async def certificates(self, visit: Visit) -> tuple[int, Any]:
        """List the tenant's certificates."""
        tenant = await self._tenant(visit, "list", "read")
        items, cursor = await self._certificates.list(tenant, limit=visit.limit(), cursor=visit.query("cursor"))
        return 200, {"items": items} if cursor is None else {"items": items, "next_cursor": cursor}

    async def register(self, visit: Visit) -> tuple[int, Any]:
        """Let a certificate stand for a service account."""
        tenant = await self._tenant(visit, "register", "write")
        body = await visit.body("registerCertificate")
        kind, value = _named(body)
        if kind != "fingerprint":
            platform_only(visit)
        account = await self._control.service_accounts.get(tenant, body["service_account"])
        no_wider(visit.actor, account.scopes)
        made = await self._certificates.register(
            tenant, service_account=account.name, kind=kind, value=value, created_by=visit.actor.id
        )
        await self._audited(visit, "register", tenant, made.id, "write")
        return 201, made

    async def remove(self, visit: Visit) -> tuple[int, Any]:
        """Refuse a certificate from now on."""
        tenant = await self._tenant(visit, "remove", "destructive")
        await self._certificates.remove(tenant, visit.path("certificate"))
        await self._audited(visit, "remove", tenant, visit.path("certificate"), "destructive")
        return 204, None

    async def _audited(self, visit: Visit, action: str, tenant: str, target: str, effect: str) -> None:
        journal, action = self._control.journal, f"certificates.{action}"
        await record(journal, visit, tenant=tenant, action=action, target=target, effect=effect)


def _named(body: dict[str, Any]) -> tuple[Kind, str]:
    given: list[tuple[Kind, str]] = [(kind, body[kind]) for kind in get_args(Kind) if kind in body]
    if len(given) != 1:
        errors = [FieldError("", "Give one of fingerprint, uri and dns.")]
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A certificate goes by one thing.", errors=errors)
    return given[0]
