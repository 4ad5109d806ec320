"""Tenants' own names for connections. Implements ``ports.Routes``."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from erp.control_plane import moments
from erp.control_plane.database import Database, Work
from erp.control_plane.expected import expect
from erp.control_plane.remembered import Remembered
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tables import domain_defaults, routes
from erp.control_plane.tenants import require
from erp.runtime.ports import Route

T = TypeVar("T")
_Key = tuple[str, str, str]
_decode = msgspec.json.Decoder(Route).decode


class StoredRoutes:
    """Routes by tenant, domain and name; reads are answered from memory."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions
        self._routes = Remembered[_Key, Route | None](revisions, Topic.CONFIGURATION)

    async def find(self, tenant: str, domain: str, name: str) -> Route | None:
        key = (tenant, domain, name)
        return await self._routes.get(key, lambda: self._database.run(partial(_read, key)))

    async def list(self, tenant: str, *, after: tuple[str, str] = ("", ""), limit: int | None = None) -> list[Route]:
        """Return routes of ``tenant`` by domain and name, those that come after ``after``."""
        place = sa.tuple_(routes.c.domain, routes.c.name)
        statement = (
            sa.select(routes.c.route)
            .where(routes.c.tenant == tenant, place > sa.tuple_(*after))
            .order_by(routes.c.domain, routes.c.name)
            .limit(limit)
        )
        found = await self._database.run(lambda connection: connection.execute(statement).scalars().all())
        return [_decode(text) for text in found]

    async def put(self, route: Route, *, revision: str | None = None) -> Route:
        """Store a route, new or changed, and return it with its new revision.

        Args:
            route: what to store.
            revision: the one it must have now; empty: it must not exist; None: any or none.

        Raises:
            ProviderError: ``not_found`` when its tenant does not exist; ``conflict`` when the revision is another.
        """
        stored = msgspec.structs.replace(route, revision=secrets.token_hex(8))
        await self._change(partial(_write, stored, revision))
        return stored

    async def delete(self, tenant: str, domain: str, name: str, *, revision: str | None = None) -> bool:
        """Remove a route, and the tenant's default of the domain when this was it; False when there was none.

        Raises:
            ProviderError: ``conflict`` when a ``revision`` is given and the route has another.
        """
        return await self._change(partial(_delete, (tenant, domain, name), revision))

    async def _change(self, work: Work[T]) -> T:
        result = await self._database.transact(counted(work, Topic.CONFIGURATION))
        self._revisions.announce(Topic.CONFIGURATION)
        return result


def _is(key: _Key) -> sa.ColumnElement[bool]:
    return sa.tuple_(*routes.primary_key) == sa.tuple_(*key)


def _read(key: _Key, connection: sa.Connection) -> Route | None:
    text = connection.execute(sa.select(routes.c.route).where(_is(key))).scalar()
    return None if text is None else _decode(text)


def _write(stored: Route, wanted: str | None, connection: sa.Connection) -> None:
    require(connection, stored.tenant, alone=True)
    key = (stored.tenant, stored.domain, stored.name)
    known = _revision(key, connection)
    expect("route", wanted, known)
    now = moments.now()
    values = {"revision": stored.revision, "route": msgspec.json.encode(stored).decode(), "updated_at": now}
    if known is not None:
        connection.execute(sa.update(routes).where(_is(key)).values(values))
        return
    names = dict(zip(("tenant", "domain", "name"), key, strict=True))
    connection.execute(sa.insert(routes).values({**names, **values, "created_at": now}))


def _revision(key: _Key, connection: sa.Connection) -> str | None:
    return connection.execute(sa.select(routes.c.revision).where(_is(key)).with_for_update()).scalar()


def _delete(key: _Key, wanted: str | None, connection: sa.Connection) -> bool:
    expect("route", wanted, _revision(key, connection))
    default = domain_defaults.c
    tenant, domain, name = key
    same = sa.and_(default.tenant == tenant, default.domain == domain, default.provider == name)
    if not connection.execute(sa.delete(routes).where(_is(key))).rowcount:
        return False
    connection.execute(sa.delete(domain_defaults).where(same))
    return True
