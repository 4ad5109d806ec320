"""Tenants' configured providers, their defaults and call policies. Implements ``ports.Connections``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database, Work
from erp.control_plane.expected import expect
from erp.control_plane.remembered import Remembered
from erp.control_plane.retirements import released, uses_of
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tables import connections, domain_defaults, tenants
from erp.control_plane.tenants import require
from erp.runtime.ports import Connection
from erp.runtime.secret_references import uses

T = TypeVar("T")
_Key = tuple[str, str, str, str]


class StoredConnections:
    """Connections by tenant, domain, provider and name; reads are answered from memory."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions
        self._connections = Remembered[_Key, Connection | None](revisions, Topic.CONFIGURATION)
        self._defaults = Remembered[tuple[str, str], tuple[str, str] | None](revisions, Topic.CONFIGURATION)
        self._policies = Remembered[str, Mapping[str, Any]](revisions, Topic.CONFIGURATION)

    async def find(self, tenant: str, domain: str, provider: str, name: str) -> Connection | None:
        key = (tenant, domain, provider, name)
        return await self._connections.get(key, lambda: self._database.run(partial(_read, key)))

    async def domain_default(self, tenant: str, domain: str) -> tuple[str, str] | None:
        key = (tenant, domain)
        return await self._defaults.get(key, lambda: self._database.run(partial(_read_default, key)))

    async def tenant_policy(self, tenant: str) -> Mapping[str, Any]:
        return await self._policies.get(tenant, lambda: self._database.run(partial(_read_policy, tenant)))

    async def list(
        self,
        tenant: str,
        *,
        domain: str | None = None,
        provider: str | None = None,
        after: tuple[str, str, str] | None = None,
        limit: int | None = None,
    ) -> list[Connection]:
        """Return the connections of ``tenant``, of one domain or provider when given, by domain, provider and name.

        With ``after`` (the same three) those that follow it, with ``limit`` no more than so many.
        """
        place = sa.tuple_(connections.c.domain, connections.c.provider, connections.c.name)
        statement = (
            sa.select(connections).where(connections.c.tenant == tenant).order_by(*connections.primary_key).limit(limit)
        )
        if after is not None:
            statement = statement.where(place > sa.tuple_(*after))
        if domain is not None:
            statement = statement.where(connections.c.domain == domain)
        if provider is not None:
            statement = statement.where(connections.c.provider == provider)
        rows = await self._database.run(lambda connection: connection.execute(statement).mappings().all())
        return [_connection(row) for row in rows]

    async def of_provider(self, domain: str, provider: str) -> Sequence[Connection]:
        """Return the connections of all tenants to one provider, oldest first."""
        order = (connections.c.created_at, connections.c.tenant, connections.c.name)
        statement = sa.select(connections).where(connections.c.domain == domain, connections.c.provider == provider)
        rows = await self._database.run(lambda one: one.execute(statement.order_by(*order)).mappings().all())
        return [_connection(row) for row in rows]

    async def put(self, connection: Connection, *, revision: str | None = None) -> Connection:
        """Store a connection, new or changed, and return it with its new revision.

        Args:
            connection: what to store.
            revision: the one it must have now; empty: it must not exist; None: any or none.

        Raises:
            ProviderError: ``not_found`` when its tenant does not exist; ``conflict`` when the revision is another.
        """
        stored = msgspec.structs.replace(connection, revision=secrets.token_hex(8))
        await self._change(partial(_write, stored, revision))
        return stored

    async def delete(self, tenant: str, domain: str, provider: str, name: str, *, revision: str | None = None) -> bool:
        """Remove a connection, and the tenant's default of the domain when this was it; False when there was none.

        Raises:
            ProviderError: ``conflict`` when a ``revision`` is given and the connection has another.
        """
        return await self._change(partial(_delete, (tenant, domain, provider, name), revision))

    async def set_domain_default(self, tenant: str, domain: str, provider: str, name: str) -> None:
        """Make a connection the one that calls to ``domain`` mean when they name none.

        Raises:
            ProviderError: ``not_found`` when the tenant does not exist.
        """
        await self._change(partial(_write_default, (tenant, domain, provider, name)))

    async def clear_domain_default(self, tenant: str, domain: str, provider: str, name: str) -> None:
        """Leave ``domain`` without a default of the tenant's own when this connection (or route) is it."""
        await self._change(partial(_clear_default, (tenant, domain, provider, name)))

    async def _change(self, work: Work[T]) -> T:
        result = await self._database.transact(counted(work, Topic.CONFIGURATION))
        self._revisions.announce(Topic.CONFIGURATION)
        return result


