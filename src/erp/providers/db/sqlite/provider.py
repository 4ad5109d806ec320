"""A database in one SQLite file per tenant and connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import closing
from typing import Any, ClassVar

from erp.contracts.models.db import (
    Column,
    Effect,
    ExecuteBatchRequest,
    ExecuteBatchResult,
    ExecuteRequest,
    ExecuteResult,
    MetadataRequest,
    MetadataResult,
    QueryRequest,
    QueryResult,
    Statement,
    StreamRequest,
    StreamResult,
)
from erp.providers.db.sqlite import catalogue, values
from erp.providers.db.sqlite.changes import Measured
from erp.providers.db.sqlite.file import DatabaseFile, fetched
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    ProviderError,
)

FILE = "database.sqlite3"
MAX_RETURNED_ROWS = 100_000


class SqliteDatabase:
    """Queries run on read-only connections; changes run one after the other, each in its own transaction."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._file = DatabaseFile(context.data_dir / FILE, config.get("readers", 3))
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)

    async def open(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()

    async def health(self) -> Health:
        """Read from the file."""
        started = time.perf_counter()
        await self._file.read(lambda connection: connection.execute("SELECT count(*) FROM sqlite_master").fetchone())
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    async def query(self, request: QueryRequest, context: CallContext) -> QueryResult:  # noqa: ARG002
        _no_transaction(request.transaction)
        parameters = values.bound(request.parameters)

        def work(connection: sqlite3.Connection) -> QueryResult:
            with closing(connection.execute(request.sql, parameters)) as cursor:
                rows, truncated = fetched(cursor, values.weight, request.max_rows, self._max_bytes)
                shown = [values.shown(row) for row in rows]
                return QueryResult(columns=_columns(cursor), rows=shown, row_count=len(shown), truncated=truncated)

        return await self._file.read(work)

    async def execute(self, request: ExecuteRequest, context: CallContext) -> ExecuteResult:  # noqa: ARG002
        _no_transaction(request.transaction)
        parameters = values.bound(request.parameters)

        def work(connection: sqlite3.Connection) -> ExecuteResult:
            with closing(Measured(connection, request.sql, parameters)) as change:
                returned = self._returned(change.cursor)
                affected, inserted = change.figures()
                result = ExecuteResult(rows_affected=affected, last_insert_id=UNSET if inserted is None else inserted)
                if change.cursor.description is not None:
                    result.columns, result.rows = _columns(change.cursor), returned
                return result

        return await self._file.write(work)

    def _returned(self, cursor: sqlite3.Cursor) -> list[list[Any]]:
        rows, more = fetched(cursor, values.weight, MAX_RETURNED_ROWS, self._max_bytes)
        if more:
            message = f"The rows to be returned exceed {self._max_bytes} bytes or {MAX_RETURNED_ROWS} rows; nothing was changed."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return [values.shown(row) for row in rows]

    async def execute_batch(self, request: ExecuteBatchRequest, context: CallContext) -> ExecuteBatchResult:  # noqa: ARG002
        _no_transaction(request.transaction)
        prepared = [
            (number, statement, values.bound(statement.parameters, f"/params/statements/{number}/parameters"))
            for number, statement in enumerate(request.statements)
        ]

        def work(connection: sqlite3.Connection) -> ExecuteBatchResult:
            return ExecuteBatchResult(results=[_changed(connection, *item) for item in prepared])

        return await self._file.write(work)

    async def metadata(self, request: MetadataRequest, context: CallContext) -> MetadataResult:  # noqa: ARG002
        only = None if request.table is UNSET else request.table
        after = "" if request.cursor is UNSET else request.cursor

        def work(connection: sqlite3.Connection) -> MetadataResult:
            found = catalogue.names(connection, after, request.limit + 1, only)
            if only is not None and not found:
                raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {only[:100]!r}.")
            tables = [catalogue.table(connection, *item) for item in found[: request.limit]]
            result = MetadataResult(engine="sqlite", version=sqlite3.sqlite_version, tables=tables)
            if len(found) > request.limit:
                result.next_cursor = tables[-1].name
            return result

        return await self._file.describe(work)

    async def stream(self, request: StreamRequest, context: CallContext) -> AsyncGenerator[StreamResult]:  # noqa: ARG002
        parameters = values.bound(request.parameters)
        async with self._file.reader() as connection:
            cursor = await self._file.run(connection, lambda open_: open_.execute(request.sql, parameters))
            try:
                yield StreamResult(columns=_columns(cursor))
                while rows := await self._file.run(connection, lambda _: cursor.fetchmany(request.rows_per_item)):
                    yield StreamResult(rows=[values.shown(row) for row in rows])
            finally:
                cursor.close()


def _changed(connection: sqlite3.Connection, number: int, statement: Statement, parameters: list[Any]) -> Effect:
    with closing(Measured(connection, statement.sql, parameters)) as change:
        for _ in change.cursor:
            pass
        affected, inserted = change.figures()
    effect = Effect(rows_affected=affected, last_insert_id=UNSET if inserted is None else inserted)
    if statement.expect_rows is not UNSET and statement.expect_rows != effect.rows_affected:
        wrong = FieldError(
            f"/params/statements/{number}",
            f"affects {effect.rows_affected} rows instead of {statement.expect_rows}",
        )
        message = "A statement of the batch did not affect the expected rows; nothing was changed."
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
    return effect


def _columns(cursor: sqlite3.Cursor) -> list[Column]:
    return [Column(name=column[0]) for column in cursor.description or ()]


def _no_transaction(handle: Any) -> None:
    if handle is not UNSET:
        raise ProviderError(ErrorCode.UNSUPPORTED, "db/sqlite does not declare the capability 'transactions'.")
