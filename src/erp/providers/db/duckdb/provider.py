"""A database for analysis in one DuckDB file per tenant and connection, or in one that tenants share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, ClassVar, TypeVar

from erp.contracts.models import db as api
from erp.contracts.models.db import QueryRequest, QueryResult, StreamRequest, StreamResult
from erp.providers.db.duckdb import catalogue, changes
from erp.providers.db.duckdb.place import placed
from erp.providers.db.duckdb.sessions import Limits, ResultCursor, Session, columns, fetched
from erp.providers.db.duckdb.wording import Asked, AsWritten, Wording
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
from erp.vendor_clients.sql.leases import Leases, Transaction
from erp.vendor_clients.sql.lending import Lending, Terms, closed
from erp.vendor_clients.sql.pages import CHUNK, Reading, refuse_cursor
from erp.vendor_clients.sql.threads import Threads
from erp.vendor_clients.sql.values import fitted, shown

T = TypeVar("T")
WAIT_SECONDS = 30.0
"""A call waits so long for a session; its own deadline usually comes first."""
_SEPARATOR = "\x1f"


class DuckdbDatabase:
    """Queries run beside each other, each in a read-only transaction; changes outside transactions one by one."""

    translate: ClassVar[ErrorTable] = {}

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._place = placed(config, context)
        self._limits = Limits(
            threads=config.get("threads", 2),
            memory_megabytes=config.get("memory_megabytes", 512),
            spill_megabytes=config.get("spill_megabytes", 1024),
            statement_seconds=config.get("max_statement_seconds", 30.0),
        )
        sessions: int = config.get("sessions", 4)
        self._max_open: int = config.get("max_transactions", 8)
        self._max_bytes: int = config.get("max_result_bytes", 16_777_216)
        self._threads = Threads(sessions + self._max_open, "db-duckdb")
        self._sessions = self._lending(sessions)
        self._lent = self._lending(self._max_open)
        self._leases: Leases[Session] = Leases(
            lease_seconds=config.get("max_lease_seconds", 60.0),
            life_seconds=config.get("max_transaction_seconds", 300.0),
            max_open=self._max_open,
        )
        self._wording: Wording = AsWritten()
        self._turn = asyncio.Lock()
        self._root: Any = None

    def _lending(self, size: int) -> Lending[Session]:
        terms = Terms(size=size, wait_seconds=WAIT_SECONDS)
        return Lending(self._connect, Session.close, lambda session: session.is_usable, terms)

    async def _connect(self) -> Session:
        if self._root is None:
            raise closed()
        return Session(self._root.cursor(), self._threads, self._limits.statement_seconds)

    async def open(self) -> None:
        self._root = await self._threads.run(lambda: self._place.opened(self._limits), stop=lambda: None)
        self._wording = self._place.wording(self._root)
        every = "SELECT DISTINCT lower(function_name) FROM duckdb_functions()"
        async with self._sessions.lent() as session:
            names = await session.run(lambda handle: handle.execute(every).fetchall())
        self._wording.functions = frozenset(name for (name,) in names)

    async def close(self) -> None:
        await self._leases.close()
        for session in self._sessions.lent_now():
            session.interrupt()
        await self._threads.close()
        await self._sessions.close()
        await self._lent.close()
        if self._root is not None:
            self._root.close()

    async def health(self) -> Health:
        """Read from the file."""
        started = time.perf_counter()
        async with self._sessions.lent() as session:
            await session.run(lambda handle: handle.execute("SELECT count(*) FROM duckdb_tables()").fetchall())
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    # -- reading ---------------------------------------------------------------------------------

    async def query(self, request: QueryRequest, context: CallContext) -> QueryResult:
        asked = self._wording.query(request.sql, request.parameters)
        if not isinstance(request.transaction, UnsetType):
            async with self._leases.entered(request.transaction, context) as transaction:
                return await self._continued(request, transaction, asked)
        if request.cursor is not UNSET:
            raise refuse_cursor()
        async with self._sessions.lent() as session:
            # Bounded by bytes a page may need several fetches, all within the statement's transaction.
            return await self._page(session, asked, request.max_rows)

    async def _page(self, session: Session, asked: Asked, max_rows: int) -> QueryResult:
        def work(handle: Any) -> QueryResult:
            return _read(handle, max_rows, self._max_bytes)

        return await session.run(session.reading(asked.sql, asked.parameters, work))

    async def _continued(self, request: QueryRequest, transaction: Transaction[Session], asked: Asked) -> QueryResult:
        statement = (asked.sql, repr(asked.parameters))
        transaction.session.require_sound()
        if isinstance(request.cursor, UnsetType):
            reading = Reading(statement, await self._cursor(transaction.session, asked, request.max_rows + 1))
        else:
            reading = transaction.cursors.take(request.cursor, statement)
        return await transaction.cursors.page(reading, request.max_rows, self._max_bytes)

    async def _cursor(self, session: Session, asked: Asked, rows: int) -> ResultCursor:
        first = min(rows, CHUNK)

        def work(handle: Any) -> tuple[list[api.Column], list[Any]]:
            return columns(handle), fetched(handle, first)

        names, ahead = await session.run(session.reading(asked.sql, asked.parameters, work))
        return ResultCursor(session, names, ahead, first)

    async def stream(self, request: StreamRequest, context: CallContext) -> AsyncGenerator[StreamResult]:  # noqa: ARG002
        asked = self._wording.query(request.sql, request.parameters)
        async with self._lent.lent() as session:
            await session.begin(read_only=True, release=self._lent.give)
            try:
                cursor = await self._cursor(session, asked, request.rows_per_item + 1)
                yield StreamResult(columns=cursor.columns)
                reading, more = Reading(None, cursor), True
                while more:
                    page = await reading.page(request.rows_per_item, self._max_bytes)
                    more = page.truncated
                    if page.rows:
                        yield StreamResult(rows=page.rows)
            finally:
                await session.rollback()

    async def metadata(self, request: api.MetadataRequest, context: CallContext) -> api.MetadataResult:  # noqa: ARG002
        only = None if request.table is UNSET else request.table
        schema, _, name = ("" if isinstance(request.cursor, UnsetType) else request.cursor).partition(_SEPARATOR)

        shared = self._place.shared(self._root)

        def work(handle: Any) -> api.MetadataResult:
            found = catalogue.names(handle, (schema, name), request.limit + 1, only, shared)
            if only is not None and not found:
                raise ProviderError(ErrorCode.NOT_FOUND, f"There is no table {only[:100]!r}.")
            shown = found[: request.limit]
            version = handle.execute("SELECT version()").fetchone()[0].lstrip("v")
            result = api.MetadataResult(
                engine="duckdb", version=version, tables=catalogue.described(handle, shown, shared)
            )
            if len(found) > request.limit:
                result.next_cursor = f"{shown[-1].schema}{_SEPARATOR}{shown[-1].name}"
            return result

        async with self._sessions.lent() as session:
            result = await session.run(work)
        result.pool = self._pool()
        return result

    def _pool(self) -> api.MetadataResultPool:
        both = (self._sessions, self._lent)
        return api.MetadataResultPool(
            size=sum(each.size for each in both),
            in_use=sum(each.in_use for each in both),
            waiting=sum(each.waiting for each in both),
        )

    # -- changing --------------------------------------------------------------------------------

    async def execute(self, request: api.ExecuteRequest, context: CallContext) -> api.ExecuteResult:
        one = self._wording.change(request.sql, request.parameters)
        return await self._changed(
            request.transaction, context, lambda handle: changes.made(handle, one, self._max_bytes)
        )

    async def execute_batch(self, request: api.ExecuteBatchRequest, context: CallContext) -> api.ExecuteBatchResult:
        batch = [
            (
                number,
                self._wording.change(each.sql, each.parameters, f"/params/statements/{number}/parameters"),
                each.expect_rows,
            )
            for number, each in enumerate(request.statements)
        ]

        def work(handle: Any) -> api.ExecuteBatchResult:
            return api.ExecuteBatchResult(results=[changes.of_batch(handle, *each, self._max_bytes) for each in batch])

        return await self._changed(request.transaction, context, work)

    async def _changed(self, handle: str | UnsetType, context: CallContext, work: Callable[[Any], T]) -> T:
        if isinstance(handle, UnsetType):
            # Two changes of one row at a time would fail in DuckDB: the second does not wait for the first.
            async with self._turn, self._sessions.lent() as session:
                return await session.run(session.changing(work), is_change=True)
        async with self._leases.entered(handle, context) as transaction:
            transaction.require_writable()
            transaction.session.require_sound()
            await transaction.cursors.close()
            return await transaction.session.run(transaction.session.changing(work), is_change=True)

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, request: api.BeginRequest, context: CallContext) -> api.BeginResult:
        """Every transaction of DuckDB sees a snapshot; there is no level to choose."""
        if request.isolation is not UNSET:
            message = "DuckDB has no isolation levels: every transaction sees a snapshot. Leave isolation out."
            raise ProviderError(ErrorCode.UNSUPPORTED, message)
        self._leases.require_room()
        session = await self._lent.take()
        try:
            await session.begin(read_only=request.read_only, release=self._lent.give)
        except BaseException:
            self._lent.give(session)
            raise
        lent = self._leases.lend(session, context, read_only=request.read_only, lease_seconds=request.lease_seconds)
        return api.BeginResult(transaction=lent.handle, lease_ends_at=lent.lease_ends_at())

    async def commit(self, request: api.CommitRequest, context: CallContext) -> api.CommitResult:
        async with self._leases.entered(request.transaction, context) as transaction:
            await self._leases.commit(transaction)
        return api.CommitResult(done=True)

    async def rollback(self, request: api.RollbackRequest, context: CallContext) -> api.RollbackResult:
        if request.savepoint is not UNSET:
            raise ProviderError(ErrorCode.UNSUPPORTED, "DuckDB has no savepoints. Roll the whole transaction back.")
        async with self._leases.entered(request.transaction, context) as transaction:
            await self._leases.rollback(transaction)
        return api.RollbackResult(done=True)


def _read(handle: Any, max_rows: int, max_bytes: int) -> QueryResult:
    """Return the beginning of the open result, fetched in one trip into the thread."""
    names = columns(handle)
    rows: list[Any] = []
    while len(rows) <= max_rows:
        more = fetched(handle, min(CHUNK, max_rows + 1 - len(rows)))
        rows += more
        if not more or fitted(rows, max_rows, max_bytes) < len(rows):
            break
    count = fitted(rows, max_rows, max_bytes)
    made = [shown(row) for row in rows[:count]]
    return QueryResult(columns=names, rows=made, row_count=count, truncated=count < len(rows))
