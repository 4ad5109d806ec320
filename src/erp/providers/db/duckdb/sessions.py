"""One DuckDB file, opened once per process and locked up, and the sessions in which statements run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from erp.contracts.models.db import Column
from erp.providers.db.duckdb.failures import explained
from erp.providers.db.duckdb.statements import only
from erp.runtime.spi import ErrorCode, ProviderError
from erp.vendor_clients.sql.threads import Threads

T = TypeVar("T")
LOCKED = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",
    "allowed_configs": "[memory_limit, threads, max_temp_directory_size, timezone]",
    "lock_configuration": "true",
}
"""What no statement can change. The allowed four are set at each opening; statements cannot: SET is not let through."""
READING = frozenset({"SELECT"})
_WIDE = frozenset({"HUGEINT", "UHUGEINT", "UBIGINT", "BIGNUM"})
_EXACT = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine may use."""

    threads: int = 2
    memory_megabytes: int = 512
    spill_megabytes: int = 1024
    statement_seconds: float = 30.0


def opened(path: Path, limits: Limits) -> Any:
    """Open the file, or share it when this process has it open already; the newest limits hold for all.

    Raises:
        ProviderError: ``unavailable`` when another process has it.
    """
    import duckdb

    try:
        handle = duckdb.connect(str(path), config=dict(LOCKED))
        handle.execute("SET GLOBAL TimeZone = 'UTC'")
        handle.execute(f"SET GLOBAL threads = {limits.threads}")
        handle.execute(f"SET GLOBAL memory_limit = '{limits.memory_megabytes}MB'")
        handle.execute(f"SET GLOBAL max_temp_directory_size = '{limits.spill_megabytes}MB'")
    except duckdb.Error as error:
        raise explained(error) from error
    return handle


class ResultCursor:
    """The open result of a session, until the session runs something else."""

    def __init__(self, session: Session, names: list[Column], ahead: list[Any], asked: int) -> None:
        self.columns = names
        self._session = session
        self._result = session.result
        self._ahead = ahead
        self._is_at_end = len(ahead) < asked

    async def fetch(self, count: int) -> Sequence[Any]:
        """Return the next ``count`` rows; fewer at the end.

        Raises:
            ProviderError: ``failed_precondition`` when the session has run something else.
        """
        rows, self._ahead = self._ahead[:count], self._ahead[count:]
        missing = count - len(rows)
        if not missing or self._is_at_end:
            return rows
        if self._result != self._session.result:
            message = "Another statement of the transaction came in between, and DuckDB keeps one result. Start again."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        more = await self._session.fetch(missing)
        self._is_at_end = len(more) < missing
        return rows + more

    async def close(self) -> None:
        """DuckDB gives a result up with the next statement."""


