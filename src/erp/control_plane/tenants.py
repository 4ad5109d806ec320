"""Who uses the platform."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, TypedDict, TypeVar, Unpack

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database, Work
from erp.control_plane.expected import expect
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tables import idempotency, outbox, tenants
from erp.errors import FieldError, ProviderError

T = TypeVar("T")

PATTERN = "^[a-z][a-z0-9-]{1,62}$"
_ID = re.compile(PATTERN.rstrip("$") + r"\Z")
_TOPICS = (Topic.CONFIGURATION, Topic.API_KEYS, Topic.QUOTAS)


class Tenant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An organisation whose data is kept apart from everybody else's."""

    id: str
    revision: str
    """Changes with every change of the tenant's own facts."""
    name: str | None = None
    region: str | None = None
    """Where its data has to stay."""
    policy: dict[str, Any] = {}
    """Overrides of ``CallPolicy`` for all its calls."""
    created_at: str
    updated_at: str


class TenantChanges(TypedDict, total=False):
    """What can be changed of a tenant."""

    name: str | None
    region: str | None
    policy: Mapping[str, Any]


class Tenants:
    """The tenants of the platform."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def create(
        self,
        id: str,  # noqa: A002
        *,
        name: str | None = None,
        region: str | None = None,
        policy: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Create a tenant.

        Raises:
            ProviderError: ``invalid_argument`` for an id that does not match ``PATTERN``,
                ``already_exists``.
        """
        if _ID.match(id) is None:
            problem = FieldError("/id", f"Use 2 to 63 characters: {PATTERN}")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The id of the tenant is not valid.", errors=[problem])
        now = moments.now()
        row = {"id": id, "name": name, "region": region, "policy": _json(policy), "created_at": now, "updated_at": now}
        try:
            await self._change(lambda connection: connection.execute(sa.insert(tenants).values(row)))
        except IntegrityError as error:
            raise ProviderError(ErrorCode.ALREADY_EXISTS, f"There is a tenant {id!r} already.") from error
        return _tenant(row)

    async def get(self, id: str) -> Tenant:  # noqa: A002
        """Return a tenant.

        Raises:
            ProviderError: ``not_found``.
        """
        return await self._database.run(partial(_found, id))

    async def ids(self) -> list[str]:
        """Return the ids of all tenants, sorted."""
        statement = sa.select(tenants.c.id).order_by(tenants.c.id)
        return await self._database.run(lambda connection: list(connection.execute(statement).scalars()))

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> tuple[list[Tenant], str | None]:
        """Return up to ``limit`` tenants by id and, when there are more, the cursor of the next page."""
        after = cursors.read(cursor, str) or ""
        statement = sa.select(tenants).where(tenants.c.id > after).order_by(tenants.c.id).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        items = [_tenant(row) for row in rows[:limit]]
        return items, cursors.written(items[-1].id) if len(rows) > limit else None

    async def update(
        self,
        id: str,  # noqa: A002
        *,
        revision: str | None = None,
        **changes: Unpack[TenantChanges],
    ) -> Tenant:
        """Change what is given and nothing else; return the tenant as it is then.

        Raises:
            ProviderError: ``not_found``; ``conflict`` when a ``revision`` is given and the tenant has another.
        """
        values: dict[str, Any] = dict(changes)
        if "policy" in changes:
            values["policy"] = _json(changes["policy"])

        def change(connection: sa.Connection) -> Tenant:
            last = _updated_at(id, connection)
            expect("tenant", revision, _revision(last))
            values["updated_at"] = max(moments.now(), last + 1)  # the clock may have been set back
            connection.execute(sa.update(tenants).where(tenants.c.id == id).values(values))
            return _found(id, connection)

        return await self._change(change)

    async def delete(self, id: str, *, revision: str | None = None) -> None:  # noqa: A002
        """Remove a tenant with everything but its audit records, which stay.

        Raises:
            ProviderError: ``not_found``; ``conflict`` when a ``revision`` is given and the tenant has another.
        """

        def remove(connection: sa.Connection) -> None:
            expect("tenant", revision, _revision(_updated_at(id, connection)))
            for table in (idempotency, outbox):
                connection.execute(sa.delete(table).where(table.c.tenant == id))
            connection.execute(sa.delete(tenants).where(tenants.c.id == id))

        await self._change(remove)

    async def _change(self, work: Work[T]) -> T:
        result = await self._database.transact(counted(work, *_TOPICS))
        self._revisions.announce(*_TOPICS)
        return result


def require(connection: sa.Connection, tenant: str, *, alone: bool = False) -> None:
    """Pass when ``tenant`` exists; with ``alone`` nobody else passes like this before the transaction ends.

    Raises:
        ProviderError: ``not_found``.
    """
    statement = sa.select(tenants.c.id).where(tenants.c.id == tenant)
    # The weaker of the two locks for changes: rows that refer to the tenant can be written meanwhile.
    locking = statement.with_for_update(key_share=True) if alone else statement
    if connection.execute(locking).first() is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no tenant {tenant[:63]!r}.")


def _found(tenant: str, connection: sa.Connection) -> Tenant:
    require(connection, tenant)
    return _tenant(connection.execute(sa.select(tenants).where(tenants.c.id == tenant)).mappings().one())


def _updated_at(tenant: str, connection: sa.Connection) -> int:
    require(connection, tenant)
    statement = sa.select(tenants.c.updated_at).where(tenants.c.id == tenant).with_for_update()
    found: int = connection.execute(statement).scalar_one()
    return found


def _revision(updated_at: int) -> str:
    return f"{updated_at:x}"


def _tenant(row: Mapping[Any, Any]) -> Tenant:
    return Tenant(
        id=row["id"],
        revision=_revision(row["updated_at"]),
        name=row["name"],
        region=row["region"],
        policy=msgspec.json.decode(row["policy"]),
        created_at=moments.text(row["created_at"]),
        updated_at=moments.text(row["updated_at"]),
    )


def _json(value: Mapping[str, Any] | None) -> str:
    return msgspec.json.encode(value or {}).decode()
