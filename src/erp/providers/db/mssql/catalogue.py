"""Describes tables and views from SQL Server's catalogue views (its documentation, "Object Catalog Views")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn
from erp.runtime.spi import UNSET

_TABLES = """
SELECT TOP (?) o.object_id, s.name, o.name, o.type, CAST(p.value AS nvarchar(4000)),
  (SELECT SUM(r.rows) FROM sys.partitions r WHERE r.object_id = o.object_id AND r.index_id IN (0, 1))
FROM sys.objects o JOIN sys.schemas s ON s.schema_id = o.schema_id
LEFT JOIN sys.extended_properties p ON p.major_id = o.object_id AND p.minor_id = 0 AND p.class = 1
  AND p.name = 'MS_Description'
WHERE o.type IN ('U', 'V') AND o.is_ms_shipped = 0 AND s.name + '.' + o.name > ?
  AND (CAST(? AS nvarchar(128)) IS NULL OR o.name = ?) AND (CAST(? AS nvarchar(128)) IS NULL OR s.name = ?) ORDER BY s.name + '.' + o.name
"""
_COLUMNS = """
SELECT c.object_id, c.name, t.name, c.max_length, c.[precision], c.scale, c.is_nullable, d.[definition],
  CAST(p.value AS nvarchar(4000))
FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.user_type_id
LEFT JOIN sys.default_constraints d ON d.object_id = c.default_object_id
LEFT JOIN sys.extended_properties p ON p.major_id = c.object_id AND p.minor_id = c.column_id AND p.class = 1
  AND p.name = 'MS_Description'
WHERE c.object_id IN ({marks}) ORDER BY c.column_id
"""
_INDEXES = """
SELECT i.object_id, i.name, i.is_unique, i.is_primary_key, c.name
FROM sys.indexes i JOIN sys.index_columns k ON k.object_id = i.object_id AND k.index_id = i.index_id
JOIN sys.columns c ON c.object_id = k.object_id AND c.column_id = k.column_id
WHERE i.object_id IN ({marks}) AND k.is_included_column = 0 ORDER BY i.name, k.key_ordinal
"""
_KEYS = """
SELECT f.parent_object_id, f.name, c.name, OBJECT_NAME(f.referenced_object_id), r.name
FROM sys.foreign_keys f JOIN sys.foreign_key_columns k ON k.constraint_object_id = f.object_id
JOIN sys.columns c ON c.object_id = k.parent_object_id AND c.column_id = k.parent_column_id
JOIN sys.columns r ON r.object_id = k.referenced_object_id AND r.column_id = k.referenced_column_id
WHERE f.parent_object_id IN ({marks}) ORDER BY f.name, k.constraint_column_id
"""
_HALVED = frozenset({"nchar", "nvarchar"})
_LONG = frozenset({"char", "varchar", "binary", "varbinary"}) | _HALVED
_EXACT = frozenset({"decimal", "numeric"})
_FRACTIONS = frozenset({"time", "datetime2", "datetimeoffset"})


def tables(connection: Any, after: str, schema: str | None, only: str | None, limit: int) -> list[Table]:
    """Return tables and views after ``after`` (schema.name), in that order."""
    found = _rows(connection, _TABLES, [limit, after, only, only, schema, schema])
    if not found:
        return []
    ids = [row[0] for row in found]
    marks = ", ".join("?" * len(ids))
    columns, indexes, keys = [
        _by_table(_rows(connection, sql.format(marks=marks), ids)) for sql in (_COLUMNS, _INDEXES, _KEYS)
    ]
    return [_table(row, columns[row[0]], _grouped(indexes[row[0]]), _grouped(keys[row[0]])) for row in found]


def _rows(connection: Any, sql: str, values: Sequence[Any]) -> list[Any]:
    return [tuple(row) for row in connection.cursor().execute(sql, tuple(values)).fetchall()]


def _by_table(rows: Sequence[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
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
    _, schema, name, kind, comment, count = row
    is_view = str(kind).strip() == "V"
    return Table(
        schema=schema,
        name=name,
        kind="view" if is_view else "table",
        comment=comment or UNSET,
        columns=[_column(each) for each in columns],
        primary_key=[part[2] for parts in indexes.values() for part in parts if part[1]],
        indexes=[
            Index(name=index, columns=[part[2] for part in parts], unique=bool(parts[0][0]))
            for index, parts in indexes.items()
            if not parts[0][1]
        ],
        foreign_keys=[
            ForeignKey(columns=[part[0] for part in parts], table=parts[0][1], references=[part[2] for part in parts])
            for parts in keys.values()
        ],
        row_estimate=UNSET if count is None or is_view else int(count),
    )


def _column(row: Sequence[Any]) -> TableColumn:
    name, kind, length, precision, scale, is_nullable, default, comment = row
    return TableColumn(
        name=name,
        type=f"{kind}{_measure(kind, length, precision, scale)}",
        nullable=bool(is_nullable),
        default=default,
        comment=comment or UNSET,
    )


def _measure(kind: str, length: int, precision: int, scale: int) -> str:
    if kind in _LONG:
        return "(max)" if length < 0 else f"({length // 2 if kind in _HALVED else length})"
    if kind in _EXACT:
        return f"({precision},{scale})"
    return f"({scale})" if kind in _FRACTIONS else ""
