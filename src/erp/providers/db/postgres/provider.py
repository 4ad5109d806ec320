"""PostgreSQL: a database, schema or set of rows for each tenant, over connections that are kept."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

from erp.contracts.models import db as api
from erp.providers.db.postgres.database import PostgresSession, refuse_large
from erp.providers.db.postgres.place import Place, opened
from erp.providers.db.postgres.statements import Change
from erp.providers.db.postgres.vectors import Vectors
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
    UnsetType,
)
from erp.vendor_clients.sql import values
from erp.vendor_clients.sql.leases import Leases, Transaction
from erp.vendor_clients.sql.lending import closed
from erp.vendor_clients.sql.pages import Reading, refuse_cursor

__all__ = ["PostgresDatabase"]

MAX_RETURNED_ROWS = 100_000
FEW_ROWS = 16
"""Taken at once; of more it is first seen how large they are."""


class PostgresDatabase:
    """Queries run where the server refuses every change; a change is one statement, or a transaction."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = dict(config)
        self._tenant = context.tenant
        self._place: Place | None = None
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)
        self._leases: Leases[PostgresSession] = Leases(
            lease_seconds=config.get("max_lease_seconds", 60.0),
            life_seconds=config.get("max_transaction_seconds", 600.0),
            max_open=config.get("max_transactions", 6),
        )

    async def open(self) -> None:
        self._place = await opened(self._config, self._tenant)

    async def close(self) -> None:
        await self._leases.close()
        place, self._place = self._place, None
        if place is not None:
            await place.database.close()

    def _opened(self) -> Place:
        if self._place is None:
            raise closed()
        return self._place

    async def health(self) -> Health:
        """Ask the server."""
        started = time.perf_counter()
        await self._opened().database.read("SELECT 1", (), 1)
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    # -- reading ---------------------------------------------------------------------------------

    async def query(self, request: api.QueryRequest, context: CallContext) -> api.QueryResult:
        place = self._opened()
        statement = place.statements.query(request.sql)
        given = values.bound(request.parameters, values.TEXTS)
        statement.require(len(given))
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                return await self._continued(transaction, request, statement.sql, given)
        if request.cursor is not UNSET:
            raise refuse_cursor()
        done = await place.database.read(statement.sql, given, request.max_rows + 1, place.prelude)
        if done is not None:
            return self._answer(done.rows, done.columns, request.max_rows)
        # Too large to be taken at once: in pages, never with more of it in memory than an answer may have.
        async with place.database.session_for(read_only=True, prelude=place.prelude) as session:
            cursor = await session.cursor(statement.sql, given)
            return await Reading(statement.sql, cursor).page(request.max_rows, self._max_bytes)

    def _answer(self, rows: Sequence[Any], columns: list[api.Column], max_rows: int) -> api.QueryResult:
        count = values.fitted(rows, max_rows, self._max_bytes)
        _require_columns(columns)
        shown = [values.shown(row) for row in rows[:count]]
        return api.QueryResult(columns=columns, rows=shown, row_count=count, truncated=count < len(rows))

    async def _continued(
        self, transaction: Transaction[PostgresSession], request: api.QueryRequest, sql: str, given: list[Any]
    ) -> api.QueryResult:
        """A page of a query in a transaction; only an answer that is cut needs a cursor on the server."""
        statement = (sql, repr(given))
        if not isinstance(request.cursor, UnsetType):
            reading = transaction.cursors.take(request.cursor, statement)
            return await transaction.cursors.page(reading, request.max_rows, self._max_bytes)
        wanted = min(request.max_rows + 1, FEW_ROWS)
        done = await transaction.session.read(sql, given, wanted)
        answer = self._answer(done.rows, done.columns, request.max_rows)
        if len(done.rows) < wanted and not answer.truncated:
            return answer
        reading = Reading(statement, await transaction.session.cursor(sql, given))
        return await transaction.cursors.page(reading, request.max_rows, self._max_bytes)

    async def stream(self, request: api.StreamRequest, context: CallContext) -> AsyncGenerator[api.StreamResult]:  # noqa: ARG002
        place = self._opened()
        statement = place.statements.query(request.sql)
        given = values.bound(request.parameters, values.TEXTS)
        statement.require(len(given))
        async with place.database.session_for(read_only=True, prelude=place.prelude) as session:
            reading = Reading(statement.sql, await session.cursor(statement.sql, given))
            _require_columns(reading.cursor.columns)
            yield api.StreamResult(columns=reading.cursor.columns)
            more = True
            while more:
                page = await reading.page(request.rows_per_item, self._max_bytes)
                more = page.truncated
                if page.rows:
                    yield api.StreamResult(rows=page.rows)

    async def metadata(self, request: api.MetadataRequest, context: CallContext) -> api.MetadataResult:  # noqa: ARG002
        place = self._opened()
        schema, _, name = ("" if request.table is UNSET else str(request.table)).rpartition(".")
        after = _after(request.cursor)
        async with place.database.session_for(read_only=True, prelude=place.prelude) as session:
            connection = session.connection
            only = (name or None, schema or None)
            tables = await place.catalogue.tables(connection, after, (only[1], only[0]), request.limit + 1)
            version = connection.get_server_version()
        if name and not tables:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {str(request.table)[:100]!r}.")
        shown = tables[: request.limit]
        result = api.MetadataResult(
            engine="postgresql", version=f"{version.major}.{version.minor}", tables=shown, pool=self._pool(place)
        )
        if len(tables) > request.limit:
            result.next_cursor = f"{shown[-1].schema}.{shown[-1].name}"
        return result

    def _pool(self, place: Place) -> api.MetadataResultPool:
        lendings = (place.database.readers, place.database.writers)
        return api.MetadataResultPool(
            size=sum(lending.size for lending in lendings),
            in_use=sum(lending.in_use for lending in lendings),
            waiting=sum(lending.waiting for lending in lendings),
        )

    # -- changing --------------------------------------------------------------------------------

    async def execute(self, request: api.ExecuteRequest, context: CallContext) -> api.ExecuteResult:
        place = self._opened()
        change, given = self._prepared(place, request.sql, request.parameters)
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                await _ready_to_change(transaction)
                return await self._executed(transaction.session, change, given)
        if place.prelude or change.returns:
            async with place.database.session_for(read_only=False, prelude=place.prelude) as session:
                return await self._executed(session, change, given)
        done = await place.database.write(change.placed.sql, given, needs_reset=change.needs_reset)
        return api.ExecuteResult(rows_affected=done.rows_affected)

    def _prepared(
        self, place: Place, sql: str, parameters: Any, where: str = "/params/parameters"
    ) -> tuple[Change, list[Any]]:
        change = place.statements.change(sql)
        given = values.bound(parameters, values.TEXTS, where)
        change.placed.require(len(given), where)
        return change, given

    async def _executed(self, session: PostgresSession, change: Change, given: list[Any]) -> api.ExecuteResult:
        if change.needs_reset:
            session.require_reset()
        async with session.whole():
            done = await session.alone(change.placed.sql, given, MAX_RETURNED_ROWS + 1)
            if not done.columns:
                return api.ExecuteResult(rows_affected=done.rows_affected)
            if values.fitted(done.rows, MAX_RETURNED_ROWS, self._max_bytes) < len(done.rows):
                raise refuse_large(self._max_bytes)
            rows = [values.shown(row) for row in done.rows]
        return api.ExecuteResult(rows_affected=done.rows_affected, columns=done.columns, rows=rows)

    async def execute_batch(self, request: api.ExecuteBatchRequest, context: CallContext) -> api.ExecuteBatchResult:
        place = self._opened()
        prepared = [
            (
                *self._prepared(place, one.sql, one.parameters, f"/params/statements/{number}/parameters"),
                one.expect_rows,
            )
            for number, one in enumerate(request.statements)
        ]
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                await _ready_to_change(transaction)
                async with transaction.session.whole():
                    return await self._batch(transaction.session, prepared)
        async with place.database.session_for(read_only=False, prelude=place.prelude) as session:
            return await self._batch(session, prepared)

    async def _batch(self, session: PostgresSession, prepared: Sequence[Any]) -> api.ExecuteBatchResult:
        results = []
        for number, (change, given, expected) in enumerate(prepared):
            if change.needs_reset:
                session.require_reset()
            done = await session.alone(
                change.placed.sql, given, 1 if change.returns else 0, f"/params/statements/{number}/parameters"
            )
            affected = done.rows_affected
            if expected is not UNSET and affected != expected:
                raise _unexpected(number, affected, expected)
            results.append(api.Effect(rows_affected=affected))
        return api.ExecuteBatchResult(results=results)

    # -- vectors ---------------------------------------------------------------------------------

    async def upsert_vectors(self, request: api.UpsertVectorsRequest, context: CallContext) -> api.UpsertVectorsResult:  # noqa: ARG002
        return api.UpsertVectorsResult(stored=await Vectors(self._opened()).store(request))

    async def search_vectors(self, request: api.SearchVectorsRequest, context: CallContext) -> api.SearchVectorsResult:  # noqa: ARG002
        return api.SearchVectorsResult(items=await Vectors(self._opened()).found(request))

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, request: api.BeginRequest, context: CallContext) -> api.BeginResult:
        """``snapshot`` and ``repeatable_read`` are the same in PostgreSQL."""
        place = self._opened()
        self._leases.require_room()
        isolation = None if isinstance(request.isolation, UnsetType) else request.isolation
        if isolation is None and request.read_only:
            isolation = "repeatable_read"
        session = await place.database.session(read_only=request.read_only, isolation=isolation, prelude=place.prelude)
        begun = self._leases.lend(session, context, read_only=request.read_only, lease_seconds=request.lease_seconds)
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


def _require_columns(columns: list[api.Column]) -> None:
    if not columns:
        message = "The statement is not a query. Use execute to change something."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message)


async def _ready_to_change(transaction: Transaction[PostgresSession]) -> None:
    transaction.require_writable()
    await transaction.cursors.close()


def _after(cursor: str | UnsetType) -> tuple[str, str]:
    if isinstance(cursor, UnsetType):
        return "", ""
    schema, dot, name = cursor.partition(".")
    if not dot:
        wrong = FieldError("/params/cursor", "is not one that an answer gave")
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The cursor is not valid.", errors=[wrong])
    return schema, name


def _unexpected(number: int, affected: int, expected: int) -> ProviderError:
    wrong = FieldError(f"/params/statements/{number}/expect_rows", f"is {expected}, and {affected} were affected")
    message = f"Statement {number} affected {affected} rows instead of {expected}; nothing was changed."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
