"""A database behind a blocking driver (PEP 249): its connections, and queries and changes on them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from erp.contracts.models.db import ExecuteBatchResult, ExecuteResult, MetadataResultPool, QueryResult, StreamResult
from erp.runtime.spi import Health, ProviderError, UnsetType
from erp.vendor_clients.sql.dbapi_sessions import DbapiSession, Engine, Prepared
from erp.vendor_clients.sql.leaving_threads import LeavingThreads, LeftRunningError
from erp.vendor_clients.sql.lending import Lending, Terms
from erp.vendor_clients.sql.pages import CHUNK, Reading

__all__ = ["DbapiDatabase", "DbapiSession", "Engine", "Prepared"]
CLOSE_SECONDS = 2.0


class DbapiDatabase:
    """The connections to one database."""

    def __init__(
        self, engine: Engine, *, readers: Terms, writers: Terms, seconds: float, max_bytes: int, name: str
    ) -> None:
        self._engine = engine
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._threads = LeavingThreads(name)
        self.readers = self._lending(readers, read_only=True)
        self.writers = self._lending(writers, read_only=False)

    def _lending(self, terms: Terms, *, read_only: bool) -> Lending[DbapiSession]:
        async def connect() -> DbapiSession:
            connection = await self._threads.run(
                lambda: self._connected(read_only=read_only), stop=_nothing, late=_closed_if_made
            )
            return DbapiSession(self._engine, connection, self._threads, self._seconds)

        return Lending(connect, self._closed, DbapiSession.is_usable, terms)

    def _connected(self, *, read_only: bool) -> Any:
        try:
            return self._engine.connect(read_only=read_only)
        except ProviderError:
            raise
        except Exception as error:
            raise self._engine.explained(error) from error

    async def _closed(self, session: DbapiSession) -> None:
        if session.is_left:
            return
        with suppress(LeftRunningError):
            await self._threads.run(session.connection.close, stop=_nothing, late=_nothing, seconds=CLOSE_SECONDS)

    async def open(self) -> None:
        """Connect once, to know that it works."""
        self.readers.give(await self.readers.take())

    async def close(self) -> None:
        """Close all connections once their work was stopped. Safe twice."""
        for session in [*self.readers.lent_now(), *self.writers.lent_now()]:
            session.interrupt()
        await self.readers.close()
        await self.writers.close()
        self._threads.close()

    async def health(self) -> Health:
        """Ask the server."""
        started = time.perf_counter()
        async with self.lent(self.readers) as session:
            await session.cursor(Prepared("SELECT 1", ()), 2)
        return Health(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 3))

    @asynccontextmanager
    async def lent(self, lending: Lending[DbapiSession]) -> AsyncIterator[DbapiSession]:
        """Lend a session for the length of a block."""
        session = await lending.take()
        try:
            yield session
        finally:
            lending.give(session, is_broken=not session.is_usable())

    async def session(self, *, read_only: bool, isolation: str | None = None) -> DbapiSession:
        """Begin a transaction on a connection of its own.

        Raises:
            ProviderError: ``unavailable`` when no connection became free.
        """
        lending = self.readers if read_only else self.writers
        session = await lending.take()

        def release(done: DbapiSession) -> None:
            lending.give(done, is_broken=done.is_open() or not done.is_usable())

        try:
            await session.begin(read_only=read_only, isolation=isolation, release=release)
        except BaseException:
            lending.give(session, is_broken=True)
            raise
        return session

    @asynccontextmanager
    async def transaction(self, *, read_only: bool) -> AsyncIterator[DbapiSession]:
        """Hold a transaction for a block: committed at its end (one that reads is undone), undone when it fails."""
        session = await self.session(read_only=read_only)
        try:
            yield session
            if not read_only:
                await session.commit()
        finally:
            if session.is_open():
                await session.rollback()
            session.release()

    async def query(self, statement: Prepared, max_rows: int) -> QueryResult:
        """Run a query and return the first rows."""
        async with self.transaction(read_only=True) as session:
            cursor = await session.cursor(statement, min(max_rows + 1, CHUNK))
            return await Reading(None, cursor).page(max_rows, self._max_bytes)

    async def stream(self, statement: Prepared, rows_per_item: int) -> AsyncGenerator[StreamResult]:
        """Run a query and yield its columns, then all its rows."""
        async with self.transaction(read_only=True) as session:
            cursor = await session.cursor(statement, min(rows_per_item + 1, CHUNK))
            yield StreamResult(columns=cursor.columns)
            reading, more = Reading(None, cursor), True
            while more:
                page = await reading.page(rows_per_item, self._max_bytes)
                more = page.truncated
                if page.rows:
                    yield StreamResult(rows=page.rows)

    async def execute(self, statement: Prepared) -> ExecuteResult:
        """Run a change, which takes effect as a whole."""
        async with self.lent(self.writers) as session:
            return await session.change(statement, self._max_bytes, is_alone=True)

    async def batch(self, statements: Sequence[tuple[Prepared, int | UnsetType]]) -> ExecuteBatchResult:
        """Run several changes in one transaction."""
        async with self.transaction(read_only=False) as session:
            return await session.batch(statements, self._max_bytes)

    def pool(self) -> MetadataResultPool:
        """How busy the connections are."""
        both = (self.readers, self.writers)
        return MetadataResultPool(
            size=sum(each.size for each in both),
            in_use=sum(each.in_use for each in both),
            waiting=sum(each.waiting for each in both),
        )


def _nothing(*_: object) -> None:
    """Stop nothing, clean up nothing."""


def _closed_if_made(connection: Any) -> None:
    """Close a connection for which nobody waits any more."""
    if connection is not None:
        connection.close()
