"""What tenants have said about how long they keep what, and which process applies it now."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.expected import expect
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import audit_retention, retention
from erp.control_plane.tenants import require

LEASE_SECONDS = 300.0
EVERY_SECONDS = 3600.0
NOTHING = ("{}", 0)

Stored = tuple[str, int]
"""JSON text, and how often it was changed; revision 0: never."""


def unsaid(tenant: str) -> dict[str, Any]:
    """Return the row of a tenant that has rules elsewhere and said nothing here."""
    return {"tenant": tenant, "policy": "{}", "revision": 0, "runs_at": 0, "leased_until": 0}


class StoredRetention:
    """The policies of all tenants. A tenant has a row from its first rule on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant: str) -> Stored:
        """Return the policy of ``tenant``."""
        return await self._database.run(partial(_read, tenant))

    async def put(
        self, tenant: str, policy: str, audit_days: Mapping[str, int], *, revision: str | None = None
    ) -> Stored:
        """Store a policy; it is applied within a minute.

        Args:
            tenant: whose it is.
            policy: JSON text.
            audit_days: for how many days audit records of a class are kept; those not named: for ever.
            revision: the one it must have now; empty: there must be none; None: any or none.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist, ``conflict``.
        """

        def write(connection: sa.Connection) -> Stored:
            require(connection, tenant, alone=True)
            _, present = _read(tenant, connection)
            expect("retention policy", revision, str(present) if present else None)
            connection.execute(insert_new(connection.dialect, retention).values(unsaid(tenant)))
            values = {"policy": policy, "revision": present + 1, "runs_at": 0}
            connection.execute(sa.update(retention).where(retention.c.tenant == tenant).values(values))
            connection.execute(sa.delete(audit_retention).where(audit_retention.c.tenant == tenant))
            rules = [{"tenant": tenant, "class": name, "days": days} for name, days in audit_days.items()]
            if rules:
                connection.execute(sa.insert(audit_retention), rules)
            return policy, present + 1

        return await self._database.transact(write)

    async def due(self) -> list[str]:
        """Return whose policy is to be applied now; also those of which a clock that was set back says they are far off."""
        now, table = moments.now(), retention.c
        far = moments.after(2 * EVERY_SECONDS)
        statement = sa.select(table.tenant).where(sa.or_(table.runs_at <= now, table.runs_at > far), _is_free())
        statement = statement.order_by(table.runs_at, table.tenant)
        return await self._database.run(lambda connection: list(connection.execute(statement).scalars()))

    async def lease(self, tenant: str) -> Lease | None:
        """Return the right to apply the policy of ``tenant``, which is due again in an hour; None: another process has it."""
        until = moments.after(LEASE_SECONDS)
        mine = sa.update(retention).where(retention.c.tenant == tenant, _is_free())
        mine = mine.values(leased_until=until, runs_at=moments.after(EVERY_SECONDS))

        def write(connection: sa.Connection) -> bool:
            connection.execute(insert_new(connection.dialect, retention).values(unsaid(tenant)))
            return connection.execute(mine).rowcount > 0

        return Lease(self._database, tenant, until) if await self._database.transact(write) else None


class Lease:
    """The right of one process to apply the policy of one tenant."""

    def __init__(self, database: Database, tenant: str, until: int) -> None:
        self._database = database
        self._tenant = tenant
        self._until = until

    async def renew(self) -> bool:
        """Hold it for some minutes from now on; False: it was lost."""
        until = moments.after(LEASE_SECONDS)
        if not await self._set(until):
            return False
        self._until = until
        return True

    async def end(self) -> None:
        """Give it back."""
        await self._set(0)

    async def _set(self, until: int) -> bool:
        table = retention.c
        mine = sa.update(retention).where(table.tenant == self._tenant, table.leased_until == self._until)
        mine = mine.values(leased_until=until)
        return await self._database.transact(lambda connection: connection.execute(mine).rowcount > 0)


def _is_free() -> sa.ColumnElement[bool]:
    """Whether no process holds the lease; none is longer than ``LEASE_SECONDS``, whatever a clock said."""
    table = retention.c
    return sa.or_(table.leased_until <= moments.now(), table.leased_until > moments.after(2 * LEASE_SECONDS))


def _read(tenant: str, connection: sa.Connection) -> Stored:
    table = retention.c
    row = connection.execute(sa.select(table.policy, table.revision).where(table.tenant == tenant)).first()
    return NOTHING if row is None else (row.policy, row.revision)
