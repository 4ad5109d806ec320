"""Plans to destroy versions of secrets that are kept elsewhere. Implements ``runtime.overlaps.OverlapKeeper``.

They are rows of ``secret_retirements``, as those of the platform's own vault, by the path that references name.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.retirements import forget, plan
from erp.control_plane.rotation_tables import secret_retirements
from erp.control_plane.tenants import require
from erp.errors import ProviderError
from erp.runtime.effects import may_have_happened
from erp.runtime.overlaps import Overlap


class StoredOverlaps:
    """The plans of all connections."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.on_replaced: Callable[[str, str], None] = lambda _tenant, _path: None
        """Called after a version was replaced in this process: the tenant, and the path that references name."""

    def at(self, tenant: str, domain: str, provider: str, connection: str) -> ConnectionOverlaps:
        """Return the plans of one connection."""
        return ConnectionOverlaps(self, tenant, f"{domain}/{provider}/{connection}/")


class ConnectionOverlaps:
    """The plans of one connection; paths are those that its provider knows."""

    def __init__(self, stored: StoredOverlaps, tenant: str, begins: str) -> None:
        self._stored = stored
        self._tenant = tenant
        self._begins = begins

    @contextlib.asynccontextmanager
    async def replacing(self, path: str, versions: Mapping[int, str], seconds: float) -> AsyncIterator[None]:
        """Plan first: a process that is killed after the version was stored leaves nothing behind for ever.

        A plan without a new version destroys nothing that is in use: the current version is never destroyed.
        """
        place = self._begins + path
        planned = await self._transact(partial(_plan, self._tenant, place, versions, seconds))
        try:
            yield
        except ProviderError as error:
            if not may_have_happened(error):
                await self._transact(partial(_withdraw, self._tenant, place, planned))
            raise
        self._stored.on_replaced(self._tenant, place)

    async def of(self, path: str) -> Mapping[str, Overlap]:
        """Return what is planned, and what is destroyed already."""
        table = secret_retirements.c
        columns = (table.version_id, table.due_at, table.over_at)
        mine = sa.select(*columns).where(table.tenant == self._tenant, table.path == self._begins + path)
        rows = await self._stored.database.run(lambda connection: connection.execute(mine).all())
        return {row.version_id: Overlap(ends_at=_time(row.due_at), is_over=row.over_at is not None) for row in rows}

    async def end(self, path: str, version_id: str) -> None:
        """Remember it as long as the secret is there."""
        table = secret_retirements.c
        this = (table.tenant == self._tenant, table.path == self._begins + path, table.version_id == version_id)
        over = sa.update(secret_retirements).where(*this, table.over_at.is_(None)).values(over_at=moments.now())
        await self._stored.database.transact(lambda connection: connection.execute(over).rowcount)

    async def forget(self, path: str) -> None:
        """Forget the plans of one secret."""
        statement = forget(self._tenant, self._begins + path, None)
        await self._stored.database.transact(lambda connection: connection.execute(statement).rowcount)

    async def _transact(self, work: Callable[[sa.Connection], list[int]]) -> list[int]:
        return await self._stored.database.transact(work)


def _plan(tenant: str, path: str, versions: Mapping[int, str], seconds: float, connection: sa.Connection) -> list[int]:
    require(connection, tenant)
    return plan(connection, tenant, path, versions, overlap_seconds=seconds)


def _time(moment: int) -> datetime.datetime:
    return datetime.datetime.fromisoformat(moments.text(moment))


def _withdraw(tenant: str, path: str, versions: list[int], connection: sa.Connection) -> list[int]:
    for version in versions:
        connection.execute(forget(tenant, path, version))
    return versions
