"""Tokens of one OpenID Connect issuer."""

from __future__ import annotations

import datetime
import time
from typing import Any, ClassVar

import msgspec

from erp.contracts.models import auth as contract
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
)
from erp.vendor_clients.egress import EgressRefusedError
from erp.vendor_clients.oidc.failures import (
    IssuerMisconfiguredError,
    IssuerRefusedError,
    IssuerUnavailableError,
    TokenRefusedError,
)
from erp.vendor_clients.oidc.holder import Holder
from erp.vendor_clients.oidc.issuer import ACCESS_TOKEN, Issuer
from erp.vendor_clients.oidc.settings import IssuerSettings
from erp.vendor_clients.oidc.tokens import looks_signed
from erp.vendor_clients.oidc.wire import issuer_http

# RFC 6749, section 5.2; RFC 8693, section 2.2.2; RFC 8707, section 2.
_MEANING = {
    "invalid_client": ErrorCode.UNAUTHENTICATED,
    "unauthorized_client": ErrorCode.UNAUTHENTICATED,
    "invalid_scope": ErrorCode.PERMISSION_DENIED,
    "access_denied": ErrorCode.PERMISSION_DENIED,
    "invalid_request": ErrorCode.INVALID_ARGUMENT,
    "invalid_grant": ErrorCode.INVALID_ARGUMENT,
    "invalid_target": ErrorCode.INVALID_ARGUMENT,
    "unsupported_grant_type": ErrorCode.UNSUPPORTED,
}


class OidcIssuer:
    """Translates; which tenant a token is good for is what the connection says, never the token alone."""

    translate: ClassVar[ErrorTable] = {
        IssuerUnavailableError: ErrorCode.UNAVAILABLE,
        IssuerMisconfiguredError: ErrorCode.FAILED_PRECONDITION,
    }

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = config
        self._tenant = context.tenant
        self._opened: Issuer | None = None

    async def open(self) -> None:
        """Read the configuration and the issuer's own description."""
        try:
            settings = IssuerSettings.of(self._config)
            http = issuer_http(settings.timeout_seconds)
            http.check_url(settings.issuer)
        except (EgressRefusedError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        issuer = Issuer(settings, http, self._tenant)
        try:
            await self._prove(issuer)
        except BaseException:
            await issuer.aclose()
            raise
        self._opened = issuer

    async def _prove(self, issuer: Issuer) -> None:
        """Read the keys; where there is a client, ask about a token that nobody has, which shows a wrong secret."""
        metadata = await issuer.metadata.get()
        await issuer.keys.get()
        if issuer.settings.login_userinfo and not metadata.userinfo_endpoint:
            message = "login_userinfo is set, but the issuer has no userinfo_endpoint. Unset it."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        if issuer.settings.client_secret and metadata.introspection_endpoint:
            try:
                await issuer.introspect("a-token-that-nobody-has")
            except TokenRefusedError:
                return
            except IssuerRefusedError as error:
                raise _refused(error) from error

    async def close(self) -> None:
        issuer, self._opened = self._opened, None
        if issuer is not None:
            await issuer.aclose()

    @property
    def _issuer(self) -> Issuer:
        if self._opened is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.", retry_after_seconds=1.0)
        return self._opened

    async def health(self) -> Health:
        """Read the discovery document now."""
        started = time.monotonic()
        try:
            settings = self._issuer.settings
            await self._issuer.wire.get(f"{settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        except (IssuerUnavailableError, ProviderError) as error:
            issuer = Dependency(name="issuer", status="down", message=str(error))
            return Health(status="down", dependencies=[issuer], message=str(error))
        milliseconds = round((time.monotonic() - started) * 1000, 3)
        issuer = Dependency(name="issuer", status="ok", latency_ms=milliseconds)
        return Health(status="ok", latency_ms=milliseconds, dependencies=[issuer])

    async def verify(self, request: contract.VerifyRequest, context: CallContext) -> contract.VerifyResult:  # noqa: ARG002
        try:
            holder = await self._holder(request.credential, _given(request.audience))
        except TokenRefusedError:
            return contract.VerifyResult(active=False)
        return contract.VerifyResult(active=True, subject=_subject(holder), expires_at=_time(holder))

    async def introspect(self, request: contract.IntrospectRequest, context: CallContext) -> contract.IntrospectResult:  # noqa: ARG002
        try:
            holder = await self._introspected(request.token)
        except TokenRefusedError:
            return contract.IntrospectResult(active=False)
        return contract.IntrospectResult(
            active=True,
            subject=_subject(holder),
            issuer=self._issuer.settings.issuer,
            audience=holder.audience,
            expires_at=_time(holder),
            claims=holder.claims,
        )

    async def exchange(self, request: contract.ExchangeRequest, context: CallContext) -> contract.ExchangeResult:  # noqa: ARG002
        """Check the tokens here first: the issuer does not know which tenant asks."""
        await self._require(request.subject_token, "/params/subject_token")
        if request.actor_token is not UNSET:
            await self._require(request.actor_token, "/params/actor_token")
        try:
            answer = await self._issuer.exchange(
                request.subject_token,
                subject_token_type=request.subject_token_type,
                actor_token=_given(request.actor_token),
                audience=_given(request.audience),
                scopes=_given(request.scopes),
            )
        except IssuerRefusedError as error:
            raise _refused(error) from error
        return _exchanged(answer)

    async def _require(self, token: str, pointer: str) -> None:
        try:
            await self._holder(token)
        except TokenRefusedError as error:
            message = "The token is not valid here."
            refused = [FieldError(pointer, "Use a valid one.")]
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=refused) from error

    async def _holder(self, token: str, audience: str | None = None) -> Holder:
        try:
            return await self._issuer.holder(token, audience)
        except IssuerRefusedError as error:
            raise _refused(error) from error

    async def _introspected(self, token: str) -> Holder:
        """Ask the issuer about an opaque token; a signed one says itself what there is to say."""
        if looks_signed(token):
            return await self._issuer.verify(token)
        try:
            return await self._issuer.introspect(token)
        except IssuerRefusedError as error:
            raise _refused(error) from error


class _Answer(msgspec.Struct, kw_only=True):
    access_token: str
    token_type: str
    issued_token_type: str = ACCESS_TOKEN
    expires_in: int | None = None
    scope: str | None = None


def _exchanged(answer: dict[str, Any]) -> contract.ExchangeResult:
    try:
        found = msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        message = "The issuer answered the exchange with something that is no token."
        raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error)) from error
    return contract.ExchangeResult(
        access_token=found.access_token,
        issued_token_type=found.issued_token_type,
        token_type=found.token_type,
        expires_in_seconds=UNSET if found.expires_in is None else max(0, found.expires_in),
        scopes=UNSET if found.scope is None else found.scope.split(),
    )


def _refused(error: IssuerRefusedError) -> ProviderError:
    code = _MEANING.get(error.error, ErrorCode.FAILED_PRECONDITION)
    return ProviderError(code, f"The issuer refused: {error.error}.")


def _given(value: Any) -> Any:
    return None if value is UNSET else value


def _subject(holder: Holder) -> contract.Subject:
    return contract.Subject(id=holder.subject, kind="user", roles=holder.roles, scopes=holder.scopes)


def _time(holder: Holder) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(holder.expires_at, datetime.UTC)
