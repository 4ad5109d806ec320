"""Encrypted rows of the secret store. Whoever reads them without the key learns nothing but names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database, Work
from erp.control_plane.remembered import Remembered
from erp.control_plane.retirements import forget, retire
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.rotation_tables import secret_retirements
from erp.control_plane.tables import secrets, tenants
from erp.control_plane.tenants import require

REMEMBERED = 1_000
"""Rows of up to 64 KiB."""


class SecretRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a secret as it is stored; ``envelope`` is None once it is destroyed."""

    version: int
    created_at: int
    key_id: str | None
    envelope: bytes | None


class WrappedRow(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope with its place and the key that wraps it."""

    tenant: str
    path: str
    version: int
    key_id: str
    envelope: bytes


class SecretRows:
    """Versions of secrets by tenant and path."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions
        self._remembered: Remembered[tuple[str, str, int], SecretRow | None] = Remembered(
            revisions, Topic.SECRETS, capacity=REMEMBERED
        )

    async def next_version(self, tenant: str, path: str) -> int:
        """Return the number that the next version of a secret gets."""
        return await self._database.run(partial(_next_version, tenant, path))

    async def add(
        self,
        tenant: str,
        path: str,
        version: int,
        key_id: str,
        envelope: bytes,
        *,
        overlap_seconds: float | None = None,
    ) -> bool:
        """Store a new version; False when another one has taken its number meanwhile.

        With ``overlap_seconds`` the versions before are destroyed that long after nothing uses them any more.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist.
        """
        row = {"tenant": tenant, "path": path, "version": version, "key_id": key_id, "envelope": envelope}
        return await self._changed(partial(_add, row, overlap_seconds))

    async def find(self, tenant: str, path: str, version: int | None) -> SecretRow | None:
        """Return a version, or the newest one; None when there is none or it is destroyed.

        The newest one is always asked for; a numbered one is remembered, and forgotten when any secret changes.
        """
        if version is None:
            return await self._read(tenant, path, None)
        return await self._remembered.get((tenant, path, version), lambda: self._read(tenant, path, version))

    async def _read(self, tenant: str, path: str, version: int | None) -> SecretRow | None:
        statement = _rows(tenant, path).where(secrets.c.envelope.is_not(None)).limit(1)
        if version is not None:
            statement = statement.where(secrets.c.version == version)
        row = await self._database.run(lambda connection: connection.execute(statement).first())
        return None if row is None else _row(row)

    async def _changed(self, work: Work[bool]) -> bool:
        has_changed = await self._database.transact(counted(work, Topic.SECRETS))
        self._revisions.announce(Topic.SECRETS)
        return has_changed

    async def versions(self, tenant: str, path: str) -> list[SecretRow]:
        """Return all versions, newest first, destroyed ones too."""
        rows = await self._database.run(lambda connection: connection.execute(_rows(tenant, path)).all())
        return [_row(row) for row in rows]

    async def newest(self, tenant: str, path: str) -> int | None:
        """Return the number of the newest version that is not destroyed; None: there is none."""
        table = secrets.c
        newest = sa.select(sa.func.max(table.version)).where(
            table.tenant == tenant, table.path == path, table.envelope.is_not(None)
        )
        return await self._database.run(lambda connection: connection.execute(newest).scalar())

    async def due(self, tenant: str, path: str) -> dict[int, int]:
        """Return the moments at which versions are to be destroyed, by number."""
        table = secret_retirements.c
        statement = sa.select(table.version, table.due_at).where(table.tenant == tenant, table.path == path)
        return dict(await self._database.run(lambda connection: connection.execute(statement).all()))

    async def paths(self, tenant: str, prefix: str) -> list[str]:
        """Return the paths under ``prefix`` that still hold a secret, sorted."""
        table = secrets.c
        statement = (
            sa.select(table.path)
            .distinct()
            .where(table.tenant == tenant, table.path.startswith(prefix, autoescape=True), table.envelope.is_not(None))
        )
        rows = await self._database.run(lambda connection: list(connection.execute(statement).scalars()))
        # LIKE ignores case on SQLite, and the databases sort differently.
        return sorted(path for path in rows if path.startswith(prefix))

    async def count_wrapped_otherwise(self, key_id: str) -> int:
        """Return how many envelopes are wrapped by another key than ``key_id``."""
        count = sa.select(sa.func.count()).select_from(secrets).where(_wrapped_otherwise(key_id))
        return await self._database.run(lambda connection: connection.execute(count).scalar_one())

    async def wrapped_otherwise(self, key_id: str, *, limit: int) -> list[WrappedRow]:
        """Return up to ``limit`` envelopes that another key than ``key_id`` wraps."""
        statement = sa.select(secrets).where(_wrapped_otherwise(key_id)).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [
            WrappedRow(tenant=row.tenant, path=row.path, version=row.version, key_id=row.key_id, envelope=row.envelope)
            for row in rows
        ]

    async def replace(self, changes: Sequence[tuple[WrappedRow, str, bytes]]) -> None:
        """Give rows another key and envelope, all or none; one that was destroyed or replaced meanwhile stays."""
        await self._changed(partial(_replace, changes))

    async def destroy(self, tenant: str, path: str, version: int | None = None) -> bool:
        """Destroy one version or all, beyond repair; their numbers are never used again. False: there was nothing."""
        these = [secrets.c.tenant == tenant, secrets.c.path == path, secrets.c.envelope.is_not(None)]
        if version is not None:
            these.append(secrets.c.version == version)
        emptied = sa.update(secrets).where(*these).values(envelope=None, key_id=None)
        forgotten = forget(tenant, path, version)

        def destroy(connection: sa.Connection) -> bool:
            connection.execute(forgotten)
            return connection.execute(emptied).rowcount > 0

        return await self._changed(destroy)


def _rows(tenant: str, path: str) -> sa.Select[int, int, str, bytes]:
    table = secrets.c
    columns = (table.version, table.created_at, table.key_id, table.envelope)
    return sa.select(*columns).where(table.tenant == tenant, table.path == path).order_by(table.version.desc())


def _wrapped_otherwise(key_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(secrets.c.envelope.is_not(None), secrets.c.key_id != key_id)


def _replace(changes: Sequence[tuple[WrappedRow, str, bytes]], connection: sa.Connection) -> bool:
    table = secrets.c
    for row, key_id, envelope in changes:
        same = (table.tenant == row.tenant, table.path == row.path, table.version == row.version)
        connection.execute(
            sa.update(secrets).where(*same, table.key_id == row.key_id).values(key_id=key_id, envelope=envelope)
        )
    return True


def _row(row: sa.Row[int, int, str, bytes]) -> SecretRow:
    return SecretRow(version=row[0], created_at=row[1], key_id=row[2], envelope=row[3])


def _next_version(tenant: str, path: str, connection: sa.Connection) -> int:
    table = secrets.c
    newest = sa.select(sa.func.max(table.version)).where(table.tenant == tenant, table.path == path)
    return (connection.execute(newest).scalar() or 0) + 1


def _add(row: Mapping[str, Any], overlap_seconds: float | None, connection: sa.Connection) -> bool:
    require(connection, row["tenant"])
    # Two processes that add a version of one secret number them one after the other.
    connection.execute(sa.select(tenants.c.id).where(tenants.c.id == row["tenant"]).with_for_update())
    if _next_version(row["tenant"], row["path"], connection) != row["version"]:
        return False
    connection.execute(sa.insert(secrets).values({**row, "created_at": moments.now()}))
    if overlap_seconds is not None:
        retire(connection, row["tenant"], row["path"], before=row["version"], overlap_seconds=overlap_seconds)
    return True
