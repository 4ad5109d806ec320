"""People and groups as a tenant's identity management provisions them (SCIM), and the roles of groups."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from erp.contracts.models.errors import ErrorCode
from erp.control_plane import moments
from erp.control_plane.database import Database, Work
from erp.control_plane.people_tables import directory_groups, directory_members, directory_roles, directory_users
from erp.control_plane.revisions import Revisions, Topic, counted
from erp.control_plane.tenants import require
from erp.errors import ProviderError

T = TypeVar("T")
Kind: TypeAlias = Literal["User", "Group"]
Condition: TypeAlias = tuple[str, str | bool]
"""Attribute (``userName``, ``externalId``, ``displayName``, ``active``) and the value that it must have."""
Change: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

_TABLES = {"User": directory_users, "Group": directory_groups}
_COLUMNS = {"userName": "user_name", "externalId": "external_id", "displayName": "display_name", "active": "active"}
MOST_IN_A_QUESTION = 500


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A person or a group."""

    id: str
    version: int
    created_at: str
    updated_at: str
    facts: dict[str, Any]
    """As given; of a group with ``members``, of a person with ``groups``: lists of ``{"value": id, "display": name}``."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the directory says of a person who has signed in."""

    is_active: bool
    roles: frozenset[str]


class Directory:
    """The directories of all tenants."""

    def __init__(self, database: Database, revisions: Revisions) -> None:
        self._database = database
        self._revisions = revisions

    async def create(self, tenant: str, kind: Kind, facts: Mapping[str, Any]) -> Entry:
        """Add a person or a group.

        Raises:
            ProviderError: ``already_exists`` for a user name or a group's name that is taken; ``invalid_argument`` for
                members that do not exist.
        """
        now, id_ = moments.now(), secrets.token_hex(16)
        row = {"tenant": tenant, "id": id_, "version": 1, "created_at": now, "updated_at": now, **_values(kind, facts)}

        def insert(connection: sa.Connection) -> Entry:
            require(connection, tenant)
            connection.execute(sa.insert(_TABLES[kind]).values(row))
            if kind == "Group":
                _set_members(tenant, id_, facts.get("members", []), connection)
            return _entry(tenant, kind, id_, connection)

        return await self._changed(insert)

    async def get(self, tenant: str, kind: Kind, id: str) -> Entry:  # noqa: A002
        """Return an entry.

        Raises:
            ProviderError: ``not_found``.
        """
        return await self._database.run(partial(_entry, tenant, kind, id))

    async def change(self, tenant: str, kind: Kind, id: str, change: Change, version: int | None) -> Entry:  # noqa: A002
        """Put what ``change`` makes of an entry's facts in their place, when the entry has ``version`` (None: any).

        Raises:
            ProviderError: ``not_found``; ``failed_precondition`` for another version; what ``change`` raises; as ``create``.
        """

        def replace(connection: sa.Connection) -> Entry:
            present = _entry(tenant, kind, id, connection, version=version, lock=True)
            facts = change(dict(present.facts))
            values = {**_values(kind, facts), "version": present.version + 1, "updated_at": moments.now()}
            connection.execute(sa.update(_TABLES[kind]).where(_is(_TABLES[kind], tenant, id)).values(values))
            if kind == "Group" and facts.get("members", []) != present.facts["members"]:
                _set_members(tenant, id, facts.get("members", []), connection)
            return _entry(tenant, kind, id, connection)

        return await self._changed(replace)

    async def delete(self, tenant: str, kind: Kind, id: str, version: int | None) -> None:  # noqa: A002
        """Remove an entry.

        Raises:
            ProviderError: ``not_found``, ``failed_precondition`` for another version.
        """
        member = directory_members.c.user if kind == "User" else directory_members.c.group

        def remove(connection: sa.Connection) -> None:
            _entry(tenant, kind, id, connection, version=version, lock=True)
            mine = sa.and_(directory_members.c.tenant == tenant, member == id)
            connection.execute(sa.delete(directory_members).where(mine))
            connection.execute(sa.delete(_TABLES[kind]).where(_is(_TABLES[kind], tenant, id)))

        await self._changed(remove)

    async def find(
        self, tenant: str, kind: Kind, conditions: Sequence[Condition], *, start: int, count: int
    ) -> tuple[int, list[Entry]]:
        """Return how many entries meet all ``conditions``, and up to ``count`` of them from the one numbered ``start`` (1: first)."""
        return await self._database.run(partial(_find, tenant, kind, conditions, start, count))

    async def roles(self, tenant: str) -> dict[str, str]:
        """Return the roles of groups, by the groups' names."""
        table = directory_roles.c
        statement = sa.select(table.group_name, table.role).where(table.tenant == tenant).order_by(table.group_name)
        rows = await self._database.run(lambda connection: connection.execute(statement).all())
        return {row.group_name: row.role for row in rows}

    async def set_roles(self, tenant: str, roles: Mapping[str, str]) -> None:
        """Say which roles the members of groups have; groups that are not named give none."""
        rows = [{"tenant": tenant, "group_name": name, "role": role} for name, role in roles.items()]

        def put(connection: sa.Connection) -> None:
            require(connection, tenant, alone=True)
            connection.execute(sa.delete(directory_roles).where(directory_roles.c.tenant == tenant))
            if rows:
                connection.execute(sa.insert(directory_roles), rows)

        await self._changed(put)

    async def standing(self, tenant: str, subject: str) -> Standing | None:
        """Return what is known of who signed in as ``subject`` (a user name or an external id); None: nothing."""
        return await self._database.run(partial(_standing, tenant, subject))

    async def _changed(self, work: Work[T]) -> T:
        try:
            result = await self._database.transact(counted(work, Topic.SESSIONS))
        except IntegrityError as error:
            raise ProviderError(ErrorCode.ALREADY_EXISTS, "There is an entry with this name already.") from error
        self._revisions.announce(Topic.SESSIONS)
        return result


