"""Describes tables and views from SQLite's own catalogue (https://www.sqlite.org/pragma.html)."""

from __future__ import annotations

import sqlite3
from typing import Any

from erp.contracts.models.db import ForeignKey, Index, Table, TableColumn

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
    )


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
