"""One SQLite file written by one thread; whatever waits when a transaction begins shares it.

GroupCommit(path, schema)   the file and its thread
  .open(), .close()
  .run(work)                ``work(connection)`` in a transaction; returns once it is durable

A process that dies loses no work whose ``run`` had returned, and nothing is half done: WAL, synchronous = FULL.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

MAX_BATCH = 256
BUSY_SECONDS = 5.0


class GroupCommit:
    """Every piece of work is durable when its caller goes on, and commits are shared."""

    def __init__(self, path: Path, schema: str, *, title: str) -> None:
        """``schema``: statements that create what is missing; ``title`` names the store in messages."""
        self._path = path
        self._schema = schema
        self._title = title
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._queue: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._committer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the file, creating what is missing.

        Raises:
            ProviderError: ``unavailable`` when it cannot be opened or written.
        """
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix=self._path.stem)
        try:
            self._connection = await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        except sqlite3.Error as error:
            raise self._explained(error) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(self._schema)
        except sqlite3.Error:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        return connection

    async def close(self) -> None:
        """Finish what is waiting, then close the file. Safe twice and without ``open``."""
        while self._committer is not None:
            await asyncio.wait([self._committer])
        connection, self._connection = self._connection, None
        if connection is not None and self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in a transaction and return its result once it is durable; its failure undoes it alone.

        Cancelled while it waits, ``work`` does not run; cancelled later, it takes effect.

        Raises:
            ProviderError: ``unavailable`` when nothing could be stored.
        """
        if self._connection is None:
            message = f"The {self._title} is closed."
            raise ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit(), name=f"{self._title} committer")
        return await future

    async def _commit(self) -> None:
        try:
            while self._queue and self._connection is not None:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
                await self._commit_batch(self._connection, batch)
        finally:
            self._committer = None

    async def _commit_batch(
        self, connection: sqlite3.Connection, batch: list[tuple[Work, asyncio.Future[Any]]]
    ) -> None:
        wanted = [(work, future) for work, future in batch if not future.done()]
        works = [work for work, _ in wanted]
        try:
            run = asyncio.get_running_loop().run_in_executor
            outcomes = await run(self._thread, self._transaction, connection, works)
        except RuntimeError as error:
            # The interpreter is going down and its threads take no more work; the callers must not wait for ever.
            gone = ProviderError(ErrorCode.UNAVAILABLE, f"The {self._title} is closing.", detail=str(error))
            outcomes = [gone] * len(works)
        for (_, future), outcome in zip(wanted, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _transaction(self, connection: sqlite3.Connection, works: list[Work]) -> list[Any]:
        """Run all works in one transaction, each undone alone when it fails; return results or exceptions."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._isolated(connection, work) for work in works]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            return [self._explained(error)] * len(works)
        return outcomes

    def _isolated(self, connection: sqlite3.Connection, work: Work) -> Any:
        connection.execute("SAVEPOINT work")
        try:
            result = work(connection)
        except Exception as error:  # noqa: BLE001  (handed to the one caller it belongs to)
            connection.execute("ROLLBACK TO work")
            result = self._explained(error) if isinstance(error, sqlite3.Error) else error
        connection.execute("RELEASE work")
        return result

    def _explained(self, error: sqlite3.Error) -> ProviderError:
        name = getattr(error, "sqlite_errorname", "")
        is_full = name == "SQLITE_FULL"
        text = "The disk is full; nothing was stored." if is_full else f"The {self._title} cannot be written now."
        return ProviderError(ErrorCode.UNAVAILABLE, text, detail=f"{name}: {error}", retry_after_seconds=1.0)
