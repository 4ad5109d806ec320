"""The signed checkpoints of audit logs. Append-only."""

from __future__ import annotations

from functools import partial

import msgspec
import sqlalchemy as sa

from erp.control_plane import cursors, moments
from erp.control_plane.database import Database
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import audit, audit_checkpoints, audit_heads


class StoredCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A signed note over the first ``size`` records of a tenant."""

    tenant: str
    size: int
    note: str
    made_at: str


class StoredCheckpoints:
    """The checkpoints of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, tenant: str, size: int, note: str) -> StoredCheckpoint:
        """Keep a checkpoint; of two over the same records the first stays. Return the one that is kept."""
        statement = insert_new(self._database.dialect, audit_checkpoints).values(
            tenant=tenant, size=size, note=note, made_at=moments.now()
        )
        await self._database.transact(lambda connection: connection.execute(statement))
        return await self.newest(tenant, until=size)  # type: ignore[return-value]  # it was just added

    async def newest(self, tenant: str, *, until: int | None = None) -> StoredCheckpoint | None:
        """Return the checkpoint over the most records, at most ``until``."""
        table = audit_checkpoints.c
        statement = sa.select(audit_checkpoints).where(table.tenant == tenant)
        if until is not None:
            statement = statement.where(table.size <= until)
        statement = statement.order_by(table.size.desc()).limit(1)
        row = await self._database.run(lambda connection: connection.execute(statement).first())
        return None if row is None else _checkpoint(row)

    async def page(
        self, tenant: str, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[StoredCheckpoint], str | None]:
        """Return a page, newest first."""
        table = audit_checkpoints.c
        statement = sa.select(audit_checkpoints).where(table.tenant == tenant)
        before = cursors.read(cursor, int)
        if before is not None:
            statement = statement.where(table.size < before)
        statement = statement.order_by(table.size.desc()).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        items = [_checkpoint(row) for row in rows[:limit]]
        return items, cursors.written(items[-1].size) if len(rows) > limit else None

    async def after(self, tenant: str, size: int, limit: int) -> list[StoredCheckpoint]:
        """Return up to ``limit`` checkpoints over more than ``size`` records, in their order."""
        table = audit_checkpoints.c
        statement = sa.select(audit_checkpoints).where(table.tenant == tenant, table.size > size)
        statement = statement.order_by(table.size).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [_checkpoint(row) for row in rows]

    async def tenants(self) -> list[str]:
        """Return whoever has audit records, also those that are gone."""
        return await self._database.run(partial(_tenants, sa.select(audit_heads.c.tenant)))

    async def grown(self, *, without_actor: str = "") -> list[str]:
        """Return whose log has records that no checkpoint covers; those of ``without_actor`` alone do not count."""
        newest = sa.select(sa.func.coalesce(sa.func.max(audit_checkpoints.c.size), 0))
        newest = newest.where(audit_checkpoints.c.tenant == audit_heads.c.tenant)
        behind = sa.select(audit.c.seq).where(
            audit.c.tenant == audit_heads.c.tenant,
            audit.c.seq > newest.correlate(audit_heads).scalar_subquery(),
            audit.c.actor != without_actor,
        )
        statement = sa.select(audit_heads.c.tenant).where(behind.correlate(audit_heads).exists())
        return await self._database.run(partial(_tenants, statement))

    async def unarchived(self, after: tuple[str, int], limit: int) -> list[StoredCheckpoint]:
        """Return up to ``limit`` checkpoints behind tenant and size that are not known to be in the archive."""
        table = audit_checkpoints.c
        statement = sa.select(audit_checkpoints).where(
            table.archived_at.is_(None), sa.tuple_(table.tenant, table.size) > sa.tuple_(*after)
        )
        statement = statement.order_by(table.tenant, table.size).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return [_checkpoint(row) for row in rows]

    async def archived(self, tenant: str, size: int) -> None:
        """Record that a checkpoint is in the archive."""
        table = audit_checkpoints.c
        statement = sa.update(audit_checkpoints).where(table.tenant == tenant, table.size == size)
        await self._database.transact(
            lambda connection: connection.execute(statement.values(archived_at=moments.now()))
        )


def _tenants(statement: sa.Select[str], connection: sa.Connection) -> list[str]:
    return list(connection.execute(statement.order_by(audit_heads.c.tenant)).scalars())


def _checkpoint(row: sa.Row[str, int, str, int, int | None]) -> StoredCheckpoint:
    tenant, size, note, made_at, _ = row
    return StoredCheckpoint(tenant=tenant, size=size, note=note, made_at=moments.text(made_at))
