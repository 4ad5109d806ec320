"""Transactions over several calls: each has a connection of the file, lent with a lease.

The end of the process undoes them too: what was not committed is not in the file
(https://www.sqlite.org/isolation.html).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from erp.providers.db.sqlite.connections import GuardedConnection
from erp.providers.db.sqlite.file import DatabaseFile, T, Work
from erp.providers.db.sqlite.reading import columns
from erp.providers.db.sqlite.wording import Prepared
from erp.providers.db.sqlite.writes import begun, committed, rolled_back
from erp.runtime.spi import CallContext, ErrorCode, ProviderError
from erp.vendor_clients.sql.leases import Leases, Transaction

UNBOUNDED = 1_000_000
"""Of transactions: the one writer and the number of snapshots bound them."""
_STATEMENT = "erp_statement"
"""A savepoint of the provider's own; those of callers are prefixed differently."""


class SqliteSession:
    """A connection with an open transaction: the writer, or a reader that sees the moment it began."""

    def __init__(
        self, file: DatabaseFile, connection: GuardedConnection, give: Callable[[], None], *, read_only: bool
    ) -> None:
        self._file = file
        self._connection = connection
        self._read_only = read_only
        self.release = give

    def is_open(self) -> bool:
        """SQLite undoes a transaction itself when the disk is full or a change is interrupted."""
        return self._connection.in_transaction

    async def commit(self) -> None:
        if not self._read_only:
            await self._file.run(self._connection, committed)

    async def rollback(self) -> None:
        if not self._read_only:
            await self._file.run(self._connection, rolled_back)

    async def savepoint(self, name: str) -> None:
        await self._file.run(self._connection, lambda open_: open_.execute(f"SAVEPOINT user_{name}"))

    async def rollback_to(self, name: str) -> None:
        await self._file.run(self._connection, lambda open_: open_.execute(f"ROLLBACK TO user_{name}"))

    def interrupt(self) -> None:
        self._connection.interrupt()

    async def read(self, work: Work[T]) -> T:
        """Run a query inside; what was changed inside is seen."""
        connection = self._connection
        if self._read_only:
            return await self._file.run(connection, work)
        return await self._file.run(connection, lambda _: self._file.querying(connection, work))

    async def cursor(self, statement: Prepared) -> SqliteCursor:
        """Begin to read a statement."""
        return SqliteCursor(self, await self.read(statement.execute))

    async def write(self, work: Work[T]) -> T:
        """Run a change inside: all of it, or nothing."""
        connection = self._connection
        return await self._file.run(connection, lambda _: self._as_a_whole(connection, work))

    def _as_a_whole(self, connection: GuardedConnection, work: Work[T]) -> T:
        connection.execute(f"SAVEPOINT {_STATEMENT}")
        try:
            result = self._file.changing(connection, work)
        except BaseException:
            if connection.in_transaction:
                connection.execute(f"ROLLBACK TO {_STATEMENT}")
                connection.execute(f"RELEASE {_STATEMENT}")
            raise
        connection.execute(f"RELEASE {_STATEMENT}")
        return result


class SqliteCursor:
    """A statement of which rows are fetched in a thread."""

    def __init__(self, session: SqliteSession, cursor: sqlite3.Cursor) -> None:
        self._session = session
        self._cursor = cursor
        self.columns = columns(cursor)

    async def fetch(self, count: int) -> Sequence[Any]:
        return await self._session.read(lambda _: self._cursor.fetchmany(count))

    async def close(self) -> None:
        self._cursor.close()


class Transactions:
    """Begins transactions of one database file, and lends them."""

    def __init__(self, file: DatabaseFile, *, max_snapshots: int, lease_seconds: float, life_seconds: float) -> None:
        self._file = file
        self._max_snapshots = max_snapshots
        self._snapshots = 0
        self.leases: Leases[SqliteSession] = Leases(
            lease_seconds=lease_seconds, life_seconds=life_seconds, max_open=UNBOUNDED
        )

    async def begin(self, context: CallContext, *, read_only: bool, lease_seconds: float) -> Transaction[SqliteSession]:
        """Begin a transaction; one that changes waits for the others that do.

        Raises:
            ProviderError: ``unavailable`` when no connection became free.
        """
        session = await (self._snapshot() if read_only else self._writer())
        return self.leases.lend(session, context, read_only=read_only, lease_seconds=lease_seconds)

    async def _writer(self) -> SqliteSession:
        connection = await self._file.take_writer()
        try:
            await self._file.run(connection, begun)
        except BaseException:
            rolled_back(connection)
            self._file.writers.give(connection)
            raise
        return SqliteSession(self._file, connection, lambda: self._file.writers.give(connection), read_only=False)

    async def _snapshot(self) -> SqliteSession:
        if self._snapshots >= self._max_snapshots:
            message = f"There are {self._max_snapshots} read-only transactions already. Try again when one has ended."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)
        self._snapshots += 1
        try:
            connection = await self._file.open_snapshot()
        except BaseException:
            self._snapshots -= 1
            raise
        return SqliteSession(self._file, connection, lambda: self._close_snapshot(connection), read_only=True)

    def _close_snapshot(self, connection: GuardedConnection) -> None:
        self._snapshots -= 1
        self._file.close_snapshot(connection)
