"""Rows of a statement in pages, read where the thread is already."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from erp.contracts.models.db import Column, QueryResult
from erp.providers.db.sqlite.wording import Prepared
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql import values


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


def columns(cursor: sqlite3.Cursor) -> list[Column]:
    """Name the columns of what ``cursor`` returns."""
    return [Column(name=column[0]) for column in cursor.description or ()]
