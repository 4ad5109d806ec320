"""Measures what one statement changed.

SQLite's own figures go on showing an older statement's when the present one changes or inserts nothing
(https://www.sqlite.org/c3ref/changes.html, https://www.sqlite.org/c3ref/last_insert_rowid.html). So the
last row id is set to a mark first, which is the only row that the temporary table takes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from erp.contracts.models.db import Effect, ExecuteResult
from erp.providers.db.sqlite.reading import Reading, columns
from erp.providers.db.sqlite.wording import Prepared
from erp.runtime.spi import UNSET, ErrorCode, FieldError, ProviderError, UnsetType

MAX_RETURNED_ROWS = 100_000
_MARK = -(2**63)
_SET_MARK = f"INSERT OR REPLACE INTO temp.erp_last_insert VALUES ({_MARK})"  # noqa: S608  (a constant)


def prepare(connection: sqlite3.Connection) -> None:
    """Make ``connection`` able to measure."""
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"CREATE TEMP TABLE erp_last_insert (id INTEGER PRIMARY KEY CHECK (id = {_MARK}))")


class Measured:
    """Runs one statement; once its rows are read, tells the rows it changed itself, without those of triggers."""

    def __init__(self, connection: sqlite3.Connection, statement: Prepared) -> None:
        connection.execute(_SET_MARK)
        statement.prove(connection)
        self._connection = connection
        self._before = connection.total_changes
        self.cursor = connection.execute(statement.sql, statement.parameters)

    def close(self) -> None:
        """End the statement; one that is left half read would keep its transaction from ending."""
        self.cursor.close()

    def figures(self) -> tuple[int, int | None]:
        """Return the number of rows affected and the id of the row inserted last, if one was."""
        changed, inserted = self._connection.execute("SELECT changes(), last_insert_rowid()").fetchone()
        if self._connection.total_changes == self._before:
            return 0, None
        return changed, None if inserted == _MARK else inserted


def made(connection: sqlite3.Connection, statement: Prepared, max_bytes: int) -> ExecuteResult:
    """Run one statement and tell what it changed and returned."""
    with closing(Measured(connection, statement)) as change:
        returned = _returned(Reading(statement, change.cursor), max_bytes)
        affected, inserted = change.figures()
        result = ExecuteResult(rows_affected=affected, last_insert_id=UNSET if inserted is None else inserted)
        if change.cursor.description is not None:
            result.columns, result.rows = columns(change.cursor), returned
        return result


def _returned(reading: Reading, max_bytes: int) -> list[list[Any]]:
    page = reading.page(MAX_RETURNED_ROWS, max_bytes)
    if page.truncated:
        message = f"The rows to be returned exceed {max_bytes} bytes or {MAX_RETURNED_ROWS} rows; nothing was changed."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
    return page.rows


def of_batch(connection: sqlite3.Connection, number: int, statement: Prepared, expected: int | UnsetType) -> Effect:
    """Run statement ``number`` of a batch.

    Raises:
        ProviderError: ``failed_precondition`` when it affects other rows than expected.
    """
    with closing(Measured(connection, statement)) as change:
        for _ in change.cursor:
            pass
        affected, inserted = change.figures()
    effect = Effect(rows_affected=affected, last_insert_id=UNSET if inserted is None else inserted)
    if expected is not UNSET and expected != effect.rows_affected:
        wrong = FieldError(
            f"/params/statements/{number}",
            f"affects {effect.rows_affected} rows instead of {expected}",
        )
        message = "A statement of the batch did not affect the expected rows; nothing was changed."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
    return effect
