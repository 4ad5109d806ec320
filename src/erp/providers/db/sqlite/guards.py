"""What a statement may do, enforced by SQLite itself while it compiles the statement.

The authorizer sees what a statement really does, not how it is spelled, so no trick of syntax gets
past it (https://www.sqlite.org/c3ref/set_authorizer.html). Readers are opened read-only besides.
"""

from __future__ import annotations

import sqlite3

_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zipfile"})
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_NEVER = frozenset(
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
_LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LENGTH: 64 * 1024 * 1024,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
}


def _may_read(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in _READING:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or first or "").lower() not in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _may_write(action: int, first: str | None, second: str | None, database: str | None, _trigger: str | None) -> int:
    if action in _NEVER or _is_temporary(action, first, database):
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or first or "").lower() in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _is_temporary(action: int, first: str | None, database: str | None) -> bool:
    """Tell whether something temporary is made or altered.

    Calls share the connection: others would see it, and it would be gone after a restart. However such a statement
    is spelled, it inserts into the temporary schema; altering a lasting table only updates that.
    """
    if action == sqlite3.SQLITE_INSERT:
        return database == "temp" and first in _SCHEMAS
    return action == sqlite3.SQLITE_ALTER_TABLE and first == "temp"


def only_reads(connection: sqlite3.Connection) -> None:
    """Let ``connection`` run nothing but queries."""
    connection.execute("PRAGMA query_only = ON")
    _limit(connection)
    connection.set_authorizer(_may_read)


def only_own_file(connection: sqlite3.Connection) -> None:
    """Let ``connection`` change its own file, but open no other, no setting and no transaction."""
    _limit(connection)
    connection.set_authorizer(_may_write)


def lifted(connection: sqlite3.Connection) -> None:
    """Take the rules away for the provider's own BEGIN, COMMIT and ROLLBACK."""
    connection.set_authorizer(None)


def _limit(connection: sqlite3.Connection) -> None:
    for category, value in _LIMITS.items():
        connection.setlimit(category, value)
