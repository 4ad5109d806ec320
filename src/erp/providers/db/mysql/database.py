"""One database: connections that can only read, connections that write, and sessions on either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from erp.contracts.models.db import Column
from erp.providers.db.mysql.connecting import Endpoint, closed, is_in_transaction, is_usable, plain
from erp.providers.db.mysql.failures import DEADLOCK, explained, is_lost, number_of, unknown
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql.lending import Lending, Terms
from erp.vendor_clients.sql.pages import CHUNK
from erp.vendor_clients.sql.values import weight

T = TypeVar("T")
RECOVER_SECONDS = 10.0


class Done:
    """What a statement has brought."""

    __slots__ = ("_cursor", "columns", "last_insert_id", "rows", "rows_affected")

    def __init__(self, cursor: Any, rows: list[Any]) -> None:
        self._cursor = cursor
        self.columns = columns_of(cursor)
        self.rows = rows
        self.rows_affected: int = len(rows) if self.columns else cursor.rowcount
        self.last_insert_id: int = cursor.lastrowid

    async def drop(self) -> None:
        """Read the rows that nobody wants, if there are any."""
        await self._cursor.close()


class Database:
    """The connections to one database, those that only read under a login of their own where there is one."""

    def __init__(self, reading: Endpoint, writing: Endpoint, *, readers: Terms, writers: Terms) -> None:
        self._reading, self._writing = reading, writing
        self.readers: Lending[Any] = Lending(lambda: reading.connect(read_only=True), closed, is_usable, readers)
        self.writers: Lending[Any] = Lending(lambda: writing.connect(read_only=False), closed, is_usable, writers)
        self._stopping: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect once, to know that it works."""
        self.readers.give(await self.readers.take())

    async def close(self) -> None:
        """Close all connections, also those in the middle of a statement. Safe twice."""
        lent = [*self.readers.lent_now(), *self.writers.lent_now()]
        # Both have begun to close before either can take so long that this is cancelled.
        await asyncio.gather(self.readers.close(), self.writers.close())
        for connection in lent:
            connection.close()
        await asyncio.gather(*self._stopping, return_exceptions=True)

    @asynccontextmanager
    async def lent(self, lending: Lending[Any]) -> AsyncIterator[Any]:
        """Lend a connection; whatever it was left in the middle of is stopped."""
        connection = await lending.take()
        try:
            yield connection
        finally:
            self.give(connection, lending)

    def give(self, connection: Any, lending: Lending[Any], *, is_clean: bool = True) -> None:
        """Take a connection back; one in the middle of something is closed, and the server told to stop it."""
        is_idle = is_usable(connection) and not is_in_transaction(connection) and not _is_reading(connection)
        if not is_idle:
            self._stop(connection)
        lending.give(connection, is_broken=not (is_idle and is_clean))

    def _stop(self, connection: Any) -> None:
        """A closed connection does not end its statement: the server notices when it answers."""
        connection.close()
        task = asyncio.ensure_future(_kill(connection.endpoint, connection.thread_id()))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def limited(self, awaited: Awaitable[T]) -> T:
        """Await a statement within the time it may take, should the server not keep it."""
        seconds = self._writing.statement_seconds + 1.0
        try:
            async with asyncio.timeout(seconds):
                return await awaited
        except TimeoutError as error:
            message = "The statement took longer than it may; it was stopped and changed nothing."
            raise ProviderError(ErrorCode.TIMEOUT, message) from error

    async def read(self, connection: Any, sql: str, given: Sequence[Any], limit: int, max_bytes: int) -> Done:
        """Run a query and return at most ``limit`` rows, fewer when they are large."""
        if connection.select_limit != limit:
            await plain(connection, f"SET SESSION sql_select_limit = {limit}")
            connection.select_limit = limit
        try:
            return await self.limited(_run(connection, sql, given, limit, max_bytes))
        except Exception as error:
            raise explained(error) from error

    async def change(self, connection: Any, sql: str, given: Sequence[Any], limit: int, max_bytes: int) -> Done:
        """Run a change, which takes effect as a whole; ``limit`` rows at most are returned.

        Raises:
            ProviderError: ``outcome_unknown`` when the connection was lost before the answer.
        """
        try:
            return await self.limited(_run(connection, sql, given, limit, max_bytes))
        except Exception as error:
            raise unknown(error) if is_lost(error) else explained(error) from error

    async def session(self, *, read_only: bool, isolation: str | None = None) -> MysqlSession:
        """Begin a transaction on a connection of its own.

        Raises:
            ProviderError: ``unavailable`` when no connection became free.
        """
        lending = self.readers if read_only else self.writers
        connection = await lending.take()
        try:
            level = LEVELS[isolation] if isolation else "REPEATABLE READ" if read_only else "READ COMMITTED"
            await plain(connection, f"SET TRANSACTION ISOLATION LEVEL {level}")
            snapshot = "WITH CONSISTENT SNAPSHOT, " if level == "REPEATABLE READ" else ""
            await plain(connection, f"START TRANSACTION {snapshot}READ {'ONLY' if read_only else 'WRITE'}")
        except BaseException:
            self.give(connection, lending, is_clean=False)
            raise
        return MysqlSession(self, connection, lending)


