"""Rows of a statement in pages, and the statements whose next page is still to come."""

from __future__ import annotations

import secrets
import sqlite3
from typing import Any

import msgspec

from erp.contracts.models.db import Column, QueryResult
from erp.providers.db.sqlite import values
from erp.providers.db.sqlite.wording import Prepared
from erp.runtime.spi import ErrorCode, FieldError, ProviderError

MAX_HELD = 8


class Reading(msgspec.Struct, eq=False):
    """A statement that is being read. ``ahead`` is a row that no longer fitted into the page before."""

    statement: Prepared
    cursor: sqlite3.Cursor
    ahead: Any = None

    def page(self, max_rows: int, max_bytes: int) -> QueryResult:
        """Return the next rows.

        Raises:
            ProviderError: ``failed_precondition`` when a single row is larger than a page.
        """
        rows, self.ahead = self._fetched(max_rows, max_bytes)
        shown = [values.shown(row) for row in rows]
        is_cut = self.ahead is not None
        return QueryResult(columns=columns(self.cursor), rows=shown, row_count=len(shown), truncated=is_cut)

    def _fetched(self, max_rows: int, max_bytes: int) -> tuple[list[Any], Any]:
        rows: list[Any] = []
        size = 0
        row = self.ahead or next(self.cursor, None)
        while row is not None:
            size += values.weight(row)
            if len(rows) == max_rows or size > max_bytes:
                break
            rows.append(row)
            row = next(self.cursor, None)
        if row is not None and not rows:
            message = f"One row is larger than an answer may be ({max_bytes} bytes). Select fewer or shorter columns."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return rows, row


class HeldCursors:
    """Statements of one transaction whose next page may be asked for; a cursor is good for one page."""

    def __init__(self) -> None:
        self._held: dict[str, Reading] = {}

    def page(self, reading: Reading, max_rows: int, max_bytes: int) -> QueryResult:
        """Return the next rows of ``reading``, with a cursor when there are more."""
        try:
            result = reading.page(max_rows, max_bytes)
        except BaseException:
            reading.cursor.close()
            raise
        if result.truncated:
            result.next_cursor = self._hold(reading)
        else:
            reading.cursor.close()
        return result

    def _hold(self, reading: Reading) -> str:
        if len(self._held) >= MAX_HELD:
            self._held.pop(next(iter(self._held))).cursor.close()
        name = secrets.token_urlsafe(18)
        self._held[name] = reading
        return name

    def take(self, cursor: str, statement: Prepared) -> Reading:
        """Return what was held under ``cursor``.

        Raises:
            ProviderError: ``failed_precondition`` when it was used, given up or belongs to another statement.
        """
        reading = self._held.get(cursor)
        if reading is None or reading.statement != statement:
            message = "The cursor does not continue this statement. Send the same sql and parameters, or start again."
            remedy = "unknown, used before, from before a change of the transaction, or of another statement"
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[FieldError("/params/cursor", remedy)])
        return self._held.pop(cursor)

    def close(self) -> None:
        """Give up all: a change would make the rest another answer than the beginning."""
        for reading in self._held.values():
            reading.cursor.close()
        self._held.clear()


def columns(cursor: sqlite3.Cursor) -> list[Column]:
    """Name the columns of what ``cursor`` returns."""
    return [Column(name=column[0]) for column in cursor.description or ()]
