"""Views of MariaDB for tables that tenants share, which has no row-level security.

The views stand in a database of their own, beside the list of which login is which tenant's. Each shows the rows whose
tenant is that of the login that asks, and checks that new and changed rows are so, too (``WITH CASCADED CHECK OPTION``).
They run with the rights of their definer, so that the logins of tenants need none on the tables, nor on the list.
Source: MariaDB knowledge base, "CREATE VIEW", "Stored Routine Privileges", "USER".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from erp.vendor_clients.row_security.names import TableName, quoted

LOGINS = "erp_tenants"
"""The table that says which login is which tenant's."""
SUFFIX = "_pooled"
COLLATIONS = frozenset({"utf8mb4_bin", "utf8mb4_nopad_bin"})
"""By which no two tenants have the same name, and in which the list of logins is written."""
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


def views_of(schema: str) -> str:
    """Return the name of the database with the views of the tables in ``schema``."""
    return schema + SUFFIX


def preparing(schema: str, role: str) -> list[str]:
    """Return the statements that are needed once: the database of the views, and what ``role`` may do."""
    views, user = _name(views_of(schema)), account(role)
    return [
        f"CREATE DATABASE IF NOT EXISTS {views} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        (
            f"CREATE TABLE IF NOT EXISTS {views}.{LOGINS} (login varchar(80) NOT NULL PRIMARY KEY, tenant varchar(63) NOT NULL)"
            " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        ),
        f"GRANT {RIGHTS}, SHOW VIEW ON {views}.* TO {user} WITH GRANT OPTION",
        f"GRANT CREATE USER ON *.* TO {user}",
    ]


def isolating(table: TableName, column: str, role: str) -> list[str]:
    """Return the statements that show each login its tenant's rows of ``table``, by ``column``."""
    views = _name(views_of(table.schema))
    tenant = f"SELECT tenant FROM {views}.{LOGINS} WHERE login = substring_index(user(), '@', 1)"  # noqa: S608  (names in quotes)
    condition = f"WHERE {_name(column)} = ({tenant}) WITH CASCADED CHECK OPTION"
    return [f"{_viewing(table)} {condition}", _describing(table, role)]


def sharing(table: TableName, role: str) -> list[str]:
    """Return the statements that let every tenant read all rows of ``table``."""
    return [_viewing(table), _describing(table, role)]


def _viewing(table: TableName) -> str:
    view = f"{_name(views_of(table.schema))}.{_name(table.name)}"
    return f"CREATE OR REPLACE SQL SECURITY DEFINER VIEW {view} AS SELECT * FROM {_full(table)}"  # noqa: S608  (names in quotes)


def _describing(table: TableName, role: str) -> str:
    """Shows the shape of a table and none of its rows."""
    return f"GRANT REFERENCES ON {_full(table)} TO {account(role)}"


def account(role: str) -> str:
    """Return ``user`` or ``user@host`` as a statement names it."""
    user, at, host = role.rpartition("@")
    parts = (user, host) if at else (role, "%")
    return "@".join("'" + part.replace("\\", "\\\\").replace("'", "''") + "'" for part in parts)


def _name(name: str) -> str:
    return quoted(name, "`", "`")


def _full(table: TableName) -> str:
    return f"{_name(table.schema)}.{_name(table.name)}"


# -- looking -----------------------------------------------------------------------------------------

_VIEWS = """
SELECT t.table_name, t.table_type, v.view_definition, v.check_option, v.security_type
FROM information_schema.tables t
LEFT JOIN information_schema.views v ON v.table_schema = t.table_schema AND v.table_name = t.table_name
WHERE t.table_schema = %s ORDER BY t.table_name
"""
_COLUMNS = """
SELECT table_name, column_name, collation_name FROM information_schema.columns
WHERE table_schema = %s ORDER BY table_name, ordinal_position
"""
_INDEXES = """
SELECT table_name, index_name, column_name, non_unique FROM information_schema.statistics
WHERE table_schema = %s ORDER BY table_name, index_name, seq_in_index
"""
_KEYS = """
SELECT table_name, constraint_name, column_name, referenced_table_name FROM information_schema.key_column_usage
WHERE table_schema = %s AND referenced_table_name IS NOT NULL ORDER BY table_name, constraint_name, ordinal_position
"""
_Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _View:
    """A view (or a table beside the views) as the server describes it."""

    name: str
    kind: str
    definition: str
    check: str
    security: str


@dataclass(slots=True)
class Found:
    """What stands in a database of views, and what is wrong with it."""

    schema: str = ""
    """Of the tables behind the views."""
    isolated: dict[str, str] = field(default_factory=dict)
    """Views that keep tenants apart -> the tenant's column."""
    shared: set[str] = field(default_factory=set)
    columns: dict[str, list[str]] = field(default_factory=dict)
    """Of each view."""
    problems: list[str] = field(default_factory=list)


