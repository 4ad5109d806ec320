"""Describes tables and views from SQLite's own catalogue (https://www.sqlite.org/pragma.html)."""

from __future__ import annotations

import sqlite3
from typing import Any

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn
from erp.runtime.spi import UNSET

COUNTED = 100_000
"""Up to so many rows are counted, which takes about a millisecond."""
_HIDDEN = 1
"""A column of a virtual table that is not its own; generated columns have other figures."""


def names(connection: sqlite3.Connection, after: str, limit: int, only: str | None) -> list[tuple[str, str]]:
    """Return name and kind of tables and views after ``after``, by name."""
    statement = (
        "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " AND name > ? AND (? IS NULL OR name = ?) ORDER BY name LIMIT ?"
    )
    return [(row[0], row[1]) for row in connection.execute(statement, (after, only, only, limit))]


def table(connection: sqlite3.Connection, name: str, kind: str) -> Table:
    """Describe one table or view."""
    columns = _columns(connection, name, kind)
    estimate = None if kind == "view" else row_estimate(connection, name)
    key = sorted((column["pk"], column["name"]) for column in columns if column["pk"])
    return Table(
        name=name,
        kind="view" if kind == "view" else "table",
        columns=[
            TableColumn(name=row["name"], type=row["type"], nullable=not row["notnull"], default=row["dflt_value"])
            for row in columns
        ],
        primary_key=[column for _, column in key],
        indexes=[_index(connection, row) for row in _pragma(connection, "pragma_index_list", name)],
        foreign_keys=_foreign_keys(_pragma(connection, "pragma_foreign_key_list", name)),
        row_estimate=UNSET if estimate is None else estimate,
    )


def row_estimate(connection: sqlite3.Connection, name: str, condition: str = "", *values: Any) -> int | None:
    """Return how many rows there are, counted up to ``COUNTED``; beyond, what ANALYZE last found.

    None for a larger table that was never analysed, and for one that cannot be read (its module is missing).
    """
    limited = f"SELECT 1 FROM main.{quoted(name)} {condition} LIMIT {COUNTED + 1}"  # noqa: S608  (the name is quoted)
    try:
        counted: int = connection.execute(f"SELECT count(*) FROM ({limited})", values).fetchone()[0]  # noqa: S608
        return counted if counted <= COUNTED else _analysed(connection, name)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_ERROR":
            return None
        raise


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


def _index(connection: sqlite3.Connection, row: dict[str, Any]) -> Index:
    columns = [item["name"] for item in _pragma(connection, "pragma_index_info", row["name"]) if item["name"]]
    return Index(name=row["name"], columns=columns, unique=bool(row["unique"]))


def _foreign_keys(rows: list[dict[str, Any]]) -> list[ForeignKey]:
    found: dict[int, ForeignKey] = {}
    for row in sorted(rows, key=lambda item: (item["id"], item["seq"])):
        key = found.setdefault(row["id"], ForeignKey(columns=[], table=row["table"], references=[]))
        key.columns.append(row["from"])
        if row["to"] is not None:
            key.references.append(row["to"])
    return list(found.values())
