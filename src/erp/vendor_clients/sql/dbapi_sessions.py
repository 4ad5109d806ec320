"""Sessions on a blocking driver (PEP 249): one connection each, whose work runs in a thread.

What vendors differ in is an ``Engine``; all of its methods run in a thread, one at a time for each connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from erp.contracts.models.db import (
    Column,
    Effect,
    ExecuteBatchResult,
    ExecuteResult,
)
from erp.runtime.spi import ErrorCode, FieldError, ProviderError, UnsetType
from erp.vendor_clients.sql.leaving_threads import LeavingThreads, LeftRunningError
from erp.vendor_clients.sql.pages import CHUNK
from erp.vendor_clients.sql.values import fitted, shown

T = TypeVar("T")
MAX_RETURNED_ROWS = 100_000


class Engine(Protocol):
    """What a vendor's driver and SQL are like."""

    savepoint_sql: str
    """Names a point of a transaction, ``{name}``; empty where there are none."""
    rollback_to_sql: str

    def connect(self, *, read_only: bool) -> Any:
        """Open a connection in which each statement takes effect at once."""

    def begin(self, connection: Any, *, read_only: bool, isolation: str | None) -> None:
        """Begin a transaction."""

    def commit(self, connection: Any) -> None:
        """Make it durable."""

    def rollback(self, connection: Any) -> None:
        """Undo it."""

    def run(self, connection: Any, sql: str, given: Sequence[Any]) -> Any:
        """Run one statement; return its cursor."""

    def columns(self, cursor: Any) -> list[Column]:
        """Name the columns of an answer; none for a change that returns no rows."""

    def rows(self, cursor: Any, count: int) -> list[Any]:
        """Return the next rows."""

    def affected(self, cursor: Any) -> int:
        """Return how many rows a change has affected."""

    def stop(self, connection: Any) -> None:
        """Have the server end what runs; returns at once. Called from another thread, maybe again and again."""

    def is_usable(self, connection: Any) -> bool:
        """Whether the connection is open, as far as this side knows."""

    def explained(self, error: Exception) -> ProviderError:
        """Return an error of the driver as the contract names it."""

    def is_lost(self, error: Exception) -> bool:
        """Whether the connection ended, so that nobody knows what became of the statement."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as it runs."""

    sql: str
    given: Sequence[Any]
    returns: bool = False
    """Whether a change answers rows."""
    is_shaping: bool = False
    """Whether it commits whatever is open."""


