"""Whose things an administrative request is about: the actor's own tenant, or one that the platform administers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

if TYPE_CHECKING:
    from erp.control_plane.tenants import Tenants
    from erp.gateway.endpoint import Visit

PLATFORM = "platform"
"""The tenant of the operator; its administrators create, change and remove other tenants and what they have."""


def platform_only(visit: Visit, tenant: str | None = None) -> None:
    """Refuse whoever is neither of the platform nor of ``tenant``."""
    if visit.tenant not in {PLATFORM, tenant}:
        message = "Only administrators of the platform may do this to other tenants."
        raise ProviderError(ErrorCode.PERMISSION_DENIED, message)


async def tenant_of(visit: Visit, tenants: Tenants) -> str:
    """Return the tenant that ``?tenant=`` names; without it the actor's own.

    To be asked after the actor was authorised for the area.

    Raises:
        ProviderError: ``permission_denied`` for another tenant, unless the actor is of the platform and, to change something, admin;
            ``not_found`` when there is no such tenant.
    """
    named = visit.query("tenant") or visit.tenant
    if named == visit.tenant:
        return named
    platform_only(visit)
    if visit.request.method != "GET" and "admin" not in visit.actor.roles:
        message = "Only the role admin of the platform may change what other tenants have."
        raise ProviderError(ErrorCode.PERMISSION_DENIED, message)
    return (await tenants.get(named)).id
