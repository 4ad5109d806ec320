"""Which tables of a file of SQLite tenants share, read from the file itself and proven fit for it.

The operator lists them in the table ``erp_isolation``; a tenant's own configuration cannot widen it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.row_security.names import quoted

LIST = "erp_isolation"


@dataclass(frozen=True, slots=True)
class PooledTable:
    """A shared table. ``columns`` are what tenants see."""

    name: str
    tenant_column: str
    columns: tuple[str, ...]
    relatives: dict[str, set[str]]
    """Tables that foreign keys join to it, each with its columns in them."""


def listing(table: str, column: str) -> list[str]:
    """Return the statements that list ``table`` as shared by ``column``; they can be run again."""
    name, own = (text.replace("'", "''") for text in (table, column))
    again = "ON CONFLICT (table_name) DO UPDATE SET tenant_column = excluded.tenant_column"
    return [
        f"CREATE TABLE IF NOT EXISTS main.{LIST} (table_name TEXT PRIMARY KEY NOT NULL, tenant_column TEXT NOT NULL)",
        f"INSERT INTO main.{LIST} (table_name, tenant_column) VALUES ('{name}', '{own}') {again}",  # noqa: S608
    ]


def load(connection: sqlite3.Connection) -> dict[str, PooledTable]:
    """Return the shared tables by name in lower case.

    Raises:
        ProviderError: ``failed_precondition`` naming what makes a table unfit to be shared.
    """
    tables = {name.lower(): _table(connection, name, column) for name, column in _listed(connection)}
    for table in tables.values():
        _relate(connection, table, tables)
    return tables


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return what makes each listed table unfit to be shared, with the remedy."""
    try:
        listed = _listed(connection)
    except ProviderError as error:
        return [error.message]
    tables: dict[str, PooledTable] = {}
    found: list[str] = []
    for name, column in listed:
        try:
            tables[name.lower()] = _table(connection, name, column)
        except ProviderError as error:
            found.append(error.message)
    if found:
        # Foreign keys join tables that are fit: until all are, a complaint about one could mislead.
        return found
    for table in tables.values():
        try:
            _relate(connection, table, tables)
        except ProviderError as error:
            found.append(error.message)
    return found


def _listed(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    try:
        listed = connection.execute(f"SELECT table_name, tenant_column FROM main.{LIST} ORDER BY 1").fetchall()  # noqa: S608
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_ERROR":
            raise
        why = "the file has no such table with table_name and tenant_column of each shared table"
        raise _unfit(LIST, why, "erp db isolate --dialect sqlite makes it") from error
    return [(str(name), str(column)) for name, column in listed]


def _table(connection: sqlite3.Connection, name: str, column: str) -> PooledTable:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
    if found is None or name.lower().startswith(("erp_", "sqlite_")) or _is_virtual(found[0]):
        why = "is not an ordinary table of this file, written as there"
        raise _unfit(name, why, f"make it, or leave it off the list in {LIST}")
    about = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
    trigger = connection.execute(about, (name,)).fetchone()
    if trigger is not None:
        raise _unfit(name, "has a trigger, which would act beyond the tenant", f"drop trigger {quoted(trigger[0])}")
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA main.table_xinfo({quoted(name)})")]
    if column not in columns:
        raise _unfit(name, f"has no column {column!r}", "list it with the column that names the tenant, or add that")
    _check_indexes(connection, name, column)
    visible = tuple(item for item in columns if item != column)
    return PooledTable(name, column.lower(), visible, {})


def _is_virtual(sql: str) -> bool:
    return sql.lstrip().upper().startswith("CREATE VIRTUAL")


def _check_indexes(connection: sqlite3.Connection, name: str, column: str) -> None:
    """Every index begins with the tenant's column: nothing is unique across tenants, no search meets their rows."""
    own = quoted(column)
    keys = [row for row in connection.execute(f"PRAGMA main.table_xinfo({quoted(name)})") if row[5]]
    if column not in {row[1] for row in keys}:
        remedy = f"make it anew with primary key ({own}, ...), for SQLite cannot change one"
        raise _unfit(name, f"has no primary key that begins with {column!r}", remedy)
    for index in connection.execute(f"PRAGMA main.index_list({quoted(name)})").fetchall():
        first = connection.execute(f"PRAGMA main.index_info({quoted(index[1])})").fetchone()
        if first is None or first[2] != column:
            # Those of CREATE INDEX can be dropped; the others belong to a constraint (sqlite.org/pragma.html).
            remedy = (
                f"drop it and make it on ({own}, ...)" if index[3] == "c" else f"make the table anew with ({own}, ...)"
            )
            raise _unfit(name, f"has the index {index[1]!r}, which does not begin with {column!r}", remedy)


def _relate(connection: sqlite3.Connection, table: PooledTable, tables: dict[str, PooledTable]) -> None:
    """Note which columns SQLite itself looks up for each foreign key, in both tables."""
    pairs: dict[int, list[tuple[str, str, str]]] = {}
    for row in connection.execute(f"PRAGMA main.foreign_key_list({quoted(table.name)})"):
        pairs.setdefault(row[0], []).append((str(row[2]).lower(), str(row[3]).lower(), str(row[4]).lower()))
    for references in pairs.values():
        parent = tables.get(references[0][0])
        joined = {(mine, theirs) for _, mine, theirs in references}
        if parent is None or (table.tenant_column, parent.tenant_column) not in joined:
            why = "has a foreign key that does not join the tenants' columns of shared tables"
            remedy = f"list {references[0][0]!r} too, and make the key contain both tenants' columns"
            raise _unfit(table.name, why, remedy)
        parent.relatives.setdefault(table.name.lower(), set()).update(mine for mine, _ in joined)
        table.relatives.setdefault(parent.name.lower(), set()).update(theirs for _, theirs in joined)


def _unfit(name: str, why: str, remedy: str) -> ProviderError:
    message = f"The file cannot be shared between tenants: {name[:100]!r} {why}; {remedy}."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
