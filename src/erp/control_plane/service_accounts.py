"""Service accounts: named actors that are no people. Each may have several keys and client certificates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import cursors, moments
from erp.control_plane.database import Database, Work
from erp.control_plane.key_facts import check_facts
from erp.control_plane.people_tables import client_certificates, service_accounts
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.statements import insert_new
from erp.control_plane.tables import api_keys
from erp.control_plane.tenants import require
from erp.errors import FieldError, ProviderError

T = TypeVar("T")

PATTERN = "^[a-z][a-z0-9-]{0,62}$"
_NAME = re.compile(PATTERN.rstrip("$") + r"\Z")


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who a machine is, and the most that its keys and certificates may do."""

    name: str
    tenant: str
    description: str | None = None
    role: str
    scopes: list[str] = []
    created_at: str
    disabled_at: str | None = None


class ServiceAccounts:
    """The service accounts of all tenants. Role and scopes are fixed: a key never outgrows the account it was made for."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def create(
        self, tenant: str, name: str, *, role: str, scopes: Sequence[str] = (), description: str | None = None
    ) -> ServiceAccount:
        """Create an account.

        Raises:
            ProviderError: ``invalid_argument`` for a name that does not match ``PATTERN``, an unknown role or a malformed
                scope; ``already_exists``; ``not_found`` when the tenant does not exist.
        """
        if _NAME.match(name) is None:
            problem = FieldError("/name", f"Use 1 to 63 characters: {PATTERN}")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The name is not valid.", errors=[problem])
        check_facts(role, scopes, None)
        row = {
            "tenant": tenant,
            "name": name,
            "description": description,
            "role": role,
            "scopes": msgspec.json.encode(sorted(set(scopes))).decode(),
            "created_at": moments.now(),
            "disabled_at": None,
        }

        def insert(connection: sa.Connection) -> None:
            require(connection, tenant)
            if not connection.execute(insert_new(connection.dialect, service_accounts), row).rowcount:
                raise ProviderError(ErrorCode.ALREADY_EXISTS, f"There is a service account {name!r} already.")

        await self._database.transact(insert)
        return _account(row)

    async def list(
        self, tenant: str, *, limit: int = 100, cursor: str | None = None
    ) -> tuple[list[ServiceAccount], str | None]:
        """Return up to ``limit`` accounts of ``tenant`` by name and the cursor of the next page, if any."""
        table, after = service_accounts.c, cursors.read(cursor, str) or ""
        mine = sa.select(service_accounts).where(table.tenant == tenant, table.name > after)
        statement = mine.order_by(table.name).limit(limit + 1)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        items = [_account(row) for row in rows[:limit]]
        return items, cursors.written(items[-1].name) if len(rows) > limit else None

    async def get(self, tenant: str, name: str) -> ServiceAccount:
        """Return an account.

        Raises:
            ProviderError: ``not_found``.
        """
        return await self._database.run(partial(found, tenant, name))

    async def disable(self, tenant: str, name: str, *, disabled: bool) -> ServiceAccount:
        """Refuse all keys and certificates of an account, here at once and elsewhere within a second; or accept them again.

        Raises:
            ProviderError: ``not_found``.
        """

        def change(connection: sa.Connection) -> ServiceAccount:
            present = found(tenant, name, connection, lock=True)
            if (present.disabled_at is not None) != disabled:
                values = {"disabled_at": moments.now() if disabled else None}
                connection.execute(sa.update(service_accounts).where(_is(tenant, name)).values(values))
            return found(tenant, name, connection)

        return await self._counted(change)

    async def delete(self, tenant: str, name: str) -> None:
        """Remove an account; its keys are revoked and its certificates forgotten.

        Raises:
            ProviderError: ``not_found``.
        """

        def remove(connection: sa.Connection) -> None:
            found(tenant, name, connection, lock=True)
            keys = sa.and_(api_keys.c.tenant == tenant, api_keys.c.service_account == name)
            revoked = sa.update(api_keys).where(keys, api_keys.c.revoked_at.is_(None))
            connection.execute(revoked.values(revoked_at=moments.now()))
            table = client_certificates.c
            mine = sa.and_(table.tenant == tenant, table.service_account == name)
            connection.execute(sa.delete(client_certificates).where(mine))
            connection.execute(sa.delete(service_accounts).where(_is(tenant, name)))

        await self._counted(remove)

    async def _counted(self, work: Work[T]) -> T:
        result = await self._database.transact(counted(work, Topic.API_KEYS))
        self._revisions.announce(Topic.API_KEYS)
        return result


def found(tenant: str, name: str, connection: sa.Connection, *, lock: bool = False) -> ServiceAccount:
    """Return an account; with ``lock`` it stays as it is until the transaction ends.

    Raises:
        ProviderError: ``not_found``.
    """
    statement = sa.select(service_accounts).where(_is(tenant, name))
    row = connection.execute(statement.with_for_update() if lock else statement).mappings().first()
    if row is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no service account {name[:63]!r}.")
    return _account(row)


def _is(tenant: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(service_accounts.c.tenant == tenant, service_accounts.c.name == name)


def _account(row: Mapping[Any, Any]) -> ServiceAccount:
    return ServiceAccount(
        name=row["name"],
        tenant=row["tenant"],
        description=row["description"],
        role=row["role"],
        scopes=msgspec.json.decode(row["scopes"], type=list[str]),
        created_at=moments.text(row["created_at"]),
        disabled_at=moments.optional_text(row["disabled_at"]),
    )
