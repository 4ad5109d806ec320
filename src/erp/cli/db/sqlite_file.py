"""Listing shared tables in a file of SQLite, and looking whether the file keeps tenants apart."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from erp.cli.db.shared_file import Listed, UnusableFileError, on_file
from erp.cli.db.stranger import SQLITE

BUSY_SECONDS = 10.0
"""Longer than a tenant's transaction lasts."""
_MEANINGS = {
    "SQLITE_NOTADB": "is no file of SQLite; name one that is",
    "SQLITE_BUSY": "is held by another process; end what that does, and try again",
    "SQLITE_LOCKED": "is held by another process; end what that does, and try again",
    "SQLITE_READONLY": "cannot be written; tenants could not write it either: let its owner run this, on a disk that can be written",
    "SQLITE_CANTOPEN": "cannot be opened; look at the rights of the file and of its folder",
    "SQLITE_FULL": "does not fit on the disk any more; make room",
}


def on_sqlite(statements: list[str], *, check: bool) -> list[str]:
    """Run the statements on a file, all of them or, if a listed table is unfit, none; then look as a tenant does."""

    def listed(path: Path) -> Listed:
        try:
            with closing(_opened(path)) as connection:
                return _listed(connection, statements)
        except sqlite3.Error as error:
            raise UnusableFileError(_reason(error)) from error

    return on_file(SQLITE, listed, check=check)


def _opened(path: Path) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _listed(connection: sqlite3.Connection, statements: list[str]) -> Listed:
    """Return what is wrong, and the tables that are listed; what is wrong undoes the statements."""
    from erp.vendor_clients.row_security.sqlite import load, problems

    connection.execute("BEGIN IMMEDIATE")
    try:
        _require_writable(connection)
        for statement in statements:
            connection.execute(statement)
        found = problems(connection)
        tables = [] if found else [table.name for table in load(connection).values()]
        connection.execute("COMMIT" if statements and not found else "ROLLBACK")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return [*found, "nothing was changed"] if found and statements else found, tables


def _require_writable(connection: sqlite3.Connection) -> None:
    """Write what is there already: BEGIN IMMEDIATE only reads where nothing can be written, and says nothing."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version}")


def _reason(error: sqlite3.Error) -> str:
    family = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
    return _MEANINGS.get(family, f"is refused by SQLite: {error}")