def _is(key: _Key) -> sa.ColumnElement[bool]:
    return sa.tuple_(*connections.primary_key) == sa.tuple_(*key)


def _read(key: _Key, connection: sa.Connection) -> Connection | None:
    row = connection.execute(sa.select(connections).where(_is(key))).mappings().first()
    return None if row is None else _connection(row)


def _read_default(key: tuple[str, str], connection: sa.Connection) -> tuple[str, str] | None:
    table = domain_defaults.c
    statement = sa.select(table.provider, table.connection).where(table.tenant == key[0], table.domain == key[1])
    row = connection.execute(statement).first()
    return None if row is None else (row.provider, row.connection)


def _read_policy(tenant: str, connection: sa.Connection) -> Mapping[str, Any]:
    text = connection.execute(sa.select(tenants.c.policy).where(tenants.c.id == tenant)).scalar()
    return {} if text is None else msgspec.json.decode(text, type=dict[str, Any])


def _write(stored: Connection, wanted: str | None, connection: sa.Connection) -> None:
    require(connection, stored.tenant, alone=True)
    key = (stored.tenant, stored.domain, stored.provider, stored.name)
    expect("connection", wanted, _revision(key, connection))
    _release(key, stored, connection)
    now = moments.now()
    values = {
        "revision": stored.revision,
        "config": _json(stored.config),
        "secrets": _json(stored.secrets),
        "policy": _json(stored.policy),
        "region": stored.region or None,
        "secret_versions": _json(stored.versions) if stored.versions else None,
        "updated_at": now,
    }
    if connection.execute(sa.update(connections).where(_is(key)).values(values)).rowcount == 0:
        names = dict(zip(("tenant", "domain", "provider", "name"), key, strict=True))
        connection.execute(sa.insert(connections).values({**names, **values, "created_at": now}))


def _revision(key: _Key, connection: sa.Connection) -> str | None:
    return connection.execute(sa.select(connections.c.revision).where(_is(key)).with_for_update()).scalar()


def _release(key: _Key, stored: Connection | None, connection: sa.Connection) -> None:
    """Say which versions of secrets a connection no longer uses when it becomes ``stored``; None: it goes."""
    columns = (connections.c.secrets, connections.c.secret_versions)
    row = connection.execute(sa.select(*columns).where(_is(key))).mappings().first()
    if row is not None:
        remaining = set() if stored is None else uses(stored.secrets, stored.versions)
        released(connection, key[0], uses_of(row), remaining)


def _clear_default(key: _Key, connection: sa.Connection) -> None:
    default = domain_defaults.c
    same = sa.tuple_(default.tenant, default.domain, default.provider, default.connection) == sa.tuple_(*key)
    connection.execute(sa.delete(domain_defaults).where(same))


def _delete(key: _Key, wanted: str | None, connection: sa.Connection) -> bool:
    expect("connection", wanted, _revision(key, connection))
    _clear_default(key, connection)
    _release(key, None, connection)
    return connection.execute(sa.delete(connections).where(_is(key))).rowcount > 0


def _write_default(key: _Key, connection: sa.Connection) -> None:
    tenant, domain, provider, name = key
    require(connection, tenant)
    table = domain_defaults.c
    connection.execute(sa.delete(domain_defaults).where(table.tenant == tenant, table.domain == domain))
    row = {"tenant": tenant, "domain": domain, "provider": provider, "connection": name}
    connection.execute(sa.insert(domain_defaults).values(row))


def _connection(row: Mapping[Any, Any]) -> Connection:
    return Connection(
        tenant=row["tenant"],
        domain=row["domain"],
        provider=row["provider"],
        name=row["name"],
        revision=row["revision"],
        config=msgspec.json.decode(row["config"]),
        secrets=msgspec.json.decode(row["secrets"]),
        policy=msgspec.json.decode(row["policy"]),
        region=row["region"] or "",
        versions=msgspec.json.decode(row["secret_versions"] or "{}"),
    )


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
