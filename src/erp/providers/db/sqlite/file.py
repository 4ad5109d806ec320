"""One database file: one writer, a few readers, each in a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from erp.providers.db.sqlite import changes, guards
from erp.providers.db.sqlite.failures import explained
from erp.runtime.spi import ErrorCode, ProviderError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_SECONDS = 5.0
INTERRUPT_EVERY_SECONDS = 0.02


class DatabaseFile:
    """Runs work on connections; a cancelled call interrupts its statement and waits until it has stopped."""

    def __init__(self, path: Path, readers: int) -> None:
        self.path = path
        self._reader_count = readers
        self._threads = ThreadPoolExecutor(readers + 1, thread_name_prefix="db-sqlite")
        self._writers: asyncio.Queue[sqlite3.Connection] = asyncio.Queue()
        self._readers: asyncio.Queue[sqlite3.Connection] = asyncio.Queue()
        self._describers: asyncio.Queue[sqlite3.Connection] = asyncio.Queue()
        """One more reader, for the provider's own statements about the schema."""
        self._connections: list[sqlite3.Connection] = []

    async def open(self) -> None:
        """Create the file if it is not there and open all connections."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._connect)
        except sqlite3.Error as error:
            raise explained(error) from error

    def _connect(self) -> None:
        writer = self._connection(f"file:{_quoted(self.path)}")
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute("PRAGMA foreign_keys = ON")
        changes.prepare(writer)
        self._writers.put_nowait(writer)
        for _ in range(self._reader_count):
            reader = self._connection(f"file:{_quoted(self.path)}?mode=ro")
            guards.only_reads(reader)
            self._readers.put_nowait(reader)
        describer = self._connection(f"file:{_quoted(self.path)}?mode=ro")
        describer.execute("PRAGMA query_only = ON")
        self._describers.put_nowait(describer)

    def _connection(self, uri: str) -> sqlite3.Connection:
        made = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._connections.append(made)
        return made

    async def close(self) -> None:
        """Close all connections once their work has ended. Safe twice."""
        connections, self._connections = self._connections, []
        await _stopped(connections, asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown))
        for connection in connections:
            connection.close()

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on a reader, which can do nothing but query."""
        async with self._lent(self._readers) as connection:
            return await self.run(connection, work)

    async def describe(self, work: Work[T]) -> T:
        """Run the provider's own ``work`` on a reader that may use pragmas."""
        async with self._lent(self._describers) as connection:
            return await self.run(connection, work)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[sqlite3.Connection]:
        """Lend a reader for several pieces of work."""
        async with self._lent(self._readers) as connection:
            yield connection

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` on the writer in a transaction of its own: all of it, or nothing."""
        async with self._lent(self._writers) as connection:
            return await self.run(connection, lambda open_: _in_transaction(open_, work))

    @asynccontextmanager
    async def _lent(self, queue: asyncio.Queue[sqlite3.Connection]) -> AsyncIterator[sqlite3.Connection]:
        self._require_open()
        connection = await queue.get()
        try:
            yield connection
        finally:
            queue.put_nowait(connection)

    async def run(self, connection: sqlite3.Connection, work: Work[T]) -> T:
        """Run ``work`` in a thread, its failures explained."""
        self._require_open()
        task = asyncio.get_running_loop().run_in_executor(self._threads, work, connection)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _stopped([connection], task)
            raise
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise explained(error) from error

    def _require_open(self) -> None:
        if not self._connections:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The database is closed.", retry_after_seconds=1.0)


async def _stopped(connections: list[sqlite3.Connection], task: asyncio.Future[Any]) -> None:
    """Interrupt until ``task`` has ended: an interrupt does nothing to a statement that begins after it.

    A further cancellation does not end the waiting; the connection would be lent out while it is still used.
    """
    while not task.done():
        for connection in connections:
            connection.interrupt()
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=INTERRUPT_EVERY_SECONDS)
    if not task.cancelled():
        task.exception()


def _in_transaction(connection: sqlite3.Connection, work: Work[T]) -> T:
    if connection.in_transaction:
        # An interrupt can hit a ROLLBACK too.
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    guards.only_own_file(connection)
    try:
        result = work(connection)
        guards.lifted(connection)
        connection.execute("COMMIT")
    except BaseException:
        guards.lifted(connection)
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def fetched(
    cursor: sqlite3.Cursor, weigh: Callable[[Any], int], max_rows: int, max_bytes: int
) -> tuple[list[Any], bool]:
    """Return rows up to the limits, and whether there were more."""
    rows: list[Any] = []
    size = 0
    for row in cursor:
        size += weigh(row)
        if len(rows) == max_rows or size > max_bytes:
            return rows, True
        rows.append(row)
    return rows, False
