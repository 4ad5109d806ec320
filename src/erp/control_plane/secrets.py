"""Encrypted rows of the secret store. Whoever reads them without the key learns nothing but names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.tables import secrets, tenants
from erp.control_plane.tenants import require

Seal = Callable[[int], tuple[str, bytes]]
"""Version -> (id of the key-encryption key, envelope)."""


Rewrap = Callable[[str, str, int, str, bytes], tuple[str, bytes]]
"""Tenant, path, version, id of the key and envelope -> id of the new key and envelope."""


class SecretRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a secret as it is stored; ``envelope`` is None once it is destroyed."""

    version: int
    created_at: int
    key_id: str | None
    envelope: bytes | None


class SecretRows:
    """Versions of secrets by tenant and path."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, path: str, seal: Seal) -> int:
        """Store a new version, sealed for its number, and return the number.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist.
        """
        return await self._database.transact(partial(_add, tenant, path, seal))

    async def find(self, tenant: str, path: str, version: int | None) -> SecretRow | None:
        """Return a version, or the newest one; None when there is none or it is destroyed."""
        statement = _rows(tenant, path).where(secrets.c.envelope.is_not(None)).limit(1)
        if version is not None:
            statement = statement.where(secrets.c.version == version)
        row = await self._database.run(lambda connection: connection.execute(statement).first())
        return None if row is None else _row(row)

    async def versions(self, tenant: str, path: str) -> list[SecretRow]:
        """Return all versions, newest first, destroyed ones too."""
        rows = await self._database.run(lambda connection: connection.execute(_rows(tenant, path)).all())
        return [_row(row) for row in rows]

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

    async def rewrap(self, key_id: str, rewrap: Rewrap, *, limit: int) -> int:
        """Replace up to ``limit`` envelopes that another key wraps, all or none; return how many."""
        return await self._database.transact(partial(_rewrap, key_id, rewrap, limit))

    async def destroy(self, tenant: str, path: str, version: int | None = None) -> bool:
        """Destroy one version or all, beyond repair; their numbers are never used again. False: there was nothing."""
        these = [secrets.c.tenant == tenant, secrets.c.path == path, secrets.c.envelope.is_not(None)]
        if version is not None:
            these.append(secrets.c.version == version)
        statement = sa.update(secrets).where(*these).values(envelope=None, key_id=None)
        return await self._database.transact(lambda connection: connection.execute(statement).rowcount > 0)


def _rows(tenant: str, path: str) -> sa.Select[int, int, str, bytes]:
    table = secrets.c
    columns = (table.version, table.created_at, table.key_id, table.envelope)
    return sa.select(*columns).where(table.tenant == tenant, table.path == path).order_by(table.version.desc())


def _wrapped_otherwise(key_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(secrets.c.envelope.is_not(None), secrets.c.key_id != key_id)


def _rewrap(key_id: str, rewrap: Rewrap, limit: int, connection: sa.Connection) -> int:
    table = secrets.c
    rows = connection.execute(sa.select(secrets).where(_wrapped_otherwise(key_id)).limit(limit)).all()
    for row in rows:
        new_id, envelope = rewrap(row.tenant, row.path, row.version, row.key_id, row.envelope)
        # One that was destroyed or wrapped anew meanwhile stays as it is.
        same = (table.tenant == row.tenant, table.path == row.path, table.version == row.version)
        connection.execute(
            sa.update(secrets).where(*same, table.key_id == row.key_id).values(key_id=new_id, envelope=envelope)
        )
    return len(rows)


def _row(row: sa.Row[int, int, str, bytes]) -> SecretRow:
    return SecretRow(version=row[0], created_at=row[1], key_id=row[2], envelope=row[3])


def _add(tenant: str, path: str, seal: Seal, connection: sa.Connection) -> int:
    require(connection, tenant)
    # Two processes that add a version of one secret number them one after the other.
    connection.execute(sa.select(tenants.c.id).where(tenants.c.id == tenant).with_for_update())
    table = secrets.c
    newest = sa.select(sa.func.max(table.version)).where(table.tenant == tenant, table.path == path)
    version = (connection.execute(newest).scalar() or 0) + 1
    key_id, envelope = seal(version)
    row = {"tenant": tenant, "path": path, "version": version, "created_at": moments.now()}
    connection.execute(sa.insert(secrets).values({**row, "key_id": key_id, "envelope": envelope}))
    return version
