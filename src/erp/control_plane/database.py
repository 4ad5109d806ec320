"""One way to run SQL: a synchronous function over a connection, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

READERS = 3
BUSY_SECONDS = 5.0
POOL_SIZE = 8
_OURS = (IntegrityError, ProgrammingError, DataError)
_SILENT = "The control plane's database does not answer."
_REASONS = {
    "SQLITE_FULL": "The disk of the control plane is full; nothing was stored.",
    "SQLITE_BUSY": "Another process holds the control plane's database.",
    "SQLITE_READONLY": "The control plane's database cannot be written.",
    "SQLITE_CANTOPEN": "The control plane's database cannot be opened: its directory is missing or cannot be written.",
    "SQLITE_IOERR": "The disk of the control plane cannot be used now.",
}
"""What SQLite's result codes (https://www.sqlite.org/rescode.html) mean for whoever has to act."""


@contextlib.contextmanager
def _unavailable_if_it_fails() -> Iterator[None]:
    """Turn what an unreachable, locked or full database raises into ``unavailable``."""
    try:
        yield
    except _OURS:
        raise
    except (DBAPIError, PoolTimeoutError, OSError) as error:
        raise ProviderError(
            ErrorCode.UNAVAILABLE,
            _reason(error),
            detail=f"{type(error).__name__}: {error}",
            retry_after_seconds=1.0,
        ) from error


def _reason(error: Exception) -> str:
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "")
    return next((text for begins, text in _REASONS.items() if name.startswith(begins)), _SILENT)


def is_held_by_another(error: ProviderError) -> bool:
    """Whether waiting may help: another process holds the file of SQLite. A full or read-only disk is not such a case."""
    name: str = getattr(getattr(error.__cause__, "orig", None), "sqlite_errorname", "")
    return name.startswith("SQLITE_BUSY")


class _Engine(Protocol):
    """What differs between the two databases."""

    dialect: sa.Dialect

    async def run(self, work: Work[T]) -> T: ...
    async def transact(self, work: Work[T]) -> T: ...
    async def count(self, work: Work[T]) -> T: ...
    async def close(self) -> None: ...


class Database:
    """Runs synchronous functions over a ``sqlalchemy.Connection`` without blocking the event loop.

    A function given to it must touch nothing but its connection and its own data: on SQLite it runs
    in another thread. When the caller is cancelled, the function may still run to its end.
    """

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.dialect = engine.dialect

    @classmethod
    def in_file(cls, path: Path) -> Database:
        """SQLite, durable at every commit (WAL, ``synchronous=FULL``)."""
        return cls(_Sqlite(path))

    @classmethod
    def at(cls, url: str) -> Database:
        """PostgreSQL at ``url``, through asyncpg."""
        from erp.control_plane.postgresql import Postgresql

        return cls(Postgresql(url))

    async def run(self, work: Work[T]) -> T:
        """Run ``work``, which only reads.

        Raises:
            ProviderError: ``unavailable`` when the database does not answer.
        """
        with _unavailable_if_it_fails():
            return await self._engine.run(work)

    async def transact(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction; when this returns, its changes are durable.

        Raises:
            ProviderError: ``unavailable`` when the database does not answer or cannot write.
        """
        with _unavailable_if_it_fails():
            return await self._engine.transact(work)

    async def count(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction whose changes survive every process, and a power failure soon.

        For what every call counts: to wait for a disk costs more than the rest of a read. SQLite writes such changes to
        its disk with the next ``transact``; PostgreSQL at once.

        Raises:
            ProviderError: ``unavailable`` when the database does not answer or cannot write.
        """
        with _unavailable_if_it_fails():
            return await self._engine.count(work)

    async def close(self) -> None:
        """Close every connection. Safe twice."""
        await self._engine.close()


_PRAGMAS = (
    "journal_mode=WAL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    # Copying the log into the file syncs both; four times the default makes it four times rarer.
    "wal_autocheckpoint=4000",
)


class _Sqlite:
    """One thread that writes, a few that read: SQLite has one writer, and WAL lets readers pass it."""

    def __init__(self, path: Path) -> None:
        self._reading = _sqlite_engine(path, readers=READERS)
        self._writing = _sqlite_engine(path, readers=0)
        self._counting = _sqlite_engine(path, readers=0, synchronous="NORMAL")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="control-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="control-write")
        self.dialect = self._writing.dialect

    async def run(self, work: Work[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def transact(self, work: Work[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)

    async def count(self, work: Work[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._count, work)

    def _read(self, work: Work[T]) -> T:
        with self._reading.connect() as connection:
            return work(connection)

    def _write(self, work: Work[T]) -> T:
        with self._writing.begin() as connection:
            return work(connection)

    def _count(self, work: Work[T]) -> T:
        with self._counting.begin() as connection:
            return work(connection)

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._shut)

    def _shut(self) -> None:
        self._readers.shutdown()
        self._writer.shutdown()
        self._reading.dispose()
        self._writing.dispose()
        self._counting.dispose()


def _sqlite_engine(path: Path, *, readers: int, synchronous: str = "FULL") -> sa.Engine:
    """Return an engine of ``readers`` reading connections, or of one that writes."""
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.pool.QueuePool,
        pool_size=readers or 1,
        max_overflow=0,
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": BUSY_SECONDS},
    )
    begin = "BEGIN" if readers else "BEGIN IMMEDIATE"

    def prepare(connection: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        if readers:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def start(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", start)
    return engine
