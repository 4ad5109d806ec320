"""Rows of the control plane that a tenant need not keep any longer, by class: counted, and deleted in bounded batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.outbox import DEAD, DELIVERED
from erp.control_plane.tables import consents, elevations, operations, outbox

RowClass = Literal["operations", "privacy_operations", "delivered_events", "dead_events", "consents", "break_glass"]
DAY = 86_400 * moments.MICROSECONDS
PER_TRANSACTION = 500

_RIGHTS = operations.c.subject.startswith("privacy/")


@dataclass(frozen=True, slots=True)
class Expiring:
    """What of a table belongs to a class, and from which moment on its time runs."""

    table: sa.Table
    since: sa.ColumnElement[int]
    which: sa.ColumnElement[bool]

    def old(self, tenant: str, days: int) -> sa.ColumnElement[bool]:
        """Return what ``tenant`` has kept for ``days``."""
        return sa.and_(self.table.c.tenant == tenant, self.which, self.since < moments.now() - days * DAY)


_CLASSES: dict[RowClass, Expiring] = {
    "operations": Expiring(operations, operations.c.ended_at, sa.or_(operations.c.subject.is_(None), sa.not_(_RIGHTS))),
    "privacy_operations": Expiring(operations, operations.c.ended_at, _RIGHTS),
    "delivered_events": Expiring(outbox, outbox.c.settled_at, outbox.c.state == DELIVERED),
    "dead_events": Expiring(outbox, outbox.c.settled_at, outbox.c.state == DEAD),
    "consents": Expiring(consents, consents.c.recorded_at, consents.c.state == "withdrawn"),
    "break_glass": Expiring(
        elevations,
        sa.func.coalesce(elevations.c.ended_at, elevations.c.ends_at, elevations.c.requested_at),
        sa.true(),
    ),
}


class ExpiredRows:
    """The rows of all tenants."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, tenant: str, name: RowClass, days: int) -> int:
        """Return how many rows of a class ``tenant`` has kept for ``days``."""
        one = _CLASSES[name]
        statement = sa.select(sa.func.count()).select_from(one.table).where(one.old(tenant, days))
        return await self._database.run(lambda connection: connection.execute(statement).scalar_one())

    async def delete(self, tenant: str, name: RowClass, days: int, go_on: Callable[[], Awaitable[bool]]) -> int:
        """Delete them, asking ``go_on`` between transactions; return how many."""
        one, done = _CLASSES[name], 0
        while True:
            count = await self._database.transact(partial(_delete_some, one, one.old(tenant, days)))
            done += count
            if count < PER_TRANSACTION or not await go_on():
                return done


def _delete_some(one: Expiring, old: sa.ColumnElement[bool], connection: sa.Connection) -> int:
    key = list(one.table.primary_key)
    found = connection.execute(sa.select(*key).where(old).limit(PER_TRANSACTION)).all()
    if not found:
        return 0
    these = sa.tuple_(*key).in_([tuple(row) for row in found])
    return connection.execute(sa.delete(one.table).where(these, old)).rowcount
