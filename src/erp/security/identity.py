"""API keys -> actors. Implements ``ports.Identity``."""

from __future__ import annotations

import hmac
import os
import time
from hashlib import blake2b
from typing import NoReturn

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import key_text, moments
from erp.control_plane.api_keys import ApiKeys, KeyRecord
from erp.control_plane.elevations import Elevations
from erp.control_plane.key_uses import KeyUses
from erp.control_plane.revisions import Topic
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.security.tokens import GATEWAY, Claims, Tokens, looks_like_token

CAPACITY = 10_000
MAX_CACHED_SECONDS = 60.0
"""Also how old the last use of a key can become before it is noted again."""
ELEVATED_SECONDS = 5.0
"""How long an elevated actor is remembered without asking again."""
DIGEST_BYTES = 16
REFUSAL = "The credential is not valid."
KEY_PREFIX = "key_"
"""Before the id of an API key in the id of its actor."""
ACCOUNT_PREFIX = "account_"
"""Before the name of a service account in the id of its actor: it is one actor, with whichever key it comes."""


class KeyIdentity:
    """Remembers actors by a keyed digest of their key: the key itself is kept nowhere.

    A key that is not remembered is looked up, so one created by another process works at once; a
    revoked one is refused at once here and within a second elsewhere.
    """

    def __init__(
        self,
        api_keys: ApiKeys,
        pepper: bytes,
        tokens: Tokens | None = None,
        *,
        elevations: Elevations | None = None,
        uses: KeyUses | None = None,
    ) -> None:
        self._api_keys = api_keys
        self._elevations = elevations
        self._uses = uses
        self._tokens = tokens
        self._pepper = pepper
        self._revisions = api_keys.revisions
        self._seed = os.urandom(32)
        self._known: dict[bytes, tuple[float, Actor]] = {}
        self._generation = 0
        self._revisions.watch(Topic.API_KEYS, self.forget_all)
        self._revisions.watch(Topic.BREAK_GLASS, self.forget_all)

    async def authenticate(self, credential: str) -> Actor:
        now = time.monotonic()
        if now >= self._revisions.trusted_until:
            await self._revisions.refresh()
        try:
            digest = blake2b(credential.encode(), digest_size=DIGEST_BYTES, key=self._seed).digest()
        except UnicodeEncodeError:
            _refuse()
        found = self._known.get(digest)
        if found is not None and found[0] > now:
            return found[1]
        return await self._look_up(credential, digest)

    def forget_all(self) -> None:
        """Look every key up again when it comes next."""
        self._known.clear()
        self._generation += 1

    async def _look_up(self, credential: str, digest: bytes) -> Actor:
        if self._tokens is not None and looks_like_token(credential):
            return await self._token_holder(self._tokens, credential, digest)
        id_ = key_text.key_id(credential)
        if id_ is None:
            _refuse()
        generation = self._generation
        record = await self._api_keys.find(id_)
        presented = key_text.digest(self._pepper, credential)
        stored = bytes(len(presented)) if record is None else record.digest
        if not hmac.compare_digest(presented, stored) or record is None or record.is_revoked:
            _refuse()
        seconds = _seconds_left(record)
        if seconds <= 0:
            _refuse()
        if self._uses is not None:
            self._uses.note(id_, record.last_used_at)
        actor = actor_of(id_, record)
        actor, seconds = await self._elevated(actor, seconds)
        if generation == self._generation:
            self._remember(digest, actor, seconds)
        return actor

    async def _elevated(self, actor: Actor, seconds: float) -> tuple[Actor, float]:
        """Return ``actor`` with the role it has taken on, and how long that may be remembered."""
        if self._elevations is None:
            return actor, seconds
        found = await self._elevations.active(actor.tenant, actor.id)
        if found is None or found.ends_at is None:
            return actor, seconds
        left = (found.ends_at - self._elevations.clock()) / moments.MICROSECONDS
        made = msgspec.structs.replace(actor, elevated=found.role, elevation=found.id)
        # The database's clock of moments may be set forward while the monotonic one goes on: ask again soon.
        return made, min(seconds, left, ELEVATED_SECONDS)

    async def _token_holder(self, tokens: Tokens, credential: str, digest: bytes) -> Actor:
        generation = self._generation
        claims = await tokens.check(credential)
        record = None if claims is None or claims.aud != GATEWAY else await self.source(claims)
        if claims is None or record is None:
            _refuse()
        key = claims.client_id.removeprefix(KEY_PREFIX)
        actor = Actor(
            id=claims.sub,
            tenant=claims.tenant,
            roles=frozenset(claims.roles),
            scopes=frozenset(claims.scope.split()),
            key="" if record.rate is None else key,
            rate=record.rate,
        )
        if generation == self._generation:
            self._remember(digest, actor, claims.exp - time.time())
        return actor

    async def source(self, claims: Claims) -> KeyRecord | None:
        """Return the API key that a token comes from while it is good: a token dies with it."""
        record = await self._api_keys.find(claims.client_id.removeprefix(KEY_PREFIX))
        if record is None or record.tenant != claims.tenant or not set(claims.roles) <= {record.role}:
            return None
        return record if is_good(record) else None

    def _remember(self, digest: bytes, actor: Actor, seconds: float) -> None:
        self._known.pop(digest, None)
        while len(self._known) >= CAPACITY:
            del self._known[next(iter(self._known))]
        self._known[digest] = (time.monotonic() + min(seconds, MAX_CACHED_SECONDS), actor)


def actor_of(key: str, record: KeyRecord) -> Actor:
    """Return who holds the API key with the id ``key``."""
    account = record.service_account
    return Actor(
        id=f"{KEY_PREFIX}{key}" if account is None else f"{ACCOUNT_PREFIX}{account}",
        tenant=record.tenant,
        roles=frozenset({record.role}),
        scopes=record.scopes,
        key="" if record.rate is None else key,
        rate=record.rate,
    )


def is_good(record: KeyRecord) -> bool:
    """Whether a key, and the service account that it may belong to, is accepted at this moment."""
    return not record.is_revoked and _seconds_left(record) > 0


def _seconds_left(record: KeyRecord) -> float:
    if record.expires_at is None:
        return MAX_CACHED_SECONDS
    return (record.expires_at - moments.now()) / moments.MICROSECONDS


def _refuse() -> NoReturn:
    """Refuse, always with the same words: nothing can be learned about which part was wrong."""
    raise ProviderError(ErrorCode.UNAUTHENTICATED, REFUSAL)
