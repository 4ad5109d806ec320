"""Versions of secrets that shall be destroyed: when, and whether something still uses them.

A row is written with the version that replaces it, in one transaction, so that no killed process leaves a version behind
for ever; before it where the version is kept elsewhere (``overlaps``). A connection that changes to another version
prolongs the row, in the transaction that stores the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.rotation_tables import secret_retirements
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import connections, secrets
from erp.control_plane.tenants import require
from erp.runtime.secret_references import Use, uses

LEAST_SECONDS = 15.0
"""Longer than the last calls with the version before may take: another process learns of the change, and drains."""
NEVER = 2**62


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """One version that shall be destroyed."""

    tenant: str
    path: str
    version: int
    overlap: int
    """Microseconds for which it stays once nothing uses it."""
    due_at: int
    runs_at: int
    version_id: str | None = None
    """As the provider names it that keeps it; None: it is kept in the platform's own vault."""
    over_at: int | None = None
    """Since when nothing may use it, as it is or will be destroyed elsewhere."""

    @property
    def uses(self) -> set[Use]:
        """How connections can name this version."""
        return {(self.path, self.version), (self.path, self.version_id or self.version)}


class Retirements:
    """The versions to be destroyed, of all tenants."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def waiting(self, *, limit: int) -> list[Retirement]:
        """Return the next ones, those due first."""
        table = secret_retirements
        statement = sa.select(table).where(table.c.runs_at < NEVER).order_by(table.c.runs_at).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        return [Retirement(**row) for row in rows]

    async def claim(self, retirement: Retirement, *, until: int) -> Retirement | None:
        """Take one on until then; None when another process has, or when it was prolonged meanwhile."""
        statement = sa.update(secret_retirements).where(_is_as(retirement)).values(runs_at=until)
        if not await self._database.transact(lambda connection: connection.execute(statement).rowcount):
            return None
        return msgspec.structs.replace(retirement, runs_at=until)

    async def destroy(self, retirement: Retirement) -> bool | None:
        """Destroy the version unless a connection uses it; None: one does, False: it had been destroyed before.

        One that is kept elsewhere is from now on not to be used; who asks has to destroy it there, then ``settle``.
        """
        work = counted(partial(_destroy, retirement), Topic.SECRETS)
        result = await self._database.transact(work)
        self._revisions.announce(Topic.SECRETS)
        return result

    async def settle(self, retirement: Retirement) -> None:
        """Note that one was carried out. What is kept elsewhere may still be there, and is remembered."""
        if retirement.version_id is not None:
            await self.postpone(retirement, until=NEVER)
            return
        await self.drop(retirement)

    async def drop(self, retirement: Retirement) -> None:
        """Forget one."""
        statement = sa.delete(secret_retirements).where(_is_as(retirement))
        await self._database.transact(lambda connection: connection.execute(statement).rowcount)

    async def postpone(self, retirement: Retirement, *, until: int) -> None:
        """Look at one again then."""
        statement = sa.update(secret_retirements).where(_is_as(retirement)).values(runs_at=until)
        await self._database.transact(lambda connection: connection.execute(statement).rowcount)


def retire(connection: sa.Connection, tenant: str, path: str, *, before: int, overlap_seconds: float) -> None:
    """Have all versions of a secret before ``before`` destroyed, within the transaction that adds that one."""
    table = secrets.c
    older = sa.select(table.version).where(
        table.tenant == tenant, table.path == path, table.version < before, table.envelope.is_not(None)
    )
    versions = dict.fromkeys(connection.execute(older).scalars().all())
    plan(connection, tenant, path, versions, overlap_seconds=overlap_seconds)


def plan(
    connection: sa.Connection, tenant: str, path: str, versions: Mapping[int, str | None], *, overlap_seconds: float
) -> list[int]:
    """Have versions of a secret destroyed, named as who keeps them does; return those that it was not planned for yet."""
    overlap, due_at = _until(overlap_seconds)
    times = {"overlap": overlap, "due_at": due_at, "runs_at": due_at, "over_at": None}
    new = []
    for version, version_id in versions.items():
        row = {"tenant": tenant, "path": path, "version": version, "version_id": version_id, **times}
        if connection.execute(insert_new(connection.dialect, secret_retirements), row).rowcount:
            new.append(version)
        elif not _replaced(connection, row):
            _prolong(connection, tenant, (path, version))
    return new


def _replaced(connection: sa.Connection, row: Mapping[str, Any]) -> bool:
    """Whether what was planned was about a version that the same number had before the secret was made anew."""
    table = secret_retirements.c
    these = (table.tenant == row["tenant"], table.path == row["path"], table.version == row["version"])
    another = sa.update(secret_retirements).where(*these, table.version_id != row["version_id"]).values(**row)
    return row["version_id"] is not None and connection.execute(another).rowcount > 0


def forget(tenant: str, path: str, version: int | None) -> sa.Delete:
    """Return what forgets the plan to destroy a version, or all of a secret, which are destroyed at once."""
    table = secret_retirements.c
    statement = sa.delete(secret_retirements).where(table.tenant == tenant, table.path == path)
    return statement if version is None else statement.where(table.version == version)


def released(connection: sa.Connection, tenant: str, before: set[Use], after: set[Use]) -> None:
    """Let the overlap of versions begin that a connection used before and does not after, in the same transaction."""
    for use in before - after:
        _prolong(connection, tenant, use)


def uses_of(row: sa.RowMapping) -> set[Use]:
    """Return which versions of secrets the row of a connection uses."""
    found: Mapping[str, str] = msgspec.json.decode(row["secrets"])
    versions: Mapping[str, str] = msgspec.json.decode(row["secret_versions"] or "{}")
    return uses(found, versions)


def _prolong(connection: sa.Connection, tenant: str, use: Use) -> None:
    path, version = use
    table = secret_retirements.c
    these = [table.tenant == tenant, table.path == path, table.over_at.is_(None)]
    if version is not None:
        these.append((table.version_id if isinstance(version, str) else table.version) == version)
    for row in connection.execute(sa.select(secret_retirements).where(*these)).mappings().all():
        _, due_at = _until(row["overlap"] / moments.MICROSECONDS)
        latest = max(due_at, row["due_at"])
        same = sa.and_(*these, table.version == row["version"])
        connection.execute(sa.update(secret_retirements).where(same).values(due_at=latest, runs_at=latest))


def _until(overlap_seconds: float) -> tuple[int, int]:
    overlap = int(max(overlap_seconds, LEAST_SECONDS) * moments.MICROSECONDS)
    return overlap, moments.now() + overlap


def _destroy(retirement: Retirement, connection: sa.Connection) -> bool | None:
    # Nobody stores a connection of the tenant meanwhile.
    require(connection, retirement.tenant, alone=True)
    if _is_used(connection, retirement):
        return None
    if retirement.version_id is not None:
        over = sa.update(secret_retirements).where(_is_as(retirement), secret_retirements.c.over_at.is_(None))
        return connection.execute(over.values(over_at=moments.now())).rowcount > 0
    table = secrets.c
    this = (table.tenant == retirement.tenant, table.path == retirement.path, table.version == retirement.version)
    emptied = sa.update(secrets).where(*this, table.envelope.is_not(None)).values(envelope=None, key_id=None)
    return connection.execute(emptied).rowcount > 0


def _is_used(connection: sa.Connection, retirement: Retirement) -> bool:
    these = retirement.uses | {(retirement.path, None)}
    columns = (connections.c.secrets, connections.c.secret_versions)
    rows = connection.execute(sa.select(*columns).where(connections.c.tenant == retirement.tenant)).mappings()
    return any(these & uses_of(row) for row in rows)


def _is_as(retirement: Retirement) -> sa.ColumnElement[bool]:
    table = secret_retirements.c
    return sa.and_(
        table.tenant == retirement.tenant,
        table.path == retirement.path,
        table.version == retirement.version,
        table.due_at == retirement.due_at,
        table.runs_at == retirement.runs_at,
    )