class DbapiSession:
    """One connection, whose work runs in a thread; a transaction may be open on it."""

    def __init__(self, engine: Engine, connection: Any, threads: LeavingThreads, seconds: float) -> None:
        self._engine = engine
        self.connection = connection
        self._threads = threads
        self._seconds = seconds
        self._release: Callable[[DbapiSession], None] | None = None
        self._is_in_transaction = False
        self._is_lost = False
        self._is_running = False
        self.is_left = False
        """Whether work goes on that could not be stopped; the connection is closed after it."""

    async def run(self, work: Callable[[Any], T], *, is_change: bool = False) -> T:
        """Run ``work`` on the connection, its failures explained.

        Raises:
            ProviderError: ``outcome_unknown`` when the connection was lost in a change.
        """
        try:
            return await self._threads.run(
                lambda: self._explained(work, is_change=is_change),
                stop=lambda: self._engine.stop(self.connection),
                late=lambda _: self.connection.close(),
                seconds=self._seconds + 1.0,
            )
        except LeftRunningError as error:
            self._is_lost = self.is_left = True
            raise (_unknown(error) if is_change else _silent()) from error
        except ProviderError:
            raise
        except BaseException:
            # Whatever it was in the middle of, nobody else shall have it.
            self._is_lost = True
            self.is_left = self._is_running
            raise

    def _explained(self, work: Callable[[Any], T], *, is_change: bool) -> T:
        self._is_running = True
        try:
            return work(self.connection)
        except ProviderError:
            raise
        except Exception as error:
            self._is_lost = self._is_lost or self._engine.is_lost(error)
            if is_change and self._is_lost:
                raise _unknown(error) from error
            raise self._engine.explained(error) from error
        finally:
            self._is_running = False

    # -- a transaction ---------------------------------------------------------------------------

    async def begin(self, *, read_only: bool, isolation: str | None, release: Callable[[DbapiSession], None]) -> None:
        """Begin a transaction; ``release`` takes the connection back at its end."""
        await self.run(lambda connection: self._engine.begin(connection, read_only=read_only, isolation=isolation))
        self._is_in_transaction, self._release = True, release

    def is_open(self) -> bool:
        """Whether the transaction is there, as far as this side knows."""
        return self._is_in_transaction and self.is_usable()

    def is_usable(self) -> bool:
        """Whether the connection can be used."""
        return not self._is_lost and self._engine.is_usable(self.connection)

    async def commit(self) -> None:
        """Make it durable."""
        await self.run(self._engine.commit, is_change=True)
        self._is_in_transaction = False

    async def rollback(self) -> None:
        """Undo it."""
        await self.run(self._engine.rollback)
        self._is_in_transaction = False

    async def savepoint(self, name: str) -> None:
        """Name this point."""
        await self._plain(self._engine.savepoint_sql.format(name=f"user_{name}"))

    async def rollback_to(self, name: str) -> None:
        """Undo what happened since the point ``name``."""
        await self._plain(self._engine.rollback_to_sql.format(name=f"user_{name}"))

    async def _plain(self, sql: str) -> None:
        await self.run(lambda connection: self._engine.run(connection, sql, ()))

    def interrupt(self) -> None:
        """Stop the statement that runs, if one does."""
        self._engine.stop(self.connection)

    def release(self) -> None:
        """Give the connection back."""
        if self._release is not None:
            self._release(self)

    # -- statements ------------------------------------------------------------------------------

    async def cursor(self, statement: Prepared, first: int) -> DriverCursor:
        """Run a query and fetch its first rows with it."""

        def work(connection: Any) -> tuple[Any, list[Column], list[Any]]:
            cursor = self._engine.run(connection, statement.sql, statement.given)
            columns = self._engine.columns(cursor)
            if not columns:
                message = "The statement is not a query. Use execute to change something."
                raise ProviderError(ErrorCode.INVALID_ARGUMENT, message)
            return cursor, columns, self._engine.rows(cursor, first)

        cursor, columns, ahead = await self.run(work)
        return DriverCursor(self, self._engine, cursor, columns, ahead, first)

    async def change(self, statement: Prepared, max_bytes: int, *, is_alone: bool) -> ExecuteResult:
        """Run a change, as a whole; one that is alone is committed once its rows are known to fit an answer."""

        def work(connection: Any) -> ExecuteResult:
            if not (is_alone and statement.returns):
                return self._changed(connection, statement, max_bytes)
            self._engine.begin(connection, read_only=False, isolation=None)
            try:
                result = self._changed(connection, statement, max_bytes)
                self._engine.commit(connection)
            except BaseException:
                self._engine.rollback(connection)
                raise
            return result

        return await self.run(work, is_change=True)

    def _changed(self, connection: Any, statement: Prepared, max_bytes: int) -> ExecuteResult:
        cursor = self._engine.run(connection, statement.sql, statement.given)
        if not statement.returns:
            return ExecuteResult(rows_affected=max(0, self._engine.affected(cursor)))
        rows: list[Any] = []
        while more := self._engine.rows(cursor, CHUNK):
            rows += more
            if fitted(rows, MAX_RETURNED_ROWS, max_bytes) < len(rows):
                message = (
                    f"The returned rows are larger than an answer may be ({max_bytes} bytes); nothing was changed."
                )
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        columns = self._engine.columns(cursor)
        return ExecuteResult(rows_affected=len(rows), columns=columns, rows=[shown(row) for row in rows])

    async def batch(self, statements: Sequence[tuple[Prepared, int | UnsetType]], max_bytes: int) -> ExecuteBatchResult:
        """Run several changes; the first that fails ends them, and whoever called undoes what came before."""
        results = []
        for number, (statement, expected) in enumerate(statements):
            done = await self.change(statement, max_bytes, is_alone=False)
            if not isinstance(expected, UnsetType) and done.rows_affected != expected:
                wrong = FieldError(
                    f"/params/statements/{number}/expect_rows", f"is {expected}, and {done.rows_affected} were affected"
                )
                message = "A statement of the batch did not affect the expected rows; nothing was changed."
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message, errors=[wrong])
            results.append(Effect(rows_affected=done.rows_affected))
        return ExecuteBatchResult(results=results)


class DriverCursor:
    """A cursor of the driver's, read in the connection's thread."""

    def __init__(
        self, session: DbapiSession, engine: Engine, cursor: Any, columns: list[Column], ahead: list[Any], asked: int
    ) -> None:
        self.columns = columns
        self._session = session
        self._engine = engine
        self._cursor = cursor
        self._ahead = ahead
        self._is_at_end = len(ahead) < asked

    async def fetch(self, count: int) -> Sequence[Any]:
        """Return the next ``count`` rows; fewer at the end."""
        rows, self._ahead = self._ahead[:count], self._ahead[count:]
        missing = count - len(rows)
        if not missing or self._is_at_end:
            return rows
        more = await self._session.run(lambda _: self._engine.rows(self._cursor, missing))
        self._is_at_end = len(more) < missing
        return rows + more

    async def close(self) -> None:
        """Give it up."""
        if self._session.is_usable():
            await self._session.run(lambda _: self._cursor.close())


def _unknown(error: Exception) -> ProviderError:
    message = "The connection was lost before the server answered; the change may have taken effect."
    return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=type(error).__name__)


def _silent() -> ProviderError:
    return ProviderError(ErrorCode.TIMEOUT, "The database did not answer in the time that a statement may take.")
