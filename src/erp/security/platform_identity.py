"""Who holds a credential of the platform (API key or token), and what they may do. Implements ``ports.Identity``."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import key_text
from erp.errors import FieldError, ProviderError
from erp.runtime.context import Actor
from erp.runtime.ports import Decision, Introspection, IssuedToken
from erp.runtime.question import Question
from erp.security.identity import KEY_PREFIX, KeyIdentity
from erp.security.subjects import TYPES
from erp.security.tokens import GATEWAY, ISSUER, LIFETIME_SECONDS, Claims, Tokens, looks_like_token

if TYPE_CHECKING:
    from erp.control_plane.api_keys import ApiKeys
    from erp.runtime.catalog import ProviderCatalog
    from erp.runtime.ports import Policy
    from erp.security.subjects import Subjects

_AREAS: dict[str, Literal["providers", "services", "admin"]] = {
    "provider": "providers",
    "service": "services",
    "administration": "admin",
}
_EFFECTS = {
    **dict.fromkeys(("checkpoints", "explain", "export", "get", "key", "list", "prove", "read"), "read"),
    **dict.fromkeys(("report", "retention", "rules", "search", "shadow", "test"), "read"),
    **dict.fromkeys(("approve", "change", "checkpoint", "configure", "create", "put", "record", "register"), "write"),
    **dict.fromkeys(("reload", "request", "requeue", "roll_back", "rotate", "set"), "write"),
    **dict.fromkeys(("set_retention", "set_rules"), "write"),
}
"""Of actions of administration; any other one is taken for destructive."""


def administrative_effect(action: str) -> str:
    """Return what an action of administration does; of one that is not known, the worst."""
    return _EFFECTS.get(action, "destructive")


class PlatformIdentity:
    """The platform's own identity provider, as ``auth/local`` and the gateway use it."""

    def __init__(
        self,
        keys: KeyIdentity,
        tokens: Tokens,
        api_keys: ApiKeys,
        policy: Policy,
        catalog: ProviderCatalog,
        subjects: Subjects,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._api_keys = api_keys
        self._policy = policy
        self._catalog = catalog
        self.subjects = subjects
        self.authenticate = keys.authenticate
        """The gateway's way, without a detour."""
        self.forget_all = keys.forget_all
        """Look every credential up again when it comes next."""

    async def introspect(self, credential: str) -> Introspection:
        """Return what is known of a credential; ``active`` False says nothing more."""
        if looks_like_token(credential):
            claims = await self._tokens.check(credential)
            if claims is None or await self._keys.source(claims) is None:
                return Introspection(active=False)
            return _of_token(claims)
        try:
            actor = await self._keys.authenticate(credential)
        except ProviderError as error:
            if error.code is not ErrorCode.UNAUTHENTICATED:
                raise
            return Introspection(active=False)
        record = await self._api_keys.find(key_text.key_id(credential) or "")
        ends = None if record is None or record.expires_at is None else record.expires_at / 1_000_000
        return Introspection(active=True, actor=actor, issuer=ISSUER, audience=GATEWAY, expires_at=_time(ends))

    async def exchange(
        self,
        tenant: str,
        subject_token: str,
        *,
        actor_token: str | None = None,
        audience: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> IssuedToken:
        """Return a short-lived token for ``subject_token`` (RFC 8693): never wider, never for longer.

        Raises:
            ProviderError: ``invalid_argument`` for a token that is not valid in ``tenant`` or not meant for the
                gateway, ``permission_denied`` for scopes that the subject does not have.
        """
        subject = await self._valid(tenant, subject_token, "/params/subject_token")
        acting = None if actor_token is None else await self._valid(tenant, actor_token, "/params/actor_token")
        actor = subject.actor
        assert actor is not None  # noqa: S101  (an active credential names its actor)
        token, claims = await self._tokens.issue(
            tenant,
            subject=actor.id,
            client_id=subject.client_id or f"{KEY_PREFIX}{key_text.key_id(subject_token)}",
            roles=sorted(actor.roles),
            scopes=_narrowed(actor, scopes),
            audience=audience or GATEWAY,
            seconds=_seconds_left(subject),
            actor=None if acting is None or acting.actor is None else acting.actor.id,
        )
        expires_in = claims.exp - claims.iat
        return IssuedToken(token=token, expires_in_seconds=expires_in, scopes=claims.scope.split())

    async def _valid(self, tenant: str, credential: str, pointer: str) -> Introspection:
        found = await self.introspect(credential)
        # A token meant for somebody else must not become one for the gateway.
        if not found.active or found.actor is None or found.actor.tenant != tenant or found.audience != GATEWAY:
            _refuse(pointer)
        return found

    async def evaluate(self, tenant: str, subject: tuple[str, str], action: str, resource: tuple[str, str]) -> Decision:
        """Decide as the gateway would (OpenID AuthZEN): may ``subject`` do ``action`` on ``resource``?

        A subject is ``("key", id)``, ``("service_account", name)`` or ``("user", id)`` (``Subjects.find``), a resource
        ``("provider", "cache/memory")``, ``("service", "order")`` or ``("administration", "keys")``. What is unknown is denied.
        """
        area = _AREAS.get(resource[0])
        actor = await self.subjects.find(tenant, *subject)
        if actor is None:
            known = f"; subjects are of type {', '.join(TYPES)}" if subject[0] not in TYPES else ""
            return Decision(allow=False, reason=f"nobody of this tenant is this subject, or not any more{known}")
        if area is None:
            return Decision(allow=False, reason=f"resources are of type {', '.join(sorted(_AREAS))}")
        domain, _, name = resource[1].partition("/")
        try:
            effect = (
                administrative_effect(action) if area == "admin" else self._catalog.action(area, domain, action).effect
            )
        except ProviderError as error:
            return Decision(allow=False, reason=error.message)
        named = {"providers": name, "services": domain, "admin": name or "*"}[area]
        question = Question(actor=actor, area=area, domain=domain, name=named, action=action, effect=effect)
        return self._policy.known(question) or await self._policy.decide(question)


def _of_token(claims: Claims) -> Introspection:
    scopes = frozenset(claims.scope.split())
    actor = Actor(id=claims.sub, tenant=claims.tenant, roles=frozenset(claims.roles), scopes=scopes)
    return Introspection(
        active=True,
        actor=actor,
        issuer=claims.iss,
        audience=claims.aud,
        expires_at=_time(claims.exp),
        client_id=claims.client_id,
        acting=None if claims.act is None else claims.act["sub"],
        token_id=claims.jti,
    )


def _time(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _seconds_left(subject: Introspection) -> float:
    if subject.expires_at is None:
        return LIFETIME_SECONDS
    return (subject.expires_at - datetime.datetime.now(datetime.UTC)).total_seconds()


def _narrowed(actor: Actor, wanted: Sequence[str] | None) -> Sequence[str]:
    """Return the scopes of the new token: those asked for when the subject has them, or all of the subject's."""
    if not wanted:
        return sorted(actor.scopes)
    if actor.scopes and not actor.scopes.issuperset(wanted):
        message = f"The subject does not have these scopes. Ask for some of: {', '.join(sorted(actor.scopes))}."
        raise ProviderError(ErrorCode.PERMISSION_DENIED, message, errors=[FieldError("/params/scopes", message)])
    return wanted


def _refuse(pointer: str) -> NoReturn:
    message = "The token is not valid here."
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[FieldError(pointer, "Use a valid one.")])
