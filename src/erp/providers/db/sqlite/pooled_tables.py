"""Which tables of a pooled file tenants share, read from the file itself and proven fit for it.

The operator lists them in the table ``erp_isolation``; a tenant's own configuration cannot widen it.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from erp.providers.db.sqlite.catalogue import quoted
from erp.runtime.spi import ErrorCode, ProviderError

LIST = "erp_isolation"


@dataclass(frozen=True, slots=True)
class PooledTable:
    """A shared table. ``columns`` are what tenants see."""

    name: str
    tenant_column: str
    columns: tuple[str, ...]
    relatives: dict[str, set[str]]
    """Tables that foreign keys join to it, each with its columns in them."""


def load(connection: sqlite3.Connection) -> dict[str, PooledTable]:
    """Return the shared tables by name in lower case.

    Raises:
        ProviderError: ``failed_precondition`` naming what makes a table unfit to be shared.
    """
    try:
        listed = connection.execute(f"SELECT table_name, tenant_column FROM {LIST} ORDER BY 1").fetchall()  # noqa: S608
    except sqlite3.OperationalError as error:
        raise _unfit(
            LIST, "the file has no such table; it lists table_name and tenant_column of each shared table"
        ) from error
    tables = {str(name).lower(): _table(connection, str(name), str(column)) for name, column in listed}
    for table in tables.values():
        _relate(connection, table, tables)
    return tables


def _table(connection: sqlite3.Connection, name: str, column: str) -> PooledTable:
    found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone()
    if found is None or name.lower().startswith(("erp_", "sqlite_")) or _is_virtual(found[0]):
        raise _unfit(name, "is not an ordinary table of this file, written as there")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (name,)).fetchone():
        raise _unfit(name, "has a trigger, which would act beyond the tenant")
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA main.table_xinfo({quoted(name)})")]
    if column not in columns:
        raise _unfit(name, f"has no column {column!r}")
    _check_indexes(connection, name, column)
    visible = tuple(item for item in columns if item != column)
    return PooledTable(name, column.lower(), visible, {})


def _is_virtual(sql: str) -> bool:
    return sql.lstrip().upper().startswith("CREATE VIRTUAL")


def _check_indexes(connection: sqlite3.Connection, name: str, column: str) -> None:
    """Every index begins with the tenant's column: nothing is unique across tenants, no search meets their rows."""
    keys = [row for row in connection.execute(f"PRAGMA main.table_xinfo({quoted(name)})") if row[5]]
    if column not in {row[1] for row in keys}:
        raise _unfit(name, f"has no primary key that begins with {column!r}")
    for index in connection.execute(f"PRAGMA main.index_list({quoted(name)})").fetchall():
        first = connection.execute(f"PRAGMA main.index_info({quoted(index[1])})").fetchone()
        if first is None or first[2] != column:
            raise _unfit(name, f"has the index {index[1]!r}, which does not begin with {column!r}")


def _relate(connection: sqlite3.Connection, table: PooledTable, tables: dict[str, PooledTable]) -> None:
    """Note which columns SQLite itself looks up for each foreign key, in both tables."""
    pairs: dict[int, list[tuple[str, str, str]]] = {}
    for row in connection.execute(f"PRAGMA main.foreign_key_list({quoted(table.name)})"):
        pairs.setdefault(row[0], []).append((str(row[2]).lower(), str(row[3]).lower(), str(row[4]).lower()))
    for references in pairs.values():
        parent = tables.get(references[0][0])
        joined = {(mine, theirs) for _, mine, theirs in references}
        if parent is None or (table.tenant_column, parent.tenant_column) not in joined:
            raise _unfit(table.name, "has a foreign key that does not join the tenants' columns of shared tables")
        parent.relatives.setdefault(table.name.lower(), set()).update(mine for mine, _ in joined)
        table.relatives.setdefault(parent.name.lower(), set()).update(theirs for _, theirs in joined)


def _unfit(name: str, why: str) -> ProviderError:
    message = f"The file cannot be shared between tenants: {name[:100]!r} {why}."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message)