LEVELS = {
    "read_committed": "READ COMMITTED",
    "repeatable_read": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}
"""InnoDB's repeatable read is no snapshot for changes: they see and overwrite what was committed meanwhile."""


class MysqlSession:
    """An open transaction; a statement in it that fails undoes itself alone, unless it was in a deadlock."""

    def __init__(self, database: Database, connection: Any, lending: Lending[Any]) -> None:
        self._database = database
        self.connection = connection
        self._lending = lending
        self._is_undone = False
        self._is_clean = True

    def is_open(self) -> bool:
        return is_usable(self.connection) and not self._is_undone

    async def commit(self) -> None:
        try:
            await self.connection.query("COMMIT")
        except Exception as error:
            raise unknown(error) if is_lost(error) else explained(error) from error

    async def rollback(self) -> None:
        await plain(self.connection, "ROLLBACK")

    async def savepoint(self, name: str) -> None:
        await plain(self.connection, f"SAVEPOINT user_{name}")

    async def rollback_to(self, name: str) -> None:
        await plain(self.connection, f"ROLLBACK TO SAVEPOINT user_{name}")

    def interrupt(self) -> None:
        self.connection.close()

    def release(self) -> None:
        self._database.give(self.connection, self._lending, is_clean=self._is_clean)

    def require_reset(self) -> None:
        """Have the connection closed at the end: it may hold a lock or a setting."""
        self._is_clean = False

    async def read(self, sql: str, given: Sequence[Any], limit: int, max_bytes: int) -> Done:
        """Run a query; rows that are too many are read and dropped, since the connection is needed on."""
        done = await self._noting(self._database.read(self.connection, sql, given, limit, max_bytes))
        await done.drop()
        return done

    async def change(self, sql: str, given: Sequence[Any], limit: int, max_bytes: int) -> Done:
        """Run a change: all of it, or nothing."""
        done = await self._noting(self._database.change(self.connection, sql, given, limit, max_bytes))
        await done.drop()
        return done

    async def _noting(self, awaited: Awaitable[Done]) -> Done:
        try:
            return await awaited
        except ProviderError as error:
            if error.__cause__ is not None and number_of(error.__cause__) == DEADLOCK:
                self._is_undone = True
            raise

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[None]:
        """Within, all takes effect or nothing; the transaction goes on either way."""
        await plain(self.connection, "SAVEPOINT erp_statement")
        try:
            yield
            await plain(self.connection, "RELEASE SAVEPOINT erp_statement")
        except Exception:
            if self.is_open():
                with suppress(ProviderError):
                    await plain(self.connection, "ROLLBACK TO SAVEPOINT erp_statement")
            raise


async def _kill(endpoint: Endpoint, number: int) -> None:
    """End a connection by another one of the same login, which needs no right for that."""
    with suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(RECOVER_SECONDS):
            helper = await endpoint.connect(read_only=True)
            try:
                await plain(helper, f"KILL CONNECTION {number}")
            finally:
                await closed(helper)


def _is_reading(connection: Any) -> bool:
    """Whether rows are still to come."""
    result = connection._result  # noqa: SLF001  (the driver tells nowhere else)
    return result is not None and bool(result.unbuffered_active)


async def _run(connection: Any, sql: str, given: Sequence[Any], limit: int, max_bytes: int) -> Done:
    cursor = await opened(connection, sql, given)
    rows: list[Any] = []
    size = 0
    while cursor.description is not None and len(rows) < limit and size <= max_bytes:
        more = await cursor.fetchmany(min(CHUNK, limit - len(rows)))
        if not more:
            break
        rows += more
        size += sum(map(weight, more))
    return Done(cursor, rows)


async def opened(connection: Any, sql: str, given: Sequence[Any]) -> Any:
    """Run a statement, whose rows are fetched as they are wanted."""
    from asyncmy.cursors import SSCursor

    cursor = connection.cursor(SSCursor)
    # Without values the driver would take the doubled percent signs for what they look like.
    await cursor.execute(sql, tuple(given))
    return cursor


def columns_of(cursor: Any) -> list[Column]:
    """Name and type of the columns of an answer."""
    names = _type_names()
    return [Column(name=one[0], type=names.get(one[1], str(one[1]))) for one in cursor.description or ()]


@cache
def _type_names() -> dict[int, str]:
    from asyncmy.constants import FIELD_TYPE

    return {value: key.lower() for key, value in vars(FIELD_TYPE).items() if isinstance(value, int)}
