"""Measures what one statement changed.

SQLite's own figures go on showing an older statement's when the present one changes or inserts nothing
(https://www.sqlite.org/c3ref/changes.html, https://www.sqlite.org/c3ref/last_insert_rowid.html). So the
last row id is set to a mark first, which is the only row that the temporary table takes.
"""

from __future__ import annotations

import sqlite3
from typing import Any

_MARK = -(2**63)
_SET_MARK = f"INSERT OR REPLACE INTO temp.erp_last_insert VALUES ({_MARK})"  # noqa: S608  (a constant)


def prepare(connection: sqlite3.Connection) -> None:
    """Make ``connection`` able to measure."""
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"CREATE TEMP TABLE erp_last_insert (id INTEGER PRIMARY KEY CHECK (id = {_MARK}))")


class Measured:
    """Runs one statement; once its rows are read, tells the rows it changed itself, without those of triggers."""

    def __init__(self, connection: sqlite3.Connection, sql: str, parameters: list[Any]) -> None:
        connection.execute(_SET_MARK)
        self._connection = connection
        self._before = connection.total_changes
        self.cursor = connection.execute(sql, parameters)

    def close(self) -> None:
        """End the statement; one that is left half read would keep its transaction from ending."""
        self.cursor.close()

    def figures(self) -> tuple[int, int | None]:
        """Return the number of rows affected and the id of the row inserted last, if one was."""
        changed, inserted = self._connection.execute("SELECT changes(), last_insert_rowid()").fetchone()
        if self._connection.total_changes == self._before:
            return 0, None
        return changed, None if inserted == _MARK else inserted
