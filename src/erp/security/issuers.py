"""Tokens of the issuers that tenants trust -> actors, beside the platform's own credentials.

The platform's own keys and tokens go straight to where they always went. Any other credential is one of an issuer that
a tenant has configured as a connection of ``auth/oidc``. The tenant is that of the configuration, never what the token
says alone: when several tenants trust the issuer and the token would be good in more than one, ``X-Tenant-Id`` has to
name the one that is meant.
"""

from __future__ import annotations

import hashlib
import os
import time
from hashlib import blake2b
from typing import TYPE_CHECKING, NoReturn, TypeVar

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.revisions import Topic
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.security.identity import CAPACITY, DIGEST_BYTES, MAX_CACHED_SECONDS, REFUSAL
from erp.security.tokens import is_own
from erp.security.trust import Trust, Trusted
from erp.vendor_clients.oidc.failures import IssuerRefusedError, IssuerUnavailableError, TokenRefusedError
from erp.vendor_clients.oidc.tokens import MAX_TOKEN_BYTES, looks_signed, stated_issuer

if TYPE_CHECKING:
    from erp.control_plane.directory import Directory
    from erp.control_plane.revisions import Revisions
    from erp.control_plane.revoked_tokens import RevokedTokens
    from erp.runtime.ports import Identity
    from erp.vendor_clients.oidc.holder import Holder

T = TypeVar("T")

