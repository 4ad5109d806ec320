"""Tokens of issuers that were revoked here before their time."""

from __future__ import annotations

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.people_tables import revoked_tokens
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tenants import require


class RevokedTokens:
    """Digests of revoked tokens, kept until the tokens end by themselves."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def add(self, tenant: str, digest: bytes, expires_at: float) -> None:
        """Refuse a token from now on, in every process within a second; twice is once.

        Args:
            tenant: where it is refused.
            digest: of the token.
            expires_at: when it ends by itself, in seconds since 1970.
        """
        row = {"tenant": tenant, "digest": digest, "expires_at": int(expires_at * moments.MICROSECONDS)}

        def write(connection: sa.Connection) -> None:
            require(connection, tenant, alone=True)
            connection.execute(sa.delete(revoked_tokens).where(revoked_tokens.c.expires_at < moments.now()))
            place = sa.tuple_(*revoked_tokens.primary_key) == sa.tuple_(tenant, digest)
            connection.execute(sa.delete(revoked_tokens).where(place))
            connection.execute(sa.insert(revoked_tokens).values(row))

        await self._database.transact(counted(write, Topic.SESSIONS))
        self._revisions.announce(Topic.SESSIONS)

    async def holds(self, tenant: str, digest: bytes) -> bool:
        """Whether a token was revoked."""
        place = sa.tuple_(*revoked_tokens.primary_key) == sa.tuple_(tenant, digest)
        statement = sa.select(sa.literal(1)).where(place).select_from(revoked_tokens)
        return await self._database.run(lambda connection: connection.execute(statement).scalar()) is not None
