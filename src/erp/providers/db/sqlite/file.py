"""One database file: one writer, a few readers, each piece of work in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from erp.providers.db.sqlite import changes
from erp.providers.db.sqlite.connections import (
    BUSY_SECONDS,
    INTERRUPT_EVERY_SECONDS,
    GuardedConnection,
    Lending,
    connect,
)
from erp.providers.db.sqlite.failures import closed, explained
from erp.providers.db.sqlite.guards import ROW_SOURCES, Rules, lifted, set_limits
from erp.providers.db.sqlite.reads import Reads
from erp.providers.db.sqlite.writes import Writes
from erp.runtime.spi import ErrorCode, ProviderError

T = TypeVar("T")
Work = Callable[[GuardedConnection], T]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """How many connections there are and what each of their statements may use."""

    readers: int = 3
    snapshots: int = 8
    """Read-only transactions at the same time; each has a connection of its own."""
    statement_seconds: float = 30.0
    value_bytes: int = 1024 * 1024
    mode: str = "rwc"


class DatabaseFile:
    """Runs work on connections; a cancelled call interrupts its statement and waits until it has stopped."""

    def __init__(self, path: Path, settings: FileSettings, rules: Rules) -> None:
        self.path = path
        self._settings = settings
        self._rules = rules
        threads = settings.readers + settings.snapshots + 1
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="db-sqlite")
        self.writers, self.readers = Lending(), Lending()
        self._describers = Lending()
        """One more reader, for the provider's own statements about the schema."""
        self._reads = Reads(self.readers, self._threads, settings.statement_seconds)
        self.writes = Writes(self.writers, self._threads, settings.statement_seconds, self.changing)
        self._connections: list[GuardedConnection] = []

    async def open(self) -> None:
        """Create the file if it is not there and may be made, and open all connections."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._connect)
        except sqlite3.Error as error:
            raise explained(error) from error

    def _connect(self) -> None:
        writer = self._connection(self._settings.mode)
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute("PRAGMA foreign_keys = ON")
        writer.execute("PRAGMA recursive_triggers = ON")
        changes.prepare(writer)
        self._rules.prepare(writer, writes=True)
        self.writers.add(writer)
        for _ in range(self._settings.readers):
            self.readers.add(self._reader())
        describer = self._connection("ro")
        describer.execute("PRAGMA query_only = ON")
        self._describers.add(describer)

    def _reader(self, *, is_snapshot: bool = False) -> GuardedConnection:
        reader = self._connection("ro")
        self._rules.prepare(reader, writes=False)
        reader.execute("PRAGMA query_only = ON")
        if is_snapshot:
            # SQLite takes the snapshot at the first read, not at BEGIN.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reader.set_authorizer(self._rules.may_read)
        return reader

    def _connection(self, mode: str) -> GuardedConnection:
        made = connect(self.path, mode)
        self._connections.append(made)
        set_limits(made, self._settings.value_bytes)
        for source in ROW_SOURCES:
            # Connected before a rule holds: SQLite pretends to create a table for it.
            made.execute(f"SELECT 1 FROM {source}('[]')")  # noqa: S608  (a constant)
        return made

    async def close(self) -> None:
        """Close all connections once their work has ended. Safe twice."""
        connections, self._connections = self._connections, []
        self._reads.refuse(closed())
        self.writes.refuse(closed())
        await _stopped(connections, asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown))
        for connection in connections:
            connection.close()

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on a reader, which can do nothing but query."""
        self.require_open()
        return await self._reads.run(work)

    async def describe(self, work: Work[T]) -> T:
        """Run the provider's own ``work`` on a reader that may use pragmas."""
        self.require_open()
        async with self._describers.lent() as connection:
            return await self.run(connection, work)

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[GuardedConnection]:
        """Lend a reader for several pieces of work."""
        self.require_open()
        async with self.readers.lent() as connection:
            yield connection

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` on the writer and return once it is durable: all of it, or nothing."""
        self.require_open()
        return await self.writes.run(work)

    async def take_writer(self) -> GuardedConnection:
        """Return the writer, to be given back to ``writers``.

        Raises:
            ProviderError: ``unavailable`` when a transaction or a long change holds it.
        """
        self.require_open()
        try:
            return await self.writers.take(BUSY_SECONDS)
        except TimeoutError:
            message = "Another transaction or a long change holds the one writer. Try again when it has ended."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0) from None

    async def open_snapshot(self) -> GuardedConnection:
        """Open one more connection that only reads, and only what is there now; ``close_snapshot`` closes it."""
        self.require_open()
        task = asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._reader(is_snapshot=True))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _stopped([], task)
            if task.exception() is None:
                self.close_snapshot(task.result())
            raise
        except sqlite3.Error as error:
            raise explained(error) from error

    def close_snapshot(self, connection: GuardedConnection) -> None:
        """Close what ``open_snapshot`` opened; nothing may run on it. Safe twice."""
        if connection in self._connections:
            self._connections.remove(connection)
            connection.close()

    async def run(self, connection: GuardedConnection, work: Work[T]) -> T:
        """Run ``work`` in a thread within the time a statement may take, its failures explained."""
        self.require_open()
        connection.ends_at = time.monotonic() + self._settings.statement_seconds
        task = asyncio.get_running_loop().run_in_executor(self._threads, work, connection)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _stopped([connection], task)
            raise
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise explained(error) from error

    def require_open(self) -> None:
        """Refuse work on a database that was closed or never opened."""
        if not self._connections:
            raise closed()

    # -- in a thread -----------------------------------------------------------------------------

    def changing(self, connection: GuardedConnection, work: Work[T]) -> T:
        """Run ``work`` under the rules for changes."""
        connection.set_authorizer(self._rules.may_write)
        try:
            return work(connection)
        finally:
            lifted(connection)

    def querying(self, connection: GuardedConnection, work: Work[T]) -> T:
        """Run ``work`` on the writer under the rules for queries."""
        connection.execute("PRAGMA query_only = ON")
        connection.set_authorizer(self._rules.may_read)
        try:
            return work(connection)
        finally:
            lifted(connection)
            connection.execute("PRAGMA query_only = OFF")


async def _stopped(connections: list[GuardedConnection], task: asyncio.Future[Any]) -> None:
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
