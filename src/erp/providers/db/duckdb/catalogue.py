"""Describes tables and views from DuckDB's own catalogue (https://duckdb.org/docs/stable/sql/meta/duckdb_table_functions)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn
from erp.runtime.spi import UNSET

_NAMES = """
SELECT schema_name, name, kind, comment, estimate FROM (
  SELECT schema_name, table_name AS name, 'table' AS kind, comment, estimated_size AS estimate FROM duckdb_tables()
  WHERE database_name = current_database() AND NOT internal AND NOT temporary
  UNION ALL SELECT schema_name, view_name, 'view', comment, NULL FROM duckdb_views()
  WHERE database_name = current_database() AND NOT internal AND NOT temporary
) WHERE (schema_name, name) > (?, ?) AND (? IS NULL OR name = ?)
  AND (? IS NULL OR (schema_name = 'main' AND name IN (SELECT unnest(?)))) ORDER BY schema_name, name LIMIT ?
"""
_COLUMNS = """
SELECT schema_name, table_name, column_name, data_type, is_nullable, column_default, comment FROM duckdb_columns()
WHERE database_name = current_database() AND schema_name || '.' || table_name IN (SELECT unnest(?))
ORDER BY column_index
"""
_CONSTRAINTS = """
SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names,
  constraint_name FROM duckdb_constraints()
WHERE database_name = current_database() AND schema_name || '.' || table_name IN (SELECT unnest(?))
ORDER BY constraint_index
"""
_INDEXES = """
SELECT schema_name, table_name, index_name, is_unique, expressions FROM duckdb_indexes()
WHERE database_name = current_database() AND schema_name || '.' || table_name IN (SELECT unnest(?)) ORDER BY index_name
"""

Shared = Mapping[str, str] | None
"""The tenants' columns by tables that tenants share; None where they share none."""


class Found(msgspec.Struct, frozen=True):
    """A table or view that is to be described."""

    schema: str
    name: str
    kind: str
    comment: str | None
    estimate: int | None


def names(handle: Any, after: tuple[str, str], limit: int, only: str | None, shared: Shared = None) -> list[Found]:
    """Return tables and views after schema and name ``after``, in that order; of a shared file those in ``shared``."""
    seen = None if shared is None else list(shared)
    return [Found(*row) for row in handle.execute(_NAMES, [*after, only, only, seen, seen, limit]).fetchall()]


def described(handle: Any, found: Sequence[Found], shared: Shared = None) -> list[Table]:
    """Describe ``found``; of a shared file as its tenants see it."""
    wanted = [f"{one.schema}.{one.name}" for one in found]
    columns, constraints, indexes = (_grouped(handle, sql, wanted) for sql in (_COLUMNS, _CONSTRAINTS, _INDEXES))
    tables = []
    for one in found:
        place = (one.schema, one.name)
        keys = [row[1] for row in constraints[place] if row[0] == "PRIMARY KEY"]
        table = Table(
            schema=one.schema,
            name=one.name,
            kind="view" if one.kind == "view" else "table",
            columns=[_column(row) for row in columns[place]],
            primary_key=list(keys[0]) if keys else [],
            indexes=[_index(row) for row in indexes[place]] + _unique(constraints[place]),
            foreign_keys=[_foreign_key(row) for row in constraints[place] if row[0] == "FOREIGN KEY"],
            row_estimate=UNSET if one.estimate is None else one.estimate,
            comment=UNSET if one.comment is None else one.comment,
        )
        tables.append(table if shared is None else _narrowed(table, shared[one.name]))
    return tables


def _narrowed(table: Table, hidden: str) -> Table:
    """Leave out the tenants' column, and how many rows all of them have together."""
    table.row_estimate = UNSET
    table.columns = [column for column in table.columns if column.name != hidden]
    table.primary_key = [name for name in table.primary_key if name != hidden]
    for index in table.indexes:
        index.columns = [name for name in index.columns if name != hidden]
    return table


def _grouped(handle: Any, sql: str, wanted: list[str]) -> dict[tuple[str, str], list[Any]]:
    rows: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for schema, table, *rest in handle.execute(sql, [wanted]).fetchall():
        rows[schema, table].append(rest)
    return rows


def _column(row: Sequence[Any]) -> TableColumn:
    name, kind, is_nullable, default, comment = row
    return TableColumn(
        name=name, type=kind, nullable=is_nullable, default=default, comment=UNSET if comment is None else comment
    )


def _index(row: Sequence[Any]) -> Index:
    name, is_unique, expressions = row
    parts = [part.strip().strip("'\"") for part in str(expressions or "").strip("[]").split(",")]
    return Index(name=name, columns=[part for part in parts if part], unique=is_unique)


def _unique(constraints: Sequence[Sequence[Any]]) -> list[Index]:
    return [Index(name=row[4], columns=list(row[1]), unique=True) for row in constraints if row[0] == "UNIQUE"]


def _foreign_key(row: Sequence[Any]) -> ForeignKey:
    return ForeignKey(columns=list(row[1]), table=row[2], references=list(row[3]))
