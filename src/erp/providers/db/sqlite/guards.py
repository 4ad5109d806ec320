"""What a statement may do, enforced by SQLite itself while it compiles the statement.

The authorizer sees what a statement really does, not how it is spelled, so no trick of syntax gets
past it (https://www.sqlite.org/c3ref/set_authorizer.html). Readers are opened read-only besides.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Protocol

from erp.providers.db.sqlite.functions import ALTERING, HARMLESS

READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
CHANGING_ROWS = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
NEVER = frozenset(
    {
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_PRAGMA,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
        sqlite3.SQLITE_DROP_TEMP_TABLE,
    }
)
_SCHEMAS = frozenset({"sqlite_master", "sqlite_temp_master"})
_CHECK = "pragma_quick_check"
"""What SQLite itself reads when a column with a condition is added."""
MARK = "erp_last_insert"
"""The provider's own temporary table."""
_REVEALING = frozenset({"sqlite_stmt", "dbstat", "sqlite_dbpage"})
"""Virtual tables that show other statements or raw pages. Those named pragma_* set things, though they look like tables."""
ROW_SOURCES = frozenset({"json_each", "json_tree"})
"""Functions that stand where tables stand."""
_MODULES = frozenset({"fts3", "fts4", "fts5", "fts4aux", "fts5vocab", "rtree", "rtree_i32", "geopoly"})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 30_001,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class Rules(Protocol):
    """What the statements of one open provider may do."""

    def prepare(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        """Equip a new connection; no rule holds yet."""

    def may_read(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        """The authorizer of a query."""

    def may_write(
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        """The authorizer of a change."""


class OwnFile:
    """The rules where a file belongs to one tenant: anything within it, nothing beyond.

    With ``tables``, only these and no change of the schema; with ``functions``, of the harmless ones only these.
    """

    def __init__(self, tables: Collection[str] | None = None, functions: Collection[str] | None = None) -> None:
        self._tables = None if tables is None else frozenset(table.lower() for table in tables)
        chosen = HARMLESS if functions is None else {function.lower() for function in functions}
        self._functions = HARMLESS & chosen
        self._counting = self._functions | {"changes", "last_insert_rowid"}

    def prepare(self, connection: sqlite3.Connection, *, writes: bool) -> None:
        """Nothing is needed."""

    def may_read(
        self, action: int, first: str | None, second: str | None, _database: str | None, _source: str | None
    ) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").lower() in self._functions
        elif action == sqlite3.SQLITE_READ:
            allowed = self._is_open(first) or self._is_query(first, second)
        else:
            is_own = is_own_pragma(action, first, second) and first == "data_version"
            allowed = action in READING or is_own or is_declaring(action, first)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def may_write(
        self, action: int, first: str | None, second: str | None, database: str | None, _source: str | None
    ) -> int:
        if action in NEVER or is_temporary(action, first, database):
            allowed = is_own_pragma(action, first, second)
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = (second or "").lower() in self._counting or second in ALTERING
        elif is_declaring(action, first):
            allowed = True
        elif action == sqlite3.SQLITE_READ or action in CHANGING_ROWS:
            allowed = self._is_open(first) or first in (MARK, _CHECK) or self._is_query(first, second)
        elif action == sqlite3.SQLITE_CREATE_VTABLE:
            allowed = self._tables is None and (second or "").lower() in _MODULES
        else:
            allowed = self._tables is None or action in READING
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _is_open(self, table: str | None) -> bool:
        name = (table or "").lower()
        if name in _REVEALING or name.startswith("pragma_"):
            return False
        return self._tables is None or name in self._tables or name in ROW_SOURCES

    def _is_query(self, table: str | None, column: str | None) -> bool:
        """Whether it is a named query, of which no column is read; those of tables are renamed to be told apart."""
        return self._tables is not None and not column and (table or "").startswith("erp_cte_")


def is_temporary(action: int, first: str | None, database: str | None) -> bool:
    """Tell whether something temporary is made or altered.

    Calls share the connection: others would see it, and it would be gone after a restart. However such a statement
    is spelled, it inserts into the temporary schema; altering a lasting table only updates that.
    """
    if action == sqlite3.SQLITE_INSERT:
        return database == "temp" and first in _SCHEMAS
    return action == sqlite3.SQLITE_ALTER_TABLE and first == "temp"


def is_own_pragma(action: int, first: str | None, second: str | None) -> bool:
    """Tell whether it is a pragma that SQLite itself uses: to search words, and to check rows when a column is added."""
    return action == sqlite3.SQLITE_PRAGMA and (first == "quick_check" or (first == "data_version" and second is None))


def lifted(connection: sqlite3.Connection) -> None:
    """Take the rules away for the provider's own BEGIN, COMMIT and ROLLBACK."""
    connection.set_authorizer(None)


def is_declaring(action: int, first: str | None) -> bool:
    """Tell whether a virtual table is being connected: SQLite then pretends to create it.

    A statement that would really update the schema's table fails for itself (https://www.sqlite.org/schematab.html).
    """
    return action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"


def set_limits(connection: sqlite3.Connection, value_bytes: int) -> None:
    """Bound what one statement can take (https://www.sqlite.org/limits.html)."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, value_bytes)
    for category, value in _LIMITS.items():
        connection.setlimit(category, value)