async def look(connection: Any, views: str) -> Found:
    """Return what is in the database ``views``; ``connection`` is one of asyncmy, of an owner or of the layer's user.

    A problem is whatever would let one tenant see, change or learn of the rows of another.
    """
    found = Found(columns=_grouped(await _rows(connection, _COLUMNS, views), 1))
    found.schema = views.removesuffix(SUFFIX)
    if not views.endswith(SUFFIX) or views != views.lower():
        found.problems.append(
            f"{views} is not the database of views of another one: name it with {SUFFIX}, in lower case"
        )
        return found
    listed = await _rows(connection, _VIEWS, views)
    if LOGINS not in {row[0] for row in listed}:
        found.problems.append(f"there is no table {views}.{LOGINS}")
    for row in listed:
        if row[0] != LOGINS:
            _judge(found, views, _View(*map(_text, row)))
    columns, indexes, keys = [await _rows(connection, sql, found.schema) for sql in (_COLUMNS, _INDEXES, _KEYS)]
    for name, column in found.isolated.items():
        found.problems += _column_problems(f"{found.schema}.{name}", name, column, columns)
        found.problems += _index_problems(f"{found.schema}.{name}", column, _grouped(indexes, 1, 2).get(name, []))
    found.problems += _key_problems(found, keys)
    found.problems += _name_problems([*found.isolated, *found.shared])
    return found


async def _rows(connection: Any, sql: str, schema: str) -> _Rows:
    cursor = connection.cursor()
    await cursor.execute(sql, (schema,))
    rows: _Rows = await cursor.fetchall()
    return rows


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _grouped(rows: _Rows, first: int, last: int | None = None) -> dict[str, list[Any]]:
    """Return, by the name of the table, one column of ``rows`` or several."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row[first] if last is None else tuple(row[first : last + 1]))
    return found


def _judge(found: Found, views: str, view: _View) -> None:
    """Put a view where it belongs. The server keeps its text in one way, so that texts can be compared."""
    name, columns = view.name, found.columns.get(view.name, [])
    own = f"{_name(found.schema)}.{_name(name)}"
    listed = ",".join(f"{own}.{_name(column)} AS {_name(column)}" for column in columns)
    plain = f"select {listed} from {own}"  # noqa: S608  (compared, not run)
    if view.kind != "VIEW" or view.security != "DEFINER" or not view.definition.startswith(plain):
        found.problems.append(f"{views}.{name} is no view of {found.schema}.{name} that keeps tenants apart")
        return
    if view.definition == plain:
        found.shared.add(name)
        return
    logins = f"{_name(views)}.{_name(LOGINS)}"
    tenant = f"(select {logins}.`tenant` from {logins} where {logins}.`login` = substring_index(user(),'@',1))"  # noqa: S608
    wanted = {f"{plain} where {own}.{_name(column)} = {tenant}": column for column in columns}
    column = wanted.get(view.definition)
    if column is None or view.check != "CASCADED":
        found.problems.append(f"{views}.{name} shows other rows than the tenant's, or lets others be written")
        return
    found.isolated[name] = column


def _column_problems(full: str, name: str, column: str, columns: _Rows) -> list[str]:
    known = next((row for row in columns if (row[0], row[1]) == (name, column)), None)
    if known is None:
        return [f"the shape of {full} cannot be seen: GRANT REFERENCES on it"]
    if known[2] not in COLLATIONS:
        return [f"{full}.{column} is not text with the collation utf8mb4_bin: names of tenants could be equal"]
    return []


def _index_problems(full: str, column: str, parts: Sequence[tuple[str, str]]) -> list[str]:
    """Every index begins with the tenant's column: nothing is unique across tenants, no search meets their rows."""
    first: dict[str, str] = {}
    for index, part in parts:
        first.setdefault(index, part)
    if "PRIMARY" not in first:
        return [f"{full} has no primary key that begins with {column}"]
    return [
        f"{full}: the index {index} does not begin with {column}" for index, part in first.items() if part != column
    ]


def _key_problems(found: Found, keys: _Rows) -> list[str]:
    parts: dict[tuple[str, str, str], set[str]] = {}
    for table, key, column, target in keys:
        parts.setdefault((table, key, target), set()).add(column)
    return [
        f"{found.schema}.{table}: the foreign key {key} has no {found.isolated[table]}: it reaches other tenants' rows"
        for (table, key, target), columns in parts.items()
        if table in found.isolated and target in found.isolated and found.isolated[table] not in columns
    ]


def _name_problems(names: Sequence[str]) -> list[str]:
    by_folded: dict[str, list[str]] = {}
    for name in names:
        by_folded.setdefault(name.lower(), []).append(name)
    return [f"{' and '.join(same)} differ only by case" for same in by_folded.values() if len(same) > 1]
