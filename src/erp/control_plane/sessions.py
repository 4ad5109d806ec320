"""Browser sessions. What the browser holds is kept nowhere, only a keyed digest of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database
from erp.control_plane.people_tables import sessions
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tenants import require
from erp.errors import ProviderError

KEPT_SECONDS = 3600
"""A session that has ended is kept so long, so that its sign-in cannot be used again."""


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session, without what proves it."""

    id: str
    tenant: str
    connection: str
    """Of ``auth/oidc``: the issuer."""
    issuer_revision: str
    """That of the connection when the person signed in; with another one the session is over."""
    subject: str
    roles: list[str]
    scopes: list[str]
    user_agent: str
    created_at: int
    seen_at: int
    ends_at: int
    ended_at: int | None = None
    name_id: str | None = None
    """What an identity provider of SAML calls the person."""
    session_index: str | None = None
    """What it calls the session."""


class StoredSessions:
    """The sessions of all tenants. Times are moments (``erp.control_plane.moments``)."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self.revisions = revisions

    async def add(self, session: StoredSession, digest: bytes, sign_in: bytes) -> None:
        """Keep a new session.

        Args:
            session: the session.
            digest: of what the browser proves it with.
            sign_in: digest of the state of the sign-in that made it.

        Raises:
            ProviderError: ``permission_denied`` when that sign-in was used before; nothing is kept.
        """
        row = {**msgspec.structs.asdict(session), "digest": digest, "sign_in": sign_in}
        row |= {name: msgspec.json.encode(row[name]).decode() for name in ("roles", "scopes")}

        def write(connection: sa.Connection) -> None:
            require(connection, session.tenant, alone=True)
            before = moments.after(-KEPT_SECONDS)
            connection.execute(sa.delete(sessions).where(sessions.c.ends_at < before))
            connection.execute(sa.insert(sessions).values(row))

        try:
            await self._database.transact(write)
        except sa.exc.IntegrityError as error:
            raise ProviderError(ErrorCode.PERMISSION_DENIED, "The sign-in was used before. Begin a new one.") from error

    async def find(self, digest: bytes) -> StoredSession | None:
        """Return the session that a digest proves, whether it has ended or not."""
        statement = sa.select(sessions).where(sessions.c.digest == digest)
        row = await self._database.run(lambda connection: connection.execute(statement).mappings().first())
        return None if row is None else _session(row)

    async def seen(self, digest: bytes) -> None:
        """Keep that a session was used now."""
        statement = sa.update(sessions).where(sessions.c.digest == digest).values(seen_at=moments.now())
        await self._database.transact(lambda connection: connection.execute(statement).rowcount)

    async def list(
        self, tenant: str, *, subject: tuple[str, str] | None, idle_since: int, cursor: str | None, limit: int
    ) -> tuple[list[StoredSession], str | None]:
        """Return live sessions, newest first, and the cursor of the next page.

        Args:
            tenant: whose.
            subject: connection and subject of one person; None: everybody's.
            idle_since: sessions that were last used before count as ended.
            cursor: from the page before.
            limit: how many.
        """
        table, place = sessions.c, sa.tuple_(sessions.c.created_at, sessions.c.id)
        statement = (
            sa.select(sessions)
            .where(table.tenant == tenant, table.ended_at.is_(None), table.ends_at > moments.now())
            .where(table.seen_at > idle_since)
            .order_by(table.created_at.desc(), table.id.desc())
            .limit(limit + 1)
        )
        if subject is not None:
            statement = statement.where(table.connection == subject[0], table.subject == subject[1])
        before = cursors.read(cursor, tuple[int, str])
        if before is not None:
            statement = statement.where(place < sa.tuple_(*before))
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        found = [_session(row) for row in rows[:limit]]
        more = len(rows) > limit
        return found, cursors.written((found[-1].created_at, found[-1].id)) if more else None

    async def end(self, tenant: str, id_: str, *, subject: tuple[str, str] | None = None) -> StoredSession | None:
        """End a session, in every process within a second; None when there is no such live one (of that person)."""
        table = sessions.c
        is_it = sa.and_(table.id == id_, table.tenant == tenant, table.ended_at.is_(None))
        if subject is not None:
            is_it = sa.and_(is_it, table.connection == subject[0], table.subject == subject[1])

        def write(connection: sa.Connection) -> StoredSession | None:
            row = connection.execute(sa.select(sessions).where(is_it).with_for_update()).mappings().first()
            connection.execute(sa.update(sessions).where(is_it).values(ended_at=moments.now()))
            return None if row is None else _session(row)

        ended = await self._database.transact(counted(write, Topic.SESSIONS))
        self.revisions.announce(Topic.SESSIONS)
        return ended

    async def end_named(self, tenant: str, connection: str, name_id: str, indexes: Sequence[str]) -> Sequence[str]:
        """End the live sessions of whom an identity provider names, or those of ``indexes``; return their ids.

        A session whose identity provider gave it no index is ended with every one.
        """
        table = sessions.c
        is_it = sa.and_(table.tenant == tenant, table.connection == connection, table.name_id == name_id)
        is_it = sa.and_(is_it, table.ended_at.is_(None), table.ends_at > moments.now())
        if indexes:
            is_it = sa.and_(is_it, sa.or_(table.session_index.in_(indexes), table.session_index.is_(None)))

        def write(connection: sa.Connection) -> Sequence[str]:
            named = sa.select(table.id).where(is_it).order_by(table.id).with_for_update()
            found = connection.execute(named).scalars().all()
            connection.execute(sa.update(sessions).where(is_it).values(ended_at=moments.now()))
            return found

        ended = await self._database.transact(counted(write, Topic.SESSIONS))
        self.revisions.announce(Topic.SESSIONS)
        return ended


def _session(row: Mapping[Any, Any]) -> StoredSession:
    values = {name: row[name] for name in StoredSession.__struct_fields__}
    values |= {name: msgspec.json.decode(row[name]) for name in ("roles", "scopes")}
    return StoredSession(**values)
