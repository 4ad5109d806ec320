"""Describes tables and views from the server's INFORMATION_SCHEMA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn
from erp.runtime.spi import UNSET

_TABLES = """
SELECT table_name, table_type, table_comment, table_rows FROM information_schema.tables
WHERE table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'VIEW', 'SYSTEM VERSIONED') AND table_name > %s
  AND (%s IS NULL OR table_name = %s) {listed} ORDER BY table_name LIMIT %s
"""
_COLUMNS = """
SELECT table_name, column_name, column_type, is_nullable, column_default, column_comment FROM information_schema.columns
WHERE table_schema = DATABASE() AND table_name IN %s ORDER BY ordinal_position
"""
_INDEXES = """
SELECT table_name, index_name, non_unique, column_name FROM information_schema.statistics
WHERE table_schema = DATABASE() AND table_name IN %s ORDER BY index_name, seq_in_index
"""
_KEYS = """
SELECT table_name, constraint_name, column_name, referenced_table_name, referenced_column_name
FROM information_schema.key_column_usage
WHERE table_schema = DATABASE() AND referenced_table_name IS NOT NULL AND table_name IN %s
ORDER BY constraint_name, ordinal_position
"""
_PRIMARY = "PRIMARY"


async def tables(
    connection: Any, after: str, only: str | None, limit: int, visible: Collection[str] | None
) -> list[Table]:
    """Return tables and views after ``after``, by name; of ``visible`` if given."""
    await connection.query("SET SESSION sql_select_limit = DEFAULT")  # a query before has left its own
    connection.select_limit = 0
    listed = "" if visible is None else "AND table_name IN %s"
    values = [after, only, only, *([] if visible is None else [tuple(sorted(visible)) or ("",)]), limit]
    found = await _rows(connection, _TABLES.format(listed=listed), values)
    if not found:
        return []
    names = [row[0] for row in found]
    columns, indexes, keys = [
        _by_table(await _rows(connection, sql, [tuple(names)])) for sql in (_COLUMNS, _INDEXES, _KEYS)
    ]
    return [_table(row, columns[row[0]], _grouped(indexes[row[0]]), _grouped(keys[row[0]])) for row in found]


async def _rows(connection: Any, sql: str, values: Sequence[Any]) -> list[Any]:
    cursor = connection.cursor()
    await cursor.execute(sql, tuple(values))
    return list(await cursor.fetchall())


def _by_table(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for table, *rest in rows:
        found[table].append(rest)
    return found


def _grouped(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, *rest in rows:
        found.setdefault(name, []).append(rest)
    return found


def _table(
    row: Sequence[Any], columns: Sequence[Any], indexes: dict[str, list[Any]], keys: dict[str, list[Any]]
) -> Table:
    name, kind, comment, estimate = row
    is_view = kind == "VIEW"
    return Table(
        name=name,
        kind="view" if is_view else "table",
        comment=comment if comment and not is_view else UNSET,
        columns=[_column(each) for each in columns],
        primary_key=[part[1] for part in indexes.get(_PRIMARY, [])],
        indexes=[
            Index(name=index, columns=[part[1] for part in parts if part[1]], unique=not parts[0][0])
            for index, parts in indexes.items()
            if index != _PRIMARY
        ],
        foreign_keys=[
            ForeignKey(columns=[part[0] for part in parts], table=parts[0][1], references=[part[2] for part in parts])
            for parts in keys.values()
        ],
        row_estimate=UNSET if estimate is None or is_view else int(estimate),
    )


def _column(row: Sequence[Any]) -> TableColumn:
    name, kind, nullable, default, comment = row
    shown = default.decode() if isinstance(default, bytes) else default
    return TableColumn(
        name=name,
        type=kind.decode() if isinstance(kind, bytes) else kind,
        nullable=nullable == "YES",
        default=None if shown == "NULL" else shown,
        comment=comment or UNSET,
    )
