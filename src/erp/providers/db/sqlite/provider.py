"""A database in one SQLite file per tenant and connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from typing import ClassVar

from erp.contracts.models import db as api
from erp.contracts.models.db import (
    ExecuteBatchRequest,
    ExecuteBatchResult,
    ExecuteRequest,
    ExecuteResult,
    MetadataRequest,
    MetadataResult,
    QueryRequest,
    QueryResult,
    StreamRequest,
    StreamResult,
)
from erp.providers.db.sqlite import changes
from erp.providers.db.sqlite.file import DatabaseFile, FileSettings, T, Work
from erp.providers.db.sqlite.place import FILE, placed
from erp.providers.db.sqlite.reading import Reading, columns
from erp.providers.db.sqlite.transactions import Transactions
from erp.providers.db.sqlite.vectors import Vectors
from erp.providers.db.sqlite.wording import AsWritten, Prepared, Wording
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    Health,
    OpenContext,
    ProviderError,
    UnsetType,
)
from erp.vendor_clients.sql import pages
from erp.vendor_clients.sql.pages import refuse_cursor

__all__ = ["FILE", "SqliteDatabase"]


class SqliteDatabase:
    """Queries run on read-only connections; changes one after the other, each whole or not at all."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        settings = FileSettings(
            readers=config.get("readers", 3),
            snapshots=config.get("max_read_transactions", 8),
            statement_seconds=config.get("max_statement_seconds", 30.0),
            value_bytes=config.get("max_value_bytes", 1_048_576),
            mode="rw" if config.get("mode") == "pooled" else "rwc",
        )
        self._place = placed(config, context)
        self._wording: Wording = AsWritten()
        self._file = DatabaseFile(self._place.path, settings, self._place.rules)
        self._transactions = Transactions(
            self._file,
            max_snapshots=settings.snapshots,
            lease_seconds=config.get("max_lease_seconds", 60.0),
            life_seconds=self._place.bounded(config.get("max_transaction_seconds", 300.0)),
        )
        self._leases = self._transactions.leases
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)
        self._vectors = Vectors(context.data_dir, seconds=settings.statement_seconds)

    async def open(self) -> None:
        self._place.require()
        await self._file.open()
        self._wording = self._place.wording()

    async def close(self) -> None:
        await self._leases.close()
        await self._file.close()
        await self._vectors.close()

    async def health(self) -> Health:
        """Read from the file."""
        started = time.perf_counter()
        await self._file.describe(
            lambda connection: connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        )
        engine = Dependency(name="SQLite", status="ok", version=sqlite3.sqlite_version)
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3), dependencies=[engine])

    # -- reading ---------------------------------------------------------------------------------

    async def query(self, request: QueryRequest, context: CallContext) -> QueryResult:
        statement = self._wording.prepared(request.sql, request.parameters)
        if not isinstance(request.transaction, UnsetType):
            return await self._continued(request, request.transaction, statement, context)
        if request.cursor is not UNSET:
            raise refuse_cursor()

        def work(connection: sqlite3.Connection) -> QueryResult:
            with closing(statement.execute(connection)) as cursor:
                return Reading(statement, cursor).page(request.max_rows, self._max_bytes)

        return await self._file.read(work)

    async def _continued(
        self, request: QueryRequest, handle: str, statement: Prepared, context: CallContext
    ) -> QueryResult:
        async with self._leases.entered(handle, context) as transaction:
            if isinstance(request.cursor, UnsetType):
                reading = pages.Reading(statement, await transaction.session.cursor(statement))
            else:
                reading = transaction.cursors.take(request.cursor, statement)
            return await transaction.cursors.page(reading, request.max_rows, self._max_bytes)

    async def stream(self, request: StreamRequest, context: CallContext) -> AsyncGenerator[StreamResult]:  # noqa: ARG002
        statement = self._wording.prepared(request.sql, request.parameters)
        async with self._file.reader() as connection:
            cursor = await self._file.run(connection, statement.execute)
            reading = Reading(statement, cursor)
            try:
                yield StreamResult(columns=columns(cursor))
                more = True
                while more:
                    page = await self._file.run(
                        connection, lambda _: reading.page(request.rows_per_item, self._max_bytes)
                    )
                    more = page.truncated
                    if page.rows:
                        yield StreamResult(rows=page.rows)
            finally:
                with suppress(sqlite3.ProgrammingError):
                    # Refused when the database was closed meanwhile, and the cursor with it.
                    cursor.close()

    async def metadata(self, request: MetadataRequest, context: CallContext) -> MetadataResult:  # noqa: ARG002
        only = None if request.table is UNSET else request.table
        after = "" if request.cursor is UNSET else request.cursor

        catalogue = self._place.catalogue()

        def work(connection: sqlite3.Connection) -> MetadataResult:
            found = catalogue.names(connection, after, request.limit + 1, only)
            if only is not None and not found:
                raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {only[:100]!r}.")
            tables = [catalogue.table(connection, *item) for item in found[: request.limit]]
            result = MetadataResult(engine="sqlite", version=sqlite3.sqlite_version, tables=tables)
            if len(found) > request.limit:
                result.next_cursor = tables[-1].name
            return result

        result = await self._file.describe(work)
        result.pool = self._pool()
        return result

    def _pool(self) -> api.MetadataResultPool:
        lendings = (self._file.writers, self._file.readers)
        return api.MetadataResultPool(
            size=sum(lending.size for lending in lendings),
            in_use=sum(lending.in_use for lending in lendings),
            waiting=sum(lending.waiting for lending in lendings) + self._file.writes.waiting,
        )

    # -- changing --------------------------------------------------------------------------------

    async def execute(self, request: ExecuteRequest, context: CallContext) -> ExecuteResult:
        statement = self._wording.prepared(request.sql, request.parameters, writes=True)

        def work(connection: sqlite3.Connection) -> ExecuteResult:
            return changes.made(connection, statement, self._max_bytes)

        return await self._changed(request.transaction, context, work)

    async def execute_batch(self, request: ExecuteBatchRequest, context: CallContext) -> ExecuteBatchResult:
        prepared = [
            (number, self._of_batch(number, statement), statement.expect_rows)
            for number, statement in enumerate(request.statements)
        ]

        def work(connection: sqlite3.Connection) -> ExecuteBatchResult:
            return ExecuteBatchResult(results=[changes.of_batch(connection, *item) for item in prepared])

        return await self._changed(request.transaction, context, work)

    def _of_batch(self, number: int, statement: api.Statement) -> Prepared:
        where = f"/params/statements/{number}/parameters"
        return self._wording.prepared(statement.sql, statement.parameters, writes=True, where=where)

    async def _changed(self, handle: str | UnsetType, context: CallContext, work: Work[T]) -> T:
        if isinstance(handle, UnsetType):
            return await self._file.write(work)
        async with self._leases.entered(handle, context) as transaction:
            transaction.require_writable()
            await transaction.cursors.close()
            return await transaction.session.write(work)

    # -- vectors ---------------------------------------------------------------------------------

    async def upsert_vectors(self, request: api.UpsertVectorsRequest, context: CallContext) -> api.UpsertVectorsResult:  # noqa: ARG002
        self._file.require_open()
        return api.UpsertVectorsResult(stored=await self._vectors.store(request))

    async def search_vectors(self, request: api.SearchVectorsRequest, context: CallContext) -> api.SearchVectorsResult:  # noqa: ARG002
        self._file.require_open()
        return api.SearchVectorsResult(items=await self._vectors.found(request))

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, request: api.BeginRequest, context: CallContext) -> api.BeginResult:
        """Every level but read_committed is given as serializable, which SQLite has and no other."""
        if request.isolation == "read_committed":
            message = "SQLite never shows what others commit meanwhile. Leave isolation out, or ask for serializable."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        begun = await self._transactions.begin(
            context, read_only=request.read_only, lease_seconds=request.lease_seconds
        )
        return api.BeginResult(transaction=begun.handle, lease_ends_at=begun.lease_ends_at())

    async def commit(self, request: api.CommitRequest, context: CallContext) -> api.CommitResult:
        async with self._leases.entered(request.transaction, context) as transaction:
            await self._leases.commit(transaction)
        return api.CommitResult(done=True)

    async def rollback(self, request: api.RollbackRequest, context: CallContext) -> api.RollbackResult:
        async with self._leases.entered(request.transaction, context) as transaction:
            if isinstance(request.savepoint, UnsetType):
                await self._leases.rollback(transaction)
            else:
                await self._leases.rollback_to(transaction, request.savepoint)
        return api.RollbackResult(done=True)

    async def savepoint(self, request: api.SavepointRequest, context: CallContext) -> api.SavepointResult:
        async with self._leases.entered(request.transaction, context) as transaction:
            await self._leases.savepoint(transaction, request.savepoint)
        return api.SavepointResult(done=True)
