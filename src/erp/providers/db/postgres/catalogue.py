"""Describes tables and views from the server's own catalogue (https://www.postgresql.org/docs/current/catalogs.html)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn
from erp.runtime.spi import UNSET, UnsetType

_TABLES = """
SELECT c.oid::int8 AS id, n.nspname::text AS schema, c.relname::text AS name, c.relkind IN ('v', 'm') AS is_view,
       obj_description(c.oid, 'pg_class') AS comment,
       CASE WHEN c.relkind IN ('v', 'm') THEN NULL WHEN c.relkind = 'p' THEN (
         SELECT sum(greatest(k.reltuples, 0)) FROM pg_partition_tree(c.oid) t JOIN pg_class k ON k.oid = t.relid AND t.isleaf
       ) ELSE c.reltuples END::float8 AS estimate
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
   AND n.nspname = ANY($1::text[]) AND (n.nspname, c.relname) > ($2::text, $3::text)
   AND ($4::text IS NULL OR c.relname = $4) AND ($5::text IS NULL OR n.nspname = $5)
   AND ($6::text[] IS NULL OR n.nspname || '.' || c.relname = ANY($6::text[]))
   AND c.relname !~ '^erp_'
   AND has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
 ORDER BY n.nspname, c.relname LIMIT $7
"""
_COLUMNS = """
SELECT a.attrelid::int8 AS id, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       pg_get_expr(d.adbin, d.adrelid) AS "default", col_description(a.attrelid, a.attnum) AS comment
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = ANY($1::int8[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum
"""
_INDEXES = """
SELECT x.indrelid::int8 AS id, i.relname::text AS name, x.indisunique AS is_unique, x.indisprimary AS is_primary,
       ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k(number, place)
               JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
              WHERE k.place <= x.indnkeyatts ORDER BY k.place) AS columns
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
 WHERE x.indrelid = ANY($1::int8[]::oid[]) AND x.indisvalid ORDER BY x.indrelid, i.relname
"""
_KEYS = """
SELECT c.conrelid::int8 AS id, f.relname::text AS "table",
       ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(number, place)
               JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number ORDER BY k.place) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k(number, place)
               JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number ORDER BY k.place) AS references
  FROM pg_constraint c JOIN pg_class f ON f.oid = c.confrelid
 WHERE c.conrelid = ANY($1::int8[]::oid[]) AND c.contype = 'f' AND c.conparentid = 0 ORDER BY c.conrelid, c.conname
"""

Rows = Sequence[Mapping[str, Any]]


class Catalogue:
    """The tables and views of some schemas, or those that may be seen; where rows are shared, without estimates."""

    def __init__(
        self, schemas: Sequence[str], visible: Collection[tuple[str, str]] | None = None, *, is_shared: bool = False
    ) -> None:
        self._schemas = list(schemas)
        self._visible = None if visible is None else [f"{schema}.{name}" for schema, name in visible]
        self._is_shared = is_shared

    async def tables(
        self, connection: Any, after: tuple[str, str], only: tuple[str | None, str | None], limit: int
    ) -> list[Table]:
        """Return tables and views after ``after``, by schema and name; ``only`` one name, in one schema."""
        schema, name = only
        found = await connection.fetch(_TABLES, self._schemas, *after, name, schema, self._visible, limit)
        ids = [row["id"] for row in found]
        columns, indexes, keys = [_by_table(await connection.fetch(sql, ids)) for sql in (_COLUMNS, _INDEXES, _KEYS)]
        return [self._table(row, columns, indexes, keys) for row in found]

    def _table(
        self, row: Mapping[str, Any], columns: dict[int, Any], indexes: dict[int, Any], keys: dict[int, Any]
    ) -> Table:
        number = row["id"]
        own = indexes.get(number, [])
        primary: list[str] = next((index["columns"] for index in own if index["is_primary"]), [])
        estimate = row["estimate"]
        return Table(
            schema=row["schema"],
            name=row["name"],
            kind="view" if row["is_view"] else "table",
            comment=_present(row["comment"]),
            columns=[_column(each) for each in columns.get(number, [])],
            primary_key=primary,
            indexes=[Index(name=index["name"], columns=index["columns"], unique=index["is_unique"]) for index in own],
            foreign_keys=[
                ForeignKey(columns=key["columns"], table=key["table"], references=key["references"])
                for key in keys.get(number, [])
            ],
            row_estimate=UNSET if estimate is None or estimate < 0 or self._is_shared else int(estimate),
        )


def _column(row: Mapping[str, Any]) -> TableColumn:
    return TableColumn(
        name=row["name"],
        type=row["type"],
        nullable=not row["required"],
        default=row["default"],
        comment=_present(row["comment"]),
    )


def _present(text: str | None) -> str | UnsetType:
    return UNSET if text is None else text


def _by_table(rows: Rows) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(row["id"], []).append(row)
    return found