KEY_START = "erpk_"
OPAQUE_SECONDS = 30.0
"""How long the answer of an introspection is believed."""
REFUSED_SECONDS = 10.0
"""How long a refused credential is refused without being looked at again."""
MOST_CANDIDATES = 8
"""When more tenants trust an issuer, a token has to say with ``X-Tenant-Id`` where it is meant."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """A credential of an issuer, verified."""

    actor: Actor
    trusted: Trusted
    expires_at: float
    """Seconds since 1970."""


class IssuerIdentity:
    """Answers for every credential; remembers verified ones by a keyed digest, bounded in number and time."""

    def __init__(
        self, own: Identity, trust: Trust, revoked: RevokedTokens, directory: Directory, revisions: Revisions
    ) -> None:
        self._own = own.authenticate
        self._trust = trust
        self._revoked = revoked
        self._directory = directory
        self._revisions = revisions
        self._seed = os.urandom(32)
        self._known: dict[bytes, tuple[float, Actor]] = {}
        self._refused: dict[bytes, float] = {}
        """Kept apart, so that a flood of forged tokens pushes no good one out."""
        self._generation = 0
        for topic in (Topic.CONFIGURATION, Topic.SESSIONS):
            revisions.watch(topic, self.forget_all)

    def forget_all(self) -> None:
        """Verify every token anew: an issuer was changed, or a token revoked."""
        self._known.clear()
        self._refused.clear()
        self._generation += 1

    async def authenticate(self, credential: str, tenant: str | None = None) -> Actor:
        """Return who holds ``credential``.

        Args:
            credential: an API key, a token of the platform or one of an issuer.
            tenant: where it is meant to be good, when the caller says so.

        Raises:
            ProviderError: ``unauthenticated``, always with the same message; ``unavailable`` when the issuer does not answer.
        """
        if credential.startswith(KEY_START) or is_own(credential):
            return await self._own(credential)
        if len(credential) > MAX_TOKEN_BYTES:
            _refuse()
        now = time.monotonic()
        if now >= self._revisions.trusted_until:
            await self._revisions.refresh()
        place = f"{tenant or ''} {credential}".encode(errors="replace")
        digest = blake2b(place, digest_size=DIGEST_BYTES, key=self._seed).digest()
        found = self._known.get(digest)
        if found is not None and found[0] > now:
            return found[1]
        if self._refused.get(digest, 0.0) > now:
            _refuse()
        return await self._look_up(credential, tenant, digest)

    async def _look_up(self, credential: str, tenant: str | None, digest: bytes) -> Actor:
        generation = self._generation
        try:
            verified = await self.verify(credential, tenant)
        except TokenRefusedError:
            if generation == self._generation:
                _bounded(self._refused, digest, time.monotonic() + REFUSED_SECONDS)
            _refuse()
        except (IssuerUnavailableError, IssuerRefusedError) as error:
            message = "The issuer of the token cannot be asked now."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, detail=str(error), retry_after_seconds=5.0) from error
        if generation == self._generation:
            most = MAX_CACHED_SECONDS if looks_signed(credential) else OPAQUE_SECONDS
            until = time.monotonic() + min(most, verified.expires_at - time.time())
            _bounded(self._known, digest, (until, verified.actor))
        return verified.actor

    async def verify(self, credential: str, tenant: str | None) -> Verified:
        """Return what a credential of an issuer proves, now.

        Raises:
            TokenRefusedError: nothing.
            IssuerUnavailableError, IssuerRefusedError: its issuer cannot be asked.
        """
        found: list[tuple[Trusted, Holder]] = []
        failure: Exception | None = None
        for trusted in await self._candidates(credential, tenant):
            try:
                issuer = await self._trust.issuer(trusted)
                found.append((trusted, await issuer.holder(credential)))
            except TokenRefusedError:
                continue
            except (IssuerUnavailableError, IssuerRefusedError) as error:
                failure = error  # One tenant's broken configuration is no other tenant's concern.
        if failure is not None and not found:
            raise failure
        if len(found) != 1:
            raise TokenRefusedError("No tenant trusts it, or more than one does and none was named.")
        trusted, holder = found[0]
        if await self._revoked.holds(trusted.tenant, token_digest(credential)):
            raise TokenRefusedError("It was revoked.")
        actor = await self._placed(trusted, holder)
        return Verified(actor=actor, trusted=trusted, expires_at=holder.expires_at)

    async def _placed(self, trusted: Trusted, holder: Holder) -> Actor:
        """Return the actor that a holder is, with what the tenant's directory says of the person."""
        actor = actor_of(trusted, holder)
        standing = await self._directory.standing(trusted.tenant, holder.subject)
        if standing is None:
            return actor
        if not standing.is_active:
            raise TokenRefusedError("The person was deactivated.")
        return msgspec.structs.replace(actor, roles=actor.roles | standing.roles)

    async def _candidates(self, credential: str, tenant: str | None) -> list[Trusted]:
        if not looks_signed(credential):
            # An opaque token does not say whom to ask: only the issuers of a named tenant are.
            return [one for one in await self._trust.of_tenant(tenant) if one.opaque_tokens] if tenant else []
        issuer = stated_issuer(credential)
        found = await self._trust.of_issuer(issuer) if issuer else []
        if tenant is not None:
            return [one for one in found if one.tenant == tenant]
        return found if len(found) <= MOST_CANDIDATES else []

    async def revoke(self, tenant: str, credential: str) -> bool:
        """Refuse a token of an issuer of ``tenant`` from now on; return whether its issuer was told too.

        Raises:
            ProviderError: ``invalid_argument`` when it is not valid in this tenant anyway.
        """
        try:
            verified = await self.verify(credential, tenant)
        except TokenRefusedError as error:
            message = "The token is not valid in this tenant."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message) from error
        await self._revoked.add(tenant, token_digest(credential), verified.expires_at)
        issuer = await self._trust.issuer(verified.trusted)
        if not issuer.settings.client_id:
            return False
        try:
            return await issuer.revoke(credential)
        except (IssuerUnavailableError, IssuerRefusedError):
            return False  # It is refused here all the same.


def _bounded(kept: dict[bytes, T], digest: bytes, value: T) -> None:
    kept.pop(digest, None)
    while len(kept) >= CAPACITY:
        del kept[next(iter(kept))]
    kept[digest] = value


def actor_of(trusted: Trusted, holder: Holder) -> Actor:
    """Return the actor that a holder is here. Its id cannot be that of a key, a service or a holder of another issuer."""
    return Actor(
        id=f"user:{trusted.name}:{holder.subject}",
        tenant=trusted.tenant,
        roles=frozenset(holder.roles),
        scopes=frozenset(holder.scopes),
        kind="user",
    )


def token_digest(token: str) -> bytes:
    """Return what a token is known by when it is revoked.

    Of a signed one without its signature: the same token can be written with another one that is valid too.
    """
    text = token.rpartition(".")[0] if looks_signed(token) else token
    return hashlib.sha256(text.encode()).digest()


def _refuse() -> NoReturn:
    raise ProviderError(ErrorCode.UNAUTHENTICATED, REFUSAL)
