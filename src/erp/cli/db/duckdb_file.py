"""Listing shared tables in a file of DuckDB, and looking whether the file keeps tenants apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erp.cli.db.shared_file import Listed, UnusableFileError, on_file
from erp.cli.db.stranger import DUCKDB


def on_duckdb(statements: list[str], *, check: bool) -> list[str]:
    """Run the statements on a file, all of them or, if a listed table is unfit, none; then look as a tenant does."""
    import duckdb

    def listed(path: Path) -> Listed:
        try:
            with duckdb.connect(str(path), read_only=not statements) as connection:
                return _listed(connection, statements)
        except duckdb.Error as error:
            raise UnusableFileError(_reason(error)) from error

    return on_file(DUCKDB, listed, check=check)


def _listed(connection: Any, statements: list[str]) -> Listed:
    """Return what is wrong, and the tables that are listed; what is wrong undoes the statements."""
    import duckdb

    from erp.vendor_clients.row_security.duckdb import load, problems

    with duckdb.connect() as memory:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        found = problems(connection, memory)
        tables = [] if found else [table.name for table in load(connection, memory).values()]
        connection.execute("ROLLBACK" if found else "COMMIT")
    return [*found, "nothing was changed"] if found and statements else found, tables


def _reason(error: Exception) -> str:
    said = str(error).partition("\n")[0]
    if "Conflicting lock" in said or "different configuration" in said:
        return "is held by another process; end what that does, and try again"
    return f"is refused by DuckDB: {said}"
