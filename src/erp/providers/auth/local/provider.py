"""The platform's own identity provider: API keys, the tokens made from them, and the platform's decisions."""

from __future__ import annotations

from typing import Any, ClassVar

from erp.contracts.models.auth import (
    EvaluateRequest,
    EvaluateResult,
    ExchangeRequest,
    ExchangeResult,
    IntrospectRequest,
    IntrospectResult,
    Subject,
    VerifyRequest,
    VerifyResult,
)
from erp.runtime.spi import (
    UNSET,
    Actor,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    Introspection,
    OpenContext,
    ProviderError,
)

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  (a name, RFC 8693 section 3)


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
        found = await self._known(request.credential)
        if found is None or found.actor is None:
            return VerifyResult(active=False)
        if request.audience is not UNSET and found.client_id is None:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, "API keys of the platform name no audience.")
        wanted = _GATEWAY if request.audience is UNSET else request.audience
        if found.audience != wanted:
            return VerifyResult(active=False)
        return VerifyResult(active=True, subject=_subject(found.actor), expires_at=_or_unset(found.expires_at))

    async def introspect(self, request: IntrospectRequest, context: CallContext) -> IntrospectResult:  # noqa: ARG002
        found = await self._known(request.token)
        if found is None or found.actor is None:
            return IntrospectResult(active=False)
        claims = {"tenant": found.actor.tenant, "client_id": found.client_id, "jti": found.token_id}
        if found.acting is not None:
            claims["act"] = found.acting
        return IntrospectResult(
            active=True,
            subject=_subject(found.actor),
            issuer=_or_unset(found.issuer),
            audience=[] if found.audience is None else [found.audience],
            expires_at=_or_unset(found.expires_at),
            claims={name: value for name, value in claims.items() if value is not None},
        )

    async def exchange(self, request: ExchangeRequest, context: CallContext) -> ExchangeResult:  # noqa: ARG002
        if request.subject_token_type != ACCESS_TOKEN:
            error = FieldError("/params/subject_token_type", f"Use {ACCESS_TOKEN}.")
            message = "Tokens of this type cannot be exchanged here."
            raise ProviderError(ErrorCode.UNSUPPORTED, message, errors=[error])
        issued = await self._identity.exchange(
            self._tenant,
            request.subject_token,
            actor_token=None if request.actor_token is UNSET else request.actor_token,
            audience=None if request.audience is UNSET else request.audience,
            scopes=None if request.scopes is UNSET else request.scopes,
        )
        return ExchangeResult(
            access_token=issued.token,
            issued_token_type=ACCESS_TOKEN,
            token_type="Bearer",  # noqa: S106  (RFC 6750, no secret)
            expires_in_seconds=issued.expires_in_seconds,
            scopes=issued.scopes,
        )

    async def evaluate(self, request: EvaluateRequest, context: CallContext) -> EvaluateResult:  # noqa: ARG002
        subject, resource = request.subject, request.resource
        decision = await self._identity.evaluate(
            self._tenant, (subject.type, subject.id), request.action, (resource.type, resource.id)
        )
        return EvaluateResult(decision=decision.allow, reason=decision.reason)

    async def _known(self, credential: str) -> Introspection | None:
        found = await self._identity.introspect(credential)
        return found if found.active and found.actor is not None and found.actor.tenant == self._tenant else None


_GATEWAY = "urn:erp:gateway"


def _subject(actor: Actor) -> Subject:
    return Subject(id=actor.id, kind=actor.kind, roles=sorted(actor.roles), scopes=sorted(actor.scopes))


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value