def _values(kind: Kind, facts: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "Group":
        return {"display_name": facts["displayName"], "external_id": facts.get("externalId")}
    kept = {name: value for name, value in facts.items() if name != "groups"}
    return {
        "user_name": facts["userName"].lower(),
        "external_id": facts.get("externalId"),
        "display_name": facts.get("displayName"),
        "active": int(facts.get("active", True)),
        "document": msgspec.json.encode(kept).decode(),
    }


def _set_members(tenant: str, group: str, members: Sequence[Mapping[str, Any]], connection: sa.Connection) -> None:
    wanted = sorted({member["value"] for member in members})
    users, table = directory_users.c, directory_members.c
    for start in range(0, len(wanted), MOST_IN_A_QUESTION):
        some = wanted[start : start + MOST_IN_A_QUESTION]
        known = sa.select(sa.func.count()).where(users.tenant == tenant, users.id.in_(some))
        if connection.execute(known).scalar_one() != len(some):
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A member is no user of this directory.")
    connection.execute(sa.delete(directory_members).where(table.tenant == tenant, table.group == group))
    if wanted:
        rows = [{"tenant": tenant, "group": group, "user": user} for user in wanted]
        connection.execute(sa.insert(directory_members), rows)


def _is(table: sa.Table, tenant: str, id_: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.tenant == tenant, table.c.id == id_)


def _entry(
    tenant: str, kind: Kind, id_: str, connection: sa.Connection, *, version: int | None = None, lock: bool = False
) -> Entry:
    table = _TABLES[kind]
    statement = sa.select(table).where(_is(table, tenant, id_))
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    if row is None:
        raise ProviderError(ErrorCode.NOT_FOUND, f"There is no {kind} {id_[:64]!r}.")
    if version is not None and version != row.version:
        raise ProviderError(
            ErrorCode.FAILED_PRECONDITION, f"The {kind} was changed meanwhile. Read it again.", status=412
        )
    return _made(tenant, kind, row, connection)


def _made(tenant: str, kind: Kind, row: Any, connection: sa.Connection) -> Entry:
    members, users, groups = directory_members.c, directory_users.c, directory_groups.c
    if kind == "Group":
        joined = sa.select(users.id, users.user_name).join(
            directory_members, sa.and_(members.tenant == users.tenant, members.user == users.id)
        )
        found = connection.execute(joined.where(members.tenant == tenant, members.group == row.id).order_by(users.id))
        facts = {"displayName": row.display_name, "members": [{"value": one[0], "display": one[1]} for one in found]}
        if row.external_id is not None:
            facts["externalId"] = row.external_id
    else:
        joined = sa.select(groups.id, groups.display_name).join(
            directory_members, sa.and_(members.tenant == groups.tenant, members.group == groups.id)
        )
        found = connection.execute(joined.where(members.tenant == tenant, members.user == row.id).order_by(groups.id))
        facts = msgspec.json.decode(row.document)
        facts["groups"] = [{"value": one[0], "display": one[1]} for one in found]
    return Entry(
        id=row.id,
        version=row.version,
        created_at=moments.text(row.created_at),
        updated_at=moments.text(row.updated_at),
        facts=facts,
    )


def _find(
    tenant: str, kind: Kind, conditions: Sequence[Condition], start: int, count: int, connection: sa.Connection
) -> tuple[int, list[Entry]]:
    table = _TABLES[kind]
    where = [table.c.tenant == tenant]
    for attribute, value in conditions:
        wanted = value.lower() if attribute == "userName" and isinstance(value, str) else value
        where.append(table.c[_COLUMNS[attribute]] == (int(wanted) if isinstance(wanted, bool) else wanted))
    total = connection.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()
    page = sa.select(table).where(*where).order_by(table.c.created_at, table.c.id).offset(start - 1).limit(count)
    return total, [_made(tenant, kind, row, connection) for row in connection.execute(page).all()]


def _standing(tenant: str, subject: str, connection: sa.Connection) -> Standing | None:
    users, members, groups, roles = (
        table.c for table in (directory_users, directory_members, directory_groups, directory_roles)
    )
    is_named = sa.or_(users.user_name == subject.lower(), users.external_id == subject)
    found = connection.execute(sa.select(users.id, users.active).where(users.tenant == tenant, is_named)).all()
    if not found:
        return None
    statement = (
        sa.select(roles.role)
        .join(directory_groups, sa.and_(groups.tenant == roles.tenant, groups.display_name == roles.group_name))
        .join(directory_members, sa.and_(members.tenant == groups.tenant, members.group == groups.id))
        .where(roles.tenant == tenant, members.user.in_([row.id for row in found]))
    )
    held = frozenset(connection.execute(statement).scalars())
    return Standing(is_active=all(row.active for row in found), roles=held)
