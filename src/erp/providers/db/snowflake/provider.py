"""Snowflake: a schema of a database for each tenant, over sessions that are kept."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, ClassVar

from erp.contracts.models import db as api
from erp.providers.db.snowflake import catalogue
from erp.providers.db.snowflake.engine import Endpoint, SnowflakeEngine
from erp.providers.db.snowflake.statements import Statements
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    ErrorCode,
    ErrorTable,
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
from erp.vendor_clients.sql.values import TEXTS, bound


class SnowflakeDatabase:
    """Queries are judged, and undone; a change is one statement, or a transaction."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = dict(config)
        self._endpoint = Endpoint.of(config)
        self._schema = self._endpoint.schema.upper()
        if config.get("mode", "siloed") == "schema":
            self._schema = "TENANT_" + hashlib.sha256(context.tenant.encode()).hexdigest()[:24].upper()
        own = self._schema if config.get("mode") == "schema" else None
        self._statements = Statements(own, functions=config.get("functions", ()))
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)
        self._database: DbapiDatabase | None = None
        self._leases: Leases[DbapiSession] = Leases(
            lease_seconds=config.get("max_lease_seconds", 60.0),
            life_seconds=config.get("max_transaction_seconds", 600.0),
            max_open=config.get("max_transactions", 4),
        )

    async def open(self) -> None:
        await permitted_address(self._endpoint.host, self._endpoint.port)
        made = self._made()
        try:
            await made.open()
            if self._config.get("mode") == "schema":
                await self._enter(made)
        except BaseException:
            await made.close()
            raise
        self._database = made

    def _made(self) -> DbapiDatabase:
        def terms(key: str) -> Terms:
            return Terms(size=self._config.get(key, 4), wait_seconds=self._config.get("wait_seconds", 10.0))

        return DbapiDatabase(
            SnowflakeEngine(self._endpoint, self._schema),
            readers=terms("readers"),
            writers=terms("writers"),
            seconds=self._endpoint.statement_seconds,
            max_bytes=self._max_bytes,
            name="db-snowflake",
        )

    async def _enter(self, made: DbapiDatabase) -> None:
        async with made.lent(made.writers) as session:
            sql = f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"'
            await session.run(lambda connection: connection.cursor().execute(sql))

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
        made, values = self._statements.query(sql), bound(given, TEXTS)
        made.require(len(values))
        return Prepared(made.sql, values)

    async def query(self, request: api.QueryRequest, context: CallContext) -> api.QueryResult:
        database, statement = self._opened(), self._query(request.sql, request.parameters)
        if isinstance(request.transaction, UnsetType):
            if request.cursor is not UNSET:
                raise refuse_cursor()
            return await database.query(statement, request.max_rows)
        async with self._leases.entered(request.transaction, context) as transaction:
            key = (statement.sql, repr(statement.given))
            if isinstance(request.cursor, UnsetType):
                cursor = await transaction.session.cursor(statement, min(request.max_rows + 1, CHUNK))
                reading = Reading(key, cursor)
            else:
                reading = transaction.cursors.take(request.cursor, key)
            return await transaction.cursors.page(reading, request.max_rows, self._max_bytes)

    async def stream(self, request: api.StreamRequest, context: CallContext) -> AsyncGenerator[api.StreamResult]:  # noqa: ARG002
        statement = self._query(request.sql, request.parameters)
        async with aclosing(self._opened().stream(statement, request.rows_per_item)) as items:
            async for item in items:
                yield item

    async def metadata(self, request: api.MetadataRequest, context: CallContext) -> api.MetadataResult:  # noqa: ARG002
        database = self._opened()
        only = None if isinstance(request.table, UnsetType) else _folded(request.table)
        after = "" if isinstance(request.cursor, UnsetType) else request.cursor

        def work(connection: Any) -> tuple[list[api.Table], list[str], str]:
            found, names = catalogue.tables(connection, self._schema, after, only, request.limit + 1)
            return found, names, str(connection.cursor().execute("SELECT CURRENT_VERSION()").fetchone()[0])

        async with database.lent(database.readers) as session:
            found, names, version = await session.run(work)
        if only is not None and not found:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {str(request.table)[:100]!r}.")
        tables = found[: request.limit]
        result = api.MetadataResult(engine="snowflake", version=version, tables=tables, pool=database.pool())
        if len(found) > request.limit:
            result.next_cursor = names[request.limit - 1]
        return result

    # -- changing --------------------------------------------------------------------------------

    def _change(self, sql: str, given: Any, where: str = "/params/parameters") -> Prepared:
        made, is_shaping = self._statements.change(sql)
        values = bound(given, TEXTS, where)
        made.require(len(values), where)
        return Prepared(made.sql, values, is_shaping=is_shaping)

    async def execute(self, request: api.ExecuteRequest, context: CallContext) -> api.ExecuteResult:
        database, statement = self._opened(), self._change(request.sql, request.parameters)
        if isinstance(request.transaction, UnsetType):
            return await database.execute(statement)
        async with self._leases.entered(request.transaction, context) as transaction:
            transaction.require_writable()
            _refuse_shaping([statement])
            return await transaction.session.change(statement, self._max_bytes, is_alone=False)

    async def execute_batch(self, request: api.ExecuteBatchRequest, context: CallContext) -> api.ExecuteBatchResult:  # noqa: ARG002
        database = self._opened()
        statements = [
            (self._change(each.sql, each.parameters, f"/params/statements/{number}/parameters"), each.expect_rows)
            for number, each in enumerate(request.statements)
        ]
        _refuse_shaping([statement for statement, _ in statements])
        if not isinstance(request.transaction, UnsetType):
            # Without savepoints a part of a transaction cannot be undone.
            message = (
                "Snowflake has no savepoints, so a batch cannot be undone inside a transaction. Send it without one."
            )
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        return await database.batch(statements)

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, request: api.BeginRequest, context: CallContext) -> api.BeginResult:
        """Snowflake knows READ COMMITTED alone."""
        if request.isolation is not UNSET:
            message = (
                "Snowflake has no isolation levels to choose: every transaction is READ COMMITTED. Leave isolation out."
            )
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        database = self._opened()
        self._leases.require_room()
        session = await database.session(read_only=request.read_only)
        begun = self._leases.lend(session, context, read_only=request.read_only, lease_seconds=request.lease_seconds)
        return api.BeginResult(transaction=begun.handle, lease_ends_at=begun.lease_ends_at())

    async def commit(self, request: api.CommitRequest, context: CallContext) -> api.CommitResult:
        async with self._leases.entered(request.transaction, context) as transaction:
            await self._leases.commit(transaction)
        return api.CommitResult(done=True)

    async def rollback(self, request: api.RollbackRequest, context: CallContext) -> api.RollbackResult:
        if request.savepoint is not UNSET:
            raise ProviderError(ErrorCode.UNSUPPORTED, "Snowflake has no savepoints. Roll the whole transaction back.")
        async with self._leases.entered(request.transaction, context) as transaction:
            await self._leases.rollback(transaction)
        return api.RollbackResult(done=True)


def _folded(name: str) -> str:
    """A name as Snowflake keeps it: in upper case unless it needs quotes."""
    return name.upper() if name.replace("_", "a").replace("$", "a").isalnum() and name == name.lower() else name


def _refuse_shaping(statements: list[Prepared]) -> None:
    """Refuse what Snowflake would commit with everything before it."""
    if any(statement.is_shaping for statement in statements):
        message = (
            "Snowflake commits a transaction when a table is made or changed in it. Use execute, outside a transaction."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
