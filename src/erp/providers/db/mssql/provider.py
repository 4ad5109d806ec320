"""SQL Server and Azure SQL, over connections that are kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar

from erp.contracts.models import db as api
from erp.providers.db.mssql import catalogue
from erp.providers.db.mssql.engine import Endpoint, MssqlEngine
from erp.providers.db.mssql.statements import Statements
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
from erp.vendor_clients.guarded_tcp import permitted_address
from erp.vendor_clients.sql.dbapi import DbapiDatabase, DbapiSession, Prepared
from erp.vendor_clients.sql.leases import Leases
from erp.vendor_clients.sql.lending import Terms, closed
from erp.vendor_clients.sql.pages import CHUNK, Reading, refuse_cursor
from erp.vendor_clients.sql.values import OBJECTS, bound


class MssqlDatabase:
    """Queries are judged, and run in a transaction that is undone; a change is one statement, or a transaction."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = dict(config)
        self._tenant = context.tenant
        self._statements = Statements(config.get("schema", "dbo"), functions=config.get("functions", ()))
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)
        self._database: DbapiDatabase | None = None
        self._leases: Leases[DbapiSession] = Leases(
            lease_seconds=config.get("max_lease_seconds", 60.0),
            life_seconds=config.get("max_transaction_seconds", 600.0),
            max_open=config.get("max_transactions", 6),
        )

    async def open(self) -> None:
        address = await permitted_address(self._config["host"], self._config.get("port", 1433))
        endpoint = Endpoint.of(self._config, self._tenant, address)

        def terms(key: str) -> Terms:
            return Terms(size=self._config.get(key, 8), wait_seconds=self._config.get("wait_seconds", 5.0))

        made = DbapiDatabase(
            MssqlEngine(endpoint),
            readers=terms("readers"),
            writers=terms("writers"),
            seconds=endpoint.statement_seconds,
            max_bytes=self._max_bytes,
            name="db-mssql",
        )
        try:
            await made.open()
        except BaseException:
            await made.close()
            raise
        self._database = made

    async def close(self) -> None:
        await self._leases.close()
        made, self._database = self._database, None
        if made is not None:
            await made.close()

    def _opened(self) -> DbapiDatabase:
        if self._database is None:
            raise closed()
        return self._database

    async def health(self) -> Health:
        return await self._opened().health()

    # -- reading ---------------------------------------------------------------------------------

    def _query(self, sql: str, given: Any) -> Prepared:
        made, values = self._statements.query(sql), bound(given, OBJECTS)
        made.require(len(values))
        return Prepared(made.sql, values)

    async def query(self, request: api.QueryRequest, context: CallContext) -> api.QueryResult:
        database, statement = self._opened(), self._query(request.sql, request.parameters)
        if request.cursor is not UNSET:
            raise refuse_cursor() if request.transaction is UNSET else _no_cursor()
        if isinstance(request.transaction, UnsetType):
            return await database.query(statement, request.max_rows)
        async with self._leases.entered(request.transaction, context) as transaction:
            cursor = await transaction.session.cursor(statement, min(request.max_rows + 1, CHUNK))
            try:
                return await Reading(None, cursor).page(request.max_rows, self._max_bytes)
            finally:
                # One result is open at a time: the next statement could not run beside this one.
                await cursor.close()

    async def stream(self, request: api.StreamRequest, context: CallContext) -> AsyncGenerator[api.StreamResult]:  # noqa: ARG002
        statement = self._query(request.sql, request.parameters)
        async with aclosing(self._opened().stream(statement, request.rows_per_item)) as items:
            async for item in items:
                yield item

    async def metadata(self, request: api.MetadataRequest, context: CallContext) -> api.MetadataResult:  # noqa: ARG002
        database = self._opened()
        schema, _, name = ("" if isinstance(request.table, UnsetType) else request.table).rpartition(".")
        after = "" if isinstance(request.cursor, UnsetType) else request.cursor

        def work(connection: Any) -> tuple[list[api.Table], str]:
            found = catalogue.tables(connection, after, schema or None, name or None, request.limit + 1)
            version = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS varchar(40))"
            return found, str(connection.cursor().execute(version).fetchone()[0])

        async with database.lent(database.readers) as session:
            found, version = await session.run(work)
        if name and not found:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {str(request.table)[:100]!r}.")
        tables = found[: request.limit]
        result = api.MetadataResult(engine="mssql", version=version, tables=tables, pool=database.pool())
        if len(found) > request.limit:
            result.next_cursor = f"{tables[-1].schema}.{tables[-1].name}"
        return result

    # -- changing --------------------------------------------------------------------------------

    def _change(self, sql: str, given: Any, where: str = "/params/parameters") -> Prepared:
        made, returns = self._statements.change(sql)
        values = bound(given, OBJECTS, where)
        made.require(len(values), where)
        return Prepared(made.sql, values, returns=returns)

    async def execute(self, request: api.ExecuteRequest, context: CallContext) -> api.ExecuteResult:
        database, statement = self._opened(), self._change(request.sql, request.parameters)
        if isinstance(request.transaction, UnsetType):
            return await database.execute(statement)
        async with self._leases.entered(request.transaction, context) as transaction:
            transaction.require_writable()
            return await transaction.session.change(statement, self._max_bytes, is_alone=False)

    async def execute_batch(self, request: api.ExecuteBatchRequest, context: CallContext) -> api.ExecuteBatchResult:
        database = self._opened()
        statements = [
            (self._change(each.sql, each.parameters, f"/params/statements/{number}/parameters"), each.expect_rows)
            for number, each in enumerate(request.statements)
        ]
        if isinstance(request.transaction, UnsetType):
            return await database.batch(statements)
        async with self._leases.entered(request.transaction, context) as transaction:
            transaction.require_writable()
            await transaction.session.savepoint(_BATCH)
            try:
                return await transaction.session.batch(statements, self._max_bytes)
            except ProviderError:
                await transaction.session.rollback_to(_BATCH)
                raise

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, request: api.BeginRequest, context: CallContext) -> api.BeginResult:
        """``snapshot`` needs ALLOW_SNAPSHOT_ISOLATION in the database."""
        database = self._opened()
        self._leases.require_room()
        isolation = None if isinstance(request.isolation, UnsetType) else request.isolation
        session = await database.session(read_only=request.read_only, isolation=isolation)
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


_BATCH = "batch"
"""A savepoint of the provider's own; it is not one of the lease, so no caller can go back to it."""


def _no_cursor() -> ProviderError:
    wrong = FieldError("/params/cursor", "no answer of this engine gives one")
    message = "SQL Server keeps one result open. Page by a condition on a key, or stream."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
