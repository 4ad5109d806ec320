"""Describes tables and views from SQLite's own catalogue (https://www.sqlite.org/pragma.html)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn
from erp.runtime.spi import UNSET

COUNTED = 100_000
"""Up to so many rows are counted, which takes about a millisecond."""
_HIDDEN = 1
"""A column of a virtual table that is not its own; generated columns have other figures."""
_NAMES = (
    "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    " AND name > ?1 AND (?2 IS NULL OR name = ?2)"
    " AND (?3 IS NULL OR lower(name) IN (SELECT value FROM json_each(?3))) ORDER BY name LIMIT ?4"
)


class Catalogue:
    """The tables and views of a file, or those that may be seen, each with the tenant's column if it has one.

    What is hidden is left out everywhere: other tables, the tenant's column, other tenants' rows in figures.
    """

    def __init__(self, visible: Mapping[str, str | None] | None, tenant: str) -> None:
        self._visible = visible
        self._tenant = tenant

    def names(self, connection: sqlite3.Connection, after: str, limit: int, only: str | None) -> list[tuple[str, str]]:
        """Return name and kind of tables and views after ``after``, by name."""
        visible = None if self._visible is None else json.dumps(sorted(self._visible))
        return [(row[0], row[1]) for row in connection.execute(_NAMES, (after, only, visible, limit))]

    def table(self, connection: sqlite3.Connection, name: str, kind: str) -> Table:
        """Describe one table or view."""
        hidden = (self._visible or {}).get(name.lower())
        columns = [row for row in _columns(connection, name, kind) if row["name"].lower() != hidden]
        key = sorted((column["pk"], column["name"]) for column in columns if column["pk"])
        estimate = None if kind == "view" else self._row_estimate(connection, name, hidden)
        return Table(
            name=name,
            kind="view" if kind == "view" else "table",
            columns=[
                TableColumn(name=row["name"], type=row["type"], nullable=not row["notnull"], default=row["dflt_value"])
                for row in columns
            ],
            primary_key=[column for _, column in key],
            indexes=[_index(connection, row, hidden) for row in _pragma(connection, "pragma_index_list", name)],
            foreign_keys=_foreign_keys(_pragma(connection, "pragma_foreign_key_list", name), hidden),
            row_estimate=UNSET if estimate is None else estimate,
        )

    def _row_estimate(self, connection: sqlite3.Connection, name: str, hidden: str | None) -> int | None:
        """Return how many rows there are, counted up to ``COUNTED``; beyond, what ANALYZE last found.

        None for a larger table that was never analysed, and for one that cannot be read (its module is missing).
        """
        own = "" if hidden is None else f"WHERE {quoted(hidden)} = ?"
        limited = f"SELECT 1 FROM main.{quoted(name)} {own} LIMIT {COUNTED + 1}"  # noqa: S608  (the names are quoted)
        values = () if hidden is None else (self._tenant,)
        try:
            counted: int = connection.execute(f"SELECT count(*) FROM ({limited})", values).fetchone()[0]  # noqa: S608
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_ERROR":
                return None
            raise
        if counted <= COUNTED:
            return counted
        return _analysed(connection, name) if hidden is None else None


def _analysed(connection: sqlite3.Connection, name: str) -> int | None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").fetchone():
        return None
    statement = "SELECT max(CAST(stat AS INTEGER)) FROM sqlite_stat1 WHERE tbl = ?"
    found: int | None = connection.execute(statement, (name,)).fetchone()[0]
    return None if found is None else max(found, COUNTED)


def quoted(name: str) -> str:
    """Return ``name`` as an identifier in a statement."""
    return '"' + name.replace('"', '""') + '"'


def _columns(connection: sqlite3.Connection, name: str, kind: str) -> list[dict[str, Any]]:
    try:
        return [row for row in _pragma(connection, "pragma_table_xinfo", name) if row["hidden"] != _HIDDEN]
    except sqlite3.OperationalError as error:
        if kind == "view" and error.sqlite_errorname == "SQLITE_ERROR":
            # A view outlives the tables it reads from; the others are still to be described.
            return []
        raise


def _pragma(connection: sqlite3.Connection, function: str, name: str) -> list[dict[str, Any]]:
    cursor = connection.execute(f"SELECT * FROM {function}(?)", (name,))  # noqa: S608  (the function is a constant)
    keys = [column[0] for column in cursor.description]
    return [dict(zip(keys, row, strict=True)) for row in cursor]


def _index(connection: sqlite3.Connection, row: dict[str, Any], hidden: str | None) -> Index:
    columns = [item["name"] for item in _pragma(connection, "pragma_index_info", row["name"]) if item["name"]]
    return Index(
        name=row["name"], columns=[name for name in columns if name.lower() != hidden], unique=bool(row["unique"])
    )


def _foreign_keys(rows: list[dict[str, Any]], hidden: str | None) -> list[ForeignKey]:
    found: dict[int, ForeignKey] = {}
    for row in sorted(rows, key=lambda item: (item["id"], item["seq"])):
        key = found.setdefault(row["id"], ForeignKey(columns=[], table=row["table"], references=[]))
        if row["from"].lower() == hidden:
            continue
        key.columns.append(row["from"])
        if row["to"] is not None:
            key.references.append(row["to"])
    return list(found.values())
