"""Browser sessions: opened after a sign-in, proven by a cookie, ended by time, by their owner or by an administrator.

A session is over when it was not used for ``idle_seconds``, when it is ``longest_seconds`` old, when it was ended, and
when the issuer it comes from is configured otherwise than when the person signed in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.revisions import Topic
from erp.control_plane.sessions import StoredSession, StoredSessions
from erp.errors import ProviderError
from erp.runtime.context import Actor
from erp.security.identity import CAPACITY

if TYPE_CHECKING:
    from erp.control_plane.directory import Directory
    from erp.security.sign_in_sources import SignInSources, Source
    from erp.vendor_clients.oidc.holder import Holder

SECRET_BYTES = 32
REMEMBERED_SECONDS = 30.0
"""How long a session is not looked up again; also how exactly its last use is known."""
MOST_OF_ONE = 20
"""Sessions of one person that are looked at."""
_SHAPE = re.compile(r"[A-Za-z0-9_-]{43}\Z")


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or not 60 <= int(text) <= 30 * 86_400:  # noqa: PLR2004  (a minute to thirty days)
        message = f"{name} is {text[:20]!r}. Set it to a number of seconds from 60 to 2592000."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return int(text)


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How long sessions last."""

    idle_seconds: int = field(default_factory=lambda: _seconds("ERP_SESSION_IDLE_SECONDS", 1800))
    longest_seconds: int = field(default_factory=lambda: _seconds("ERP_SESSION_MAX_SECONDS", 43_200))


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is good now."""

    id: str
    actor: Actor
    connection: str
    subject: str


class Sessions:
    """Opens, proves and ends sessions."""

    def __init__(
        self,
        stored: StoredSessions,
        trust: SignInSources,
        directory: Directory,
        pepper: bytes,
        settings: SessionSettings,
    ) -> None:
        self._directory = directory
        self._stored = stored
        self._trust = trust
        self._pepper = pepper
        self.settings = settings
        self._known: dict[bytes, tuple[float, OpenSession]] = {}
        self._generation = 0
        self._revisions = stored.revisions
        for topic in (Topic.SESSIONS, Topic.CONFIGURATION):
            self._revisions.watch(topic, self.forget_all)

    def forget_all(self) -> None:
        """Look every session up again when it comes next."""
        self._known.clear()
        self._generation += 1

    async def open(
        self,
        trusted: Source,
        holder: Holder,
        *,
        sign_in: str,
        user_agent: str,
        name_id: str | None = None,
        session_index: str | None = None,
    ) -> str:
        """Begin a session; return what proves it.

        Args:
            trusted: whose issuer the person signed in at.
            holder: who it is.
            sign_in: the state of the sign-in: it makes one session and no second.
            user_agent: what the browser calls itself, shown in lists.
            name_id: what an identity provider of SAML calls the person when it ends the session.
            session_index: what it calls the session.

        Raises:
            ProviderError: ``permission_denied`` when the sign-in was used before.
        """
        secret = secrets.token_urlsafe(SECRET_BYTES)
        now = moments.now()
        session = StoredSession(
            id=f"session_{secrets.token_hex(10)}",
            tenant=trusted.tenant,
            connection=trusted.name,
            issuer_revision=trusted.revision,
            subject=holder.subject,
            roles=holder.roles,
            scopes=holder.scopes,
            user_agent=user_agent[:200],
            created_at=now,
            seen_at=now,
            ends_at=moments.after(self.settings.longest_seconds),
            name_id=name_id,
            session_index=session_index,
        )
        await self._stored.add(session, self._digest("session", secret), self._digest("sign-in", sign_in))
        return secret

    async def find(self, secret: str) -> OpenSession | None:
        """Return the session that a cookie proves; None when it proves none, or none any more."""
        if not _SHAPE.match(secret):
            return None
        await self._revisions.refresh()
        digest = self._digest("session", secret)
        found = self._known.get(digest)
        if found is not None and found[0] > time.monotonic():
            return found[1]
        return await self._look_up(digest)

    async def _look_up(self, digest: bytes) -> OpenSession | None:
        generation = self._generation
        stored = await self._stored.find(digest)
        session = None if stored is None else await self._opened(stored)
        if stored is None or session is None:
            return None
        if stored.seen_at < moments.after(-REMEMBERED_SECONDS):
            await self._stored.seen(digest)
        if generation == self._generation:
            left = (stored.ends_at - moments.now()) / moments.MICROSECONDS
            while len(self._known) >= CAPACITY:
                del self._known[next(iter(self._known))]
            self._known[digest] = (time.monotonic() + min(REMEMBERED_SECONDS, left), session)
        return session

    async def _opened(self, stored: StoredSession) -> OpenSession | None:
        """Return what a session is worth now; None: nothing any more."""
        if not await self._is_alive(stored):
            return None
        standing = await self._directory.standing(stored.tenant, stored.subject)
        if standing is not None and not standing.is_active:
            return None
        actor = Actor(
            id=f"user:{stored.connection}:{stored.subject}",
            tenant=stored.tenant,
            roles=frozenset(stored.roles) | (standing.roles if standing else frozenset()),
            scopes=frozenset(stored.scopes),
            kind="user",
        )
        return OpenSession(id=stored.id, connection=stored.connection, subject=stored.subject, actor=actor)

    async def newest(self, tenant: str, connection: str, subject: str) -> OpenSession | None:
        """Return the session of a person that was opened last, of those that are good now."""
        found, _ = await self.list(tenant, subject=(connection, subject), cursor=None, limit=MOST_OF_ONE)
        for stored in found:
            session = await self._opened(stored)
            if session is not None:
                return session
        return None

    async def _is_alive(self, stored: StoredSession) -> bool:
        if stored.ended_at is not None or stored.ends_at <= moments.now() or stored.seen_at <= self._idle_since:
            return False
        trusted = await self._trust.named(stored.tenant, stored.connection)
        return trusted is not None and trusted.revision == stored.issuer_revision

    @property
    def _idle_since(self) -> int:
        return moments.after(-self.settings.idle_seconds)

    def csrf_token(self, secret: str) -> str:
        """Return what a page has to send with every change, beside the cookie; it proves nothing without that."""
        return base64.urlsafe_b64encode(self._digest("csrf", secret)).rstrip(b"=").decode()

    def is_csrf_token(self, secret: str, presented: str | None) -> bool:
        """Whether a page of ours sent a request."""
        return presented is not None and hmac.compare_digest(self.csrf_token(secret).encode(), presented.encode())

    async def list(
        self, tenant: str, *, subject: tuple[str, str] | None, cursor: str | None, limit: int
    ) -> tuple[list[StoredSession], str | None]:
        """Return live sessions (of one person: connection and subject), newest first, and the next page's cursor."""
        return await self._stored.list(tenant, subject=subject, idle_since=self._idle_since, cursor=cursor, limit=limit)

    async def end(self, tenant: str, id_: str, *, subject: tuple[str, str] | None = None) -> StoredSession | None:
        """End a session (of one person); None when there is no such live one."""
        return await self._stored.end(tenant, id_, subject=subject)

    async def end_named(self, source: Source, name_id: str, session_indexes: Sequence[str]) -> Sequence[str]:
        """End what an identity provider says is over: all sessions of a person, or some; return their ids."""
        return await self._stored.end_named(source.tenant, source.name, name_id, session_indexes)

    def _digest(self, purpose: str, secret: str) -> bytes:
        return hmac.digest(self._pepper, f"{purpose} {secret}".encode(), hashlib.sha256)
