"""Describes tables and views from Snowflake's INFORMATION_SCHEMA and its SHOW statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from erp.contracts.models.db import ForeignKey, Table, TableColumn
from erp.providers.db.snowflake.engine import lowered
from erp.runtime.spi import UNSET

_TABLES = """
SELECT table_name, table_type, comment, row_count FROM information_schema.tables
WHERE table_schema = ? AND table_name > ? AND (? IS NULL OR table_name = ?) ORDER BY table_name LIMIT ?
"""
_COLUMNS = """
SELECT table_name, column_name, data_type, numeric_precision, numeric_scale, character_maximum_length, is_nullable,
  column_default, comment FROM information_schema.columns WHERE table_schema = ? AND table_name IN ({marks})
ORDER BY ordinal_position
"""


def tables(connection: Any, schema: str, after: str, only: str | None, limit: int) -> tuple[list[Table], list[str]]:
    """Return tables and views of ``schema`` after ``after``, by name, and their names as Snowflake keeps them."""
    found = _rows(connection, _TABLES, [schema, after, only, only, limit])
    if not found:
        return [], []
    names = [row[0] for row in found]
    marks = ", ".join("?" * len(names))
    columns: dict[str, list[Any]] = defaultdict(list)
    for table, *rest in _rows(connection, _COLUMNS.format(marks=marks), [schema, *names]):
        columns[table].append(rest)
    keys = _keys(connection, "PRIMARY", schema, "table_name")
    foreign = _keys(connection, "IMPORTED", schema, "fk_table_name")
    return [_table(row, columns[row[0]], keys[row[0]], foreign[row[0]]) for row in found], names


def _rows(connection: Any, sql: str, values: Sequence[Any]) -> list[Any]:
    return list(connection.cursor().execute(sql, list(values)).fetchall())


def _keys(connection: Any, kind: str, schema: str, table: str) -> dict[str, list[dict[str, Any]]]:
    cursor = connection.cursor().execute(f'SHOW {kind} KEYS IN SCHEMA "{schema}"')
    names = [each[0] for each in cursor.description]
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in cursor.fetchall():
        one = dict(zip(names, row, strict=True))
        found[one[table]].append(one)
    return found


def _table(
    row: Sequence[Any], columns: Sequence[Any], keys: Sequence[dict[str, Any]], foreign: Sequence[dict[str, Any]]
) -> Table:
    name, kind, comment, count = row
    is_view = "VIEW" in str(kind)
    return Table(
        name=lowered(name),
        kind="view" if is_view else "table",
        comment=comment or UNSET,
        columns=[_column(each) for each in columns],
        primary_key=[lowered(key["column_name"]) for key in sorted(keys, key=lambda one: one["key_sequence"])],
        indexes=[],
        foreign_keys=_foreign(foreign),
        row_estimate=UNSET if count is None or is_view else int(count),
    )


def _foreign(rows: Sequence[dict[str, Any]]) -> list[ForeignKey]:
    found: dict[str, ForeignKey] = {}
    for row in sorted(rows, key=lambda one: (one["fk_name"], one["key_sequence"])):
        key = found.setdefault(
            row["fk_name"], ForeignKey(columns=[], table=lowered(row["pk_table_name"]), references=[])
        )
        key.columns.append(lowered(row["fk_column_name"]))
        key.references.append(lowered(row["pk_column_name"]))
    return list(found.values())


def _column(row: Sequence[Any]) -> TableColumn:
    name, kind, precision, scale, length, nullable, default, comment = row
    measure = f"({precision},{scale})" if kind == "NUMBER" and precision is not None else ""
    measure = f"({length})" if kind == "TEXT" and length is not None else measure
    return TableColumn(
        name=lowered(name),
        type=f"{kind}{measure}",
        nullable=nullable == "YES",
        default=default,
        comment=comment or UNSET,
    )
