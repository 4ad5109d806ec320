"""Which tenants may have work that a service has begun for them and not ended.

The work itself stands in the tenant's own database; this says where to look, so that a process that starts, or goes on
for one that died, need not open the database of every tenant there is.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

import sqlalchemy as sa

from erp.control_plane.database import Database
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import open_work


class StoredOpenWork:
    """One mark per service and tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def mark(self, service: str, tenant: str) -> None:
        """Note the tenant under a mark that was never there before; durable when this returns."""
        row = {"tenant": tenant, "service": service, "mark": secrets.token_hex(8)}
        await self._database.transact(partial(_put, row))

    async def marks(self, service: str) -> dict[str, str]:
        """Return the mark of every tenant noted for ``service``."""
        wanted = sa.select(open_work.c.tenant, open_work.c.mark).where(open_work.c.service == service)
        return await self._database.run(lambda connection: {row.tenant: row.mark for row in connection.execute(wanted)})

    async def clear(self, service: str, tenant: str, mark: str) -> None:
        """Forget the tenant, unless it was marked again since ``mark``."""
        same = sa.tuple_(open_work.c.tenant, open_work.c.service, open_work.c.mark) == sa.tuple_(tenant, service, mark)
        await self._database.transact(lambda connection: connection.execute(sa.delete(open_work).where(same)))


def _put(row: dict[str, Any], connection: sa.Connection) -> None:
    place = sa.and_(open_work.c.tenant == row["tenant"], open_work.c.service == row["service"])
    if connection.execute(sa.update(open_work).where(place).values(row)).rowcount:
        return
    if not connection.execute(insert_new(connection.dialect, open_work), row).rowcount:  # another process just did
        connection.execute(sa.update(open_work).where(place).values(row))
