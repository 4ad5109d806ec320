"""Rows in pages, and the readings of a transaction whose next page is still to come."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from erp.contracts.models.db import Column, QueryResult
from erp.runtime.spi import ErrorCode, FieldError, ProviderError
from erp.vendor_clients.sql.values import fitted, shown, weight

MAX_HELD = 8
FIRST_CHUNK, CHUNK = 16, 1000
"""Rows asked of the engine at first, and at a time: a page limited by bytes must not have all its rows in memory."""

Fetch = Callable[[int], Awaitable[Sequence[Any]]]
"""``await fetch(n)``: the next ``n`` rows, fewer at the end."""


class Cursor(Protocol):
    """A cursor of an engine's."""

    columns: list[Column]

    async def fetch(self, count: int) -> Sequence[Any]:
        """Return the next ``count`` rows; fewer at the end."""

    async def close(self) -> None:
        """Give it up. Safe when its transaction has ended."""


@dataclass(eq=False, slots=True)
class Reading:
    """A cursor that is being read. ``ahead`` are rows that no longer fitted into the page before."""

    statement: Hashable
    """Statement and parameters, which whoever continues has to send again."""
    cursor: Cursor
    ahead: list[Any] = field(default_factory=list)

    async def page(self, max_rows: int, max_bytes: int) -> QueryResult:
        """Return the next rows.

        Raises:
            ProviderError: ``failed_precondition`` when a single row is larger than a page.
        """
        rows = self.ahead
        count = fitted(rows, max_rows, max_bytes)
        while count == len(rows) <= max_rows:
            asked = min(_chunk(rows, max_bytes), max_rows + 1 - len(rows))
            more = await self.cursor.fetch(asked)
            rows.extend(more)
            count = fitted(rows, max_rows, max_bytes)
            if len(more) < asked:
                break
        self.ahead = rows[count:]
        return QueryResult(
            columns=self.cursor.columns,
            rows=[shown(row) for row in rows[:count]],
            row_count=count,
            truncated=bool(self.ahead),
        )


def _chunk(rows: Sequence[Any], max_bytes: int) -> int:
    """How many rows to ask for next, to judge by those that came."""
    if not rows:
        return FIRST_CHUNK
    average = max(1, sum(weight(row) for row in rows[-FIRST_CHUNK:]) // min(len(rows), FIRST_CHUNK))
    return max(1, min(CHUNK, max_bytes // average))


class HeldCursors:
    """Readings of one transaction whose next page may be asked for; a cursor is good for one page."""

    def __init__(self) -> None:
        self._held: dict[str, Reading] = {}

    async def page(self, reading: Reading, max_rows: int, max_bytes: int) -> QueryResult:
        """Return the next rows of ``reading``, with a cursor when there are more."""
        try:
            result = await reading.page(max_rows, max_bytes)
        except BaseException:
            await reading.cursor.close()
            raise
        if result.truncated:
            result.next_cursor = await self._hold(reading)
        else:
            await reading.cursor.close()
        return result

    async def _hold(self, reading: Reading) -> str:
        if len(self._held) >= MAX_HELD:
            await self._held.pop(next(iter(self._held))).cursor.close()
        name = secrets.token_urlsafe(18)
        self._held[name] = reading
        return name

    def take(self, cursor: str, statement: Hashable) -> Reading:
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

    async def close(self) -> None:
        """Give up all: a change would make the rest another answer than the beginning."""
        held, self._held = list(self._held.values()), {}
        for reading in held:
            await reading.cursor.close()

    def forget(self) -> None:
        """Drop all without a word to the engine, whose cursors ended with their transaction."""
        self._held.clear()


def refuse_cursor() -> ProviderError:
    """Return the error of a cursor outside a transaction."""
    wrong = FieldError("/params/cursor", "is only possible together with transaction")
    message = "A cursor continues an answer inside its transaction."
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=[wrong])
