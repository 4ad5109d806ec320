"""MySQL and MariaDB: a database for each tenant, over connections that are kept."""

from __future__ import annotations

import datetime
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from erp.contracts.models import db as api
from erp.providers.db.mysql import catalogue
from erp.providers.db.mysql.connecting import Endpoint
from erp.providers.db.mysql.database import Database, Done, MysqlSession, columns_of, opened
from erp.providers.db.mysql.failures import explained
from erp.providers.db.mysql.functions import HARMLESS
from erp.providers.db.mysql.statements import Change, Statements, arranged
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
from erp.vendor_clients.sql.lending import Terms, closed
from erp.vendor_clients.sql.pages import refuse_cursor

if TYPE_CHECKING:
    from erp.providers.db.mysql.pooled import Pool

MAX_RETURNED_ROWS = 100_000
IDLE_SECONDS = 300.0


def _utc(text: str) -> str:
    """A moment as the server takes it: in UTC when it names a zone."""
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return moment.isoformat(sep=" ")


DECODERS: values.Decoders = {**values.OBJECTS, "$date": str, "$uuid": str, "$datetime": _utc}


class MysqlDatabase:
    """Queries run where the server refuses every change; a change is one statement, or a transaction."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = dict(config)
        self._tenant = context.tenant
        self._database: Database | None = None
        self._statements: Statements | None = None
        self._pool: Pool | None = None
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)
        self._leases: Leases[MysqlSession] = Leases(
            lease_seconds=config.get("max_lease_seconds", 60.0),
            life_seconds=config.get("max_transaction_seconds", 600.0),
            max_open=config.get("max_transactions", 6),
        )

    async def open(self) -> None:
        endpoint = Endpoint.of(self._config)
        reading = writing = endpoint
        mode = self._config.get("mode", "siloed")
        if mode == "database":
            from erp.providers.db.mysql.tenant_database import prepared

            reading, writing = await prepared(endpoint, self._tenant)
        elif mode == "pooled":
            from erp.providers.db.mysql.pooled import joined

            self._pool = await joined(endpoint, self._tenant)
            reading, writing = self._pool.reading, self._pool.writing
        self._statements = self._judging(writing.database)
        database = Database(reading, writing, readers=self._terms("readers"), writers=self._terms("writers"))
        try:
            await database.open()
        except BaseException:
            await database.close()
            raise
        self._database = database

    def _judging(self, database: str) -> Statements:
        functions, tables = self._config.get("functions", ()), self._config.get("tables")
        if self._pool is None:
            return Statements(database, functions=functions, tables=tables)
        from erp.providers.db.mysql.confining import Confining

        allowed = HARMLESS | {name.lower() for name in functions}
        confining = Confining(database, self._pool.found, self._tenant, functions=allowed, tables=tables)
        return Statements(database, functions=functions, confining=confining)

    def _terms(self, key: str) -> Terms:
        wait = self._config.get("wait_seconds", 5.0)
        return Terms(size=self._config.get(key, 8), wait_seconds=wait, idle_seconds=IDLE_SECONDS)

    async def close(self) -> None:
        await self._leases.close()
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    def _opened(self) -> tuple[Database, Statements]:
        if self._database is None or self._statements is None:
            raise closed()
        return self._database, self._statements

    async def health(self) -> Health:
        """Ask the server."""
        database, _ = self._opened()
        started = time.perf_counter()
        async with database.lent(database.readers) as connection:
            await database.read(connection, "SELECT 1", (), 2, self._max_bytes)
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    # -- reading ---------------------------------------------------------------------------------

    async def query(self, request: api.QueryRequest, context: CallContext) -> api.QueryResult:
        database, statements = self._opened()
        statement = statements.query(request.sql)
        given = arranged(statement, values.bound(request.parameters, DECODERS))
        limit = request.max_rows + 1
        if request.cursor is not UNSET:
            raise refuse_cursor() if request.transaction is UNSET else _no_cursor()
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                done = await transaction.session.read(statement.sql, given, limit, self._max_bytes)
        else:
            async with database.lent(database.readers) as connection:
                done = await database.read(connection, statement.sql, given, limit, self._max_bytes)
        return self._answer(done, request.max_rows)

    def _answer(self, done: Done, max_rows: int) -> api.QueryResult:
        if not done.columns:
            message = "The statement is not a query. Use execute to change something."
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, message)
        count = values.fitted(done.rows, max_rows, self._max_bytes)
        rows = [values.shown(row) for row in done.rows[:count]]
        return api.QueryResult(columns=done.columns, rows=rows, row_count=count, truncated=count < len(done.rows))

    async def stream(self, request: api.StreamRequest, context: CallContext) -> AsyncGenerator[api.StreamResult]:  # noqa: ARG002
        database, statements = self._opened()
        statement = statements.query(request.sql)
        given = arranged(statement, values.bound(request.parameters, DECODERS))
        async with database.lent(database.readers) as connection:
            try:
                await connection.query("SET SESSION sql_select_limit = DEFAULT")
                connection.select_limit = 0
                cursor = await database.limited(opened(connection, statement.sql, given))
                yield api.StreamResult(columns=columns_of(cursor))
                while rows := await cursor.fetchmany(request.rows_per_item):
                    async for item in self._items(rows):
                        yield item
            except Exception as error:
                raise explained(error) from error

    async def _items(self, rows: Sequence[Any]) -> AsyncGenerator[api.StreamResult]:
        while rows:
            count = values.fitted(rows, len(rows), self._max_bytes)
            yield api.StreamResult(rows=[values.shown(row) for row in rows[:count]])
            rows = rows[count:]

    async def metadata(self, request: api.MetadataRequest, context: CallContext) -> api.MetadataResult:  # noqa: ARG002
        database, _ = self._opened()
        only = None if isinstance(request.table, UnsetType) else request.table
        after = "" if isinstance(request.cursor, UnsetType) else request.cursor
        found, version = await self._tables(database, after, only, request.limit + 1)
        if only is not None and not found:
            raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {only[:100]!r}.")
        shown = found[: request.limit]
        engine = "mariadb" if "MariaDB" in version else "mysql"
        number = version.removeprefix("5.5.5-").partition("-")[0]
        result = api.MetadataResult(engine=engine, version=number, tables=shown, pool=_pool(database))
        if len(found) > request.limit:
            result.next_cursor = shown[-1].name
        return result

    async def _tables(
        self, database: Database, after: str, only: str | None, limit: int
    ) -> tuple[list[api.Table], str]:
        visible = self._config.get("tables")
        if self._pool is not None:
            return await self._pool.tables(after, only, limit, None if visible is None else frozenset(visible))
        async with database.lent(database.readers) as connection:
            try:
                found = await catalogue.tables(connection, after, only, limit, visible)
            except Exception as error:
                raise explained(error) from error
            return found, connection.get_server_info()

    # -- changing --------------------------------------------------------------------------------

    async def execute(self, request: api.ExecuteRequest, context: CallContext) -> api.ExecuteResult:
        change, given = self._prepared(request.sql, request.parameters)
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                _ready_to_change(transaction, [change])
                async with transaction.session.whole():
                    return await self._executed(transaction.session, change, given)
        database, _ = self._opened()
        if not change.is_shaping and not _counts(change):
            session = await database.session(read_only=False)
            try:
                result = await self._executed(session, change, given)
                await session.commit()
            finally:
                session.release()
            return result
        connection = await database.writers.take()
        try:
            done = await database.change(connection, change.placed.sql, given, 1, self._max_bytes)
        finally:
            database.give(connection, database.writers, is_clean=change.is_plain)
        return _effect(done)

    def _prepared(self, sql: str, parameters: Any, where: str = "/params/parameters") -> tuple[Change, Sequence[Any]]:
        _, statements = self._opened()
        change = statements.change(sql)
        return change, arranged(change.placed, values.bound(parameters, DECODERS, where), where)

    async def _executed(self, session: MysqlSession, change: Change, given: Sequence[Any]) -> api.ExecuteResult:
        if not change.is_plain:
            session.require_reset()
        done = await session.change(change.placed.sql, given, MAX_RETURNED_ROWS + 1, self._max_bytes)
        result = _effect(done)
        if done.columns:
            if values.fitted(done.rows, MAX_RETURNED_ROWS, self._max_bytes) < len(done.rows):
                message = f"The returned rows are larger than an answer may be ({self._max_bytes} bytes); nothing was changed."
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
            result.columns, result.rows = done.columns, [values.shown(row) for row in done.rows]
            result.rows_affected = len(done.rows) if "returning" in change.words else 0
        return result

    async def execute_batch(self, request: api.ExecuteBatchRequest, context: CallContext) -> api.ExecuteBatchResult:
        prepared = [
            (*self._prepared(one.sql, one.parameters, f"/params/statements/{number}/parameters"), one.expect_rows)
            for number, one in enumerate(request.statements)
        ]
        changes = [change for change, _, _ in prepared]
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                _ready_to_change(transaction, changes)
                async with transaction.session.whole():
                    return await self._batch(transaction.session, prepared)
        _refuse_shaping(changes)
        database, _ = self._opened()
        session = await database.session(read_only=False)
        try:
            result = await self._batch(session, prepared)
            await session.commit()
        finally:
            session.release()
        return result

    async def _batch(self, session: MysqlSession, prepared: Sequence[Any]) -> api.ExecuteBatchResult:
        results = []
        for number, (change, given, expected) in enumerate(prepared):
            done = await self._executed(session, change, given)
            if expected is not UNSET and done.rows_affected != expected:
                raise _unexpected(number, done.rows_affected, expected)
            results.append(api.Effect(rows_affected=done.rows_affected, last_insert_id=done.last_insert_id))
        return api.ExecuteBatchResult(results=results)

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, request: api.BeginRequest, context: CallContext) -> api.BeginResult:
        """InnoDB has no snapshot isolation for changes, so ``snapshot`` is refused."""
        database, _ = self._opened()
        if request.isolation == "snapshot":
            message = "MySQL has no snapshot isolation for changes. Ask for repeatable_read or serializable."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
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


def _ready_to_change(transaction: Transaction[MysqlSession], changes: Sequence[Change]) -> None:
    transaction.require_writable()
    _refuse_shaping(changes)


def _refuse_shaping(changes: Sequence[Change]) -> None:
    """Refuse what the server would commit with everything before it."""
    if any(change.is_shaping for change in changes):
        message = (
            "MySQL commits a transaction when a table is made or changed in it. Use execute, outside a transaction."
        )
        raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)


def _counts(change: Change) -> bool:
    """Whether only a count comes back, so that nothing has to be bounded before it is durable."""
    return not change.words & {"returning", "select", "values", "with"} or (
        change.first in {"insert", "replace"} and "returning" not in change.words
    )


def _effect(done: Done) -> api.ExecuteResult:
    affected = 0 if done.columns else done.rows_affected
    return api.ExecuteResult(rows_affected=affected, last_insert_id=done.last_insert_id or UNSET)


def _pool(database: Database) -> api.MetadataResultPool:
    lendings = (database.readers, database.writers)
    return api.MetadataResultPool(
        size=sum(lending.size for lending in lendings),
        in_use=sum(lending.in_use for lending in lendings),
        waiting=sum(lending.waiting for lending in lendings),
    )


def _no_cursor() -> ProviderError:
    wrong = FieldError("/params/cursor", "no answer of this engine gives one")
    message = "MySQL keeps no result open. Page by a condition on a key, or stream."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])


def _unexpected(number: int, affected: int, expected: int) -> ProviderError:
    wrong = FieldError(f"/params/statements/{number}/expect_rows", f"is {expected}, and {affected} were affected")
    message = f"Statement {number} affected {affected} rows instead of {expected}; nothing was changed."
    return ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
