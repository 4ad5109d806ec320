"""Versions of secrets that shall be destroyed: when, and whether something still uses them.

A row is written with the version that replaces it, in one transaction, so that no killed process leaves a version behind
for ever. A connection that changes to another version prolongs the row, in the transaction that stores the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.rotation_tables import secret_retirements
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import connections, secrets
from erp.control_plane.tenants import require
from erp.runtime.secret_references import Use, kept_here

LEAST_SECONDS = 15.0
"""Longer than the last calls with the version before may take: another process learns of the change, and drains."""


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """One version that shall be destroyed."""

    tenant: str
    path: str
    version: int
    overlap: int
    """Microseconds for which it stays once nothing uses it."""
    due_at: int
    runs_at: int


class Retirements:
    """The versions to be destroyed, of all tenants."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def waiting(self, *, limit: int) -> list[Retirement]:
        """Return the next ones, those due first."""
        statement = sa.select(secret_retirements).order_by(secret_retirements.c.runs_at).limit(limit)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        return [Retirement(**row) for row in rows]

    async def claim(self, retirement: Retirement, *, until: int) -> Retirement | None:
        """Take one on until then; None when another process has, or when it was prolonged meanwhile."""
        statement = sa.update(secret_retirements).where(_is_as(retirement)).values(runs_at=until)
        if not await self._database.transact(lambda connection: connection.execute(statement).rowcount):
            return None
        return msgspec.structs.replace(retirement, runs_at=until)

    async def destroy(self, retirement: Retirement) -> bool | None:
        """Destroy the version unless a connection uses it; None: one does, False: it had been destroyed before."""
        work = counted(partial(_destroy, retirement), Topic.SECRETS)
        result = await self._database.transact(work)
        self._revisions.announce(Topic.SECRETS)
        return result

    async def settle(self, retirement: Retirement) -> None:
        """Forget one that was carried out."""
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
    overlap, due_at = _until(overlap_seconds)
    place = {"tenant": tenant, "path": path, "overlap": overlap, "due_at": due_at, "runs_at": due_at}
    for version in connection.execute(older).scalars().all():
        if not connection.execute(
            insert_new(connection.dialect, secret_retirements), {**place, "version": version}
        ).rowcount:
            _prolong(connection, tenant, (path, version))


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
    """Return what the row of a connection uses of the secrets that are kept here."""
    found: Mapping[str, str] = msgspec.json.decode(row["secrets"])
    versions: Mapping[str, str] = msgspec.json.decode(row["secret_versions"] or "{}")
    return kept_here(found, versions)


def _prolong(connection: sa.Connection, tenant: str, use: Use) -> None:
    path, version = use
    table = secret_retirements.c
    these = [table.tenant == tenant, table.path == path]
    if version is not None:
        these.append(table.version == version)
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
    table = secrets.c
    this = (table.tenant == retirement.tenant, table.path == retirement.path, table.version == retirement.version)
    emptied = sa.update(secrets).where(*this, table.envelope.is_not(None)).values(envelope=None, key_id=None)
    return connection.execute(emptied).rowcount > 0


def _is_used(connection: sa.Connection, retirement: Retirement) -> bool:
    these = {(retirement.path, retirement.version), (retirement.path, None)}
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