class Session:
    """A connection to the engine. One piece of work at a time, in a thread; a transaction may be open between them."""

    def __init__(self, handle: Any, threads: Threads, seconds: float) -> None:
        self._handle = handle
        self._threads = threads
        self._seconds = seconds
        self._is_in_transaction = False
        self._has_failed = False
        self._engine_failed = False
        self._release: Callable[[Session], None] | None = None
        self.is_usable = True
        self.result = 0
        """Number of the result that is open; any other statement ends it."""

    async def run(self, work: Callable[[Any], T], *, is_change: bool = False) -> T:
        """Run ``work`` within the time a statement may take, its failures explained."""
        self.result += 1
        return await self._run(work, is_change=is_change)

    async def fetch(self, count: int) -> list[Any]:
        """Return the next rows of the open result."""
        return await self._run(lambda handle: fetched(handle, count))

    async def _run(self, work: Callable[[Any], T], *, is_change: bool = False) -> T:
        self._engine_failed = False
        try:
            return await self._threads.run(
                lambda: self._explained(work), stop=self._handle.interrupt, seconds=self._seconds
            )
        except BaseException as error:
            is_undone = is_change or self._engine_failed or not isinstance(error, ProviderError)
            if self._is_in_transaction:
                self._has_failed = self._has_failed or is_undone
            else:
                # It may have been interrupted while it rolled back.
                self.is_usable = False
            raise

    def _explained(self, work: Callable[[Any], T]) -> T:
        import duckdb

        try:
            return work(self._handle)
        except duckdb.Error as error:
            self._engine_failed = True
            raise explained(error) from error

    # -- statements, in a thread -----------------------------------------------------------------

    def reading(self, sql: str, parameters: Any, work: Callable[[Any], T]) -> Callable[[Any], T]:
        """Return work that runs a query and then ``work`` on its result; read-only unless a transaction is open."""

        def run(handle: Any) -> T:
            if self._is_in_transaction:
                handle.execute(only(handle, sql, READING), parameters)
                return work(handle)
            handle.execute("BEGIN TRANSACTION READ ONLY")
            try:
                handle.execute(only(handle, sql, READING), parameters)
                return work(handle)
            finally:
                handle.execute("ROLLBACK")

        return run

    def changing(self, work: Callable[[Any], T]) -> Callable[[Any], T]:
        """Return work that takes effect as a whole; inside a transaction with the rest of it."""

        def run(handle: Any) -> T:
            if self._is_in_transaction:
                return work(handle)
            handle.execute("BEGIN TRANSACTION")
            try:
                result = work(handle)
                handle.execute("COMMIT")
            except BaseException:
                undone(handle)
                raise
            return result

        return run

    # -- a transaction ---------------------------------------------------------------------------

    async def begin(self, *, read_only: bool, release: Callable[[Session], None]) -> None:
        """Begin a transaction, which sees the database as it is now and what it changes itself."""

        def work(handle: Any) -> None:
            handle.execute("BEGIN TRANSACTION READ ONLY" if read_only else "BEGIN TRANSACTION")
            # The snapshot is taken by the first statement, not by BEGIN.
            handle.execute("SELECT count(*) FROM duckdb_tables()").fetchall()

        await self.run(work)
        self._is_in_transaction, self._has_failed, self._release = True, False, release

    def is_open(self) -> bool:
        """Whether the transaction is there; one that failed is, until it is rolled back."""
        return self._is_in_transaction

    def require_sound(self) -> None:
        """Refuse work after a failure: DuckDB would undo everything at the commit without a word.

        Raises:
            ProviderError: ``failed_precondition``.
        """
        if self._has_failed:
            message = "A statement of the transaction has failed, which undoes all of it in DuckDB. Roll it back."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)

    async def commit(self) -> None:
        """Make it durable."""
        self.require_sound()
        await self.run(lambda handle: handle.execute("COMMIT") and None, is_change=True)
        self._is_in_transaction = False

    async def rollback(self) -> None:
        """Undo it."""
        await self.run(undone)
        self._is_in_transaction = self._has_failed = False

    def interrupt(self) -> None:
        """Stop the statement that runs, if one does."""
        self._handle.interrupt()

    async def savepoint(self, name: str) -> None:
        """DuckDB has no savepoints."""
        raise ProviderError(ErrorCode.UNSUPPORTED, f"DuckDB has no savepoints, so none is named {name}.")

    async def rollback_to(self, name: str) -> None:
        """DuckDB has no savepoints."""
        await self.savepoint(name)

    def release(self) -> None:
        """Give the connection back after its transaction."""
        self.is_usable = self.is_usable and not self._is_in_transaction
        if self._release is not None:
            self._release(self)

    async def close(self) -> None:
        """Close the connection; nothing may run on it."""
        self._handle.close()


def undone(handle: Any) -> None:
    """Roll back, unless DuckDB has done so itself."""
    import duckdb

    try:
        handle.execute("ROLLBACK")
    except duckdb.TransactionException as error:
        if "no transaction is active" not in str(error):
            raise


def columns(handle: Any) -> list[Column]:
    """Name the columns of the open result."""
    return [Column(name=each[0], type=str(each[1])) for each in handle.description or ()]


def fetched(handle: Any, count: int) -> list[Any]:
    """Return the next rows; whole numbers for which JSON has no exact form are texts."""
    wide = [number for number, each in enumerate(handle.description or ()) if str(each[1]) in _WIDE]
    rows: list[Any] = handle.fetchmany(count)
    if not wide:
        return rows
    return [_exact(row, wide) for row in rows]


def _exact(row: Sequence[Any], wide: Sequence[int]) -> tuple[Any, ...]:
    values = list(row)
    for number in wide:
        if values[number] is not None and abs(values[number]) > _EXACT:
            values[number] = str(values[number])
    return tuple(values)
