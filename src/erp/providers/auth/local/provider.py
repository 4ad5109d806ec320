"""Verifies the platform's own API keys for the tenant they belong to."""

from __future__ import annotations

from typing import ClassVar

from erp.contracts.models.auth import Subject, VerifyRequest, VerifyResult
from erp.runtime.spi import UNSET, CallContext, Config, ErrorCode, ErrorTable, Health, OpenContext, ProviderError


class LocalIdentity:
    """Tells nothing about credentials of other tenants: they look like invalid ones."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:  # noqa: ARG002  (nothing to configure)
        self._identity = context.identity
        self._tenant = context.tenant

    async def open(self) -> None:
        """Nothing to acquire."""

    async def close(self) -> None:
        """Nothing to release."""

    async def health(self) -> Health:
        """The platform's own keys are there whenever the platform is."""
        return Health(status="ok")

    async def verify(self, request: VerifyRequest, context: CallContext) -> VerifyResult:  # noqa: ARG002
        if request.audience is not UNSET:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "API keys of the platform name no audience.")
        try:
            actor = await self._identity.authenticate(request.credential)
        except ProviderError as error:
            if error.code is not ErrorCode.UNAUTHENTICATED:
                raise
            return VerifyResult(active=False)
        if actor.tenant != self._tenant:
            return VerifyResult(active=False)
        subject = Subject(id=actor.id, kind=actor.kind, roles=sorted(actor.roles), scopes=sorted(actor.scopes))
        return VerifyResult(active=True, subject=subject)
