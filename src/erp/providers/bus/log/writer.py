"""Runs work on the log in one thread; whatever waits when a transaction begins shares it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from erp.providers.bus.log import tables
from erp.runtime.spi import ErrorCode, ProviderError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

MAX_BATCH = 256


@dataclass(slots=True)
class Append:
    """The work of adding events to the log; its result: position and whether it was there before, for each."""

    events: list[tables.NewEvent]

    def __call__(self, connection: sqlite3.Connection) -> list[tuple[int, bool]]:
        return tables.append(connection, self.events)


class LogWriter:
    """Group commit: every piece of work is durable when its caller goes on, and commits are shared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bus-log")
        self._connection: sqlite3.Connection | None = None
        self._queue: deque[tuple[Work, asyncio.Future[Any]]] = deque()
        self._committer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the file."""
        try:
            connect = asyncio.get_running_loop().run_in_executor(self._thread, tables.connect, str(self._path))
            self._connection = await connect
        except sqlite3.Error as error:
            raise _explained(error) from error

    async def close(self) -> None:
        """Finish what is waiting, then close the file. Safe twice and without ``open``."""
        while self._committer is not None:
            await asyncio.wait([self._committer])
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)
        self._thread.shutdown(wait=False)

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run ``work`` in a transaction; its result is there once it is durable.

        ``work`` runs once more when other work of the same transaction fails: it must not remember anything.
        """
        if self._connection is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The event log is closed.", retry_after_seconds=1.0)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((work, future))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit(), name="bus-log committer")
        return future

    async def version(self) -> int:
        """Return a number that changes when another process has written (SQLite's ``data_version``)."""
        connection = self._connection
        if connection is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The event log is closed.", retry_after_seconds=1.0)
        read = lambda: int(connection.execute("PRAGMA data_version").fetchone()[0])  # noqa: E731  (runs in the thread)
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

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
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, _transaction, connection, works)
        except RuntimeError as error:
            # The interpreter is going down and its threads take no more work; the callers must not wait for ever.
            gone = ProviderError(ErrorCode.UNAVAILABLE, "The event log is closing.", detail=str(error))
            outcomes = [gone] * len(works)
        for (_, future), outcome in zip(wanted, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _transaction(connection: sqlite3.Connection, works: list[Work]) -> list[Any]:
    """Run all works in one transaction, each undone alone when it fails; return results or exceptions.

    Few fail. So they run without savepoints first, and once more with them when one of them has failed.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            outcomes = _all(connection, works)
        except Exception:  # noqa: BLE001  (whatever it is comes again below, and is handed to its caller)
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_isolated(connection, work) for work in works]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        return [_explained(error)] * len(works)
    return outcomes


def _all(connection: sqlite3.Connection, works: list[Work]) -> list[Any]:
    """Run the works in order; neighbours that append do it with one statement."""
    outcomes: list[Any] = []
    for is_append, run in itertools.groupby(works, lambda work: isinstance(work, Append)):
        if not is_append:
            outcomes += [work(connection) for work in run]
            continue
        lists = [cast("Append", work).events for work in run]
        found = iter(tables.append(connection, [event for events in lists for event in events]))
        outcomes += [list(itertools.islice(found, len(events))) for events in lists]
    return outcomes


def _isolated(connection: sqlite3.Connection, work: Work) -> Any:
    connection.execute("SAVEPOINT work")
    try:
        result = work(connection)
    except Exception as error:  # noqa: BLE001  (handed to the one caller it belongs to)
        connection.execute("ROLLBACK TO work")
        result = _explained(error) if isinstance(error, sqlite3.Error) else error
    connection.execute("RELEASE work")
    return result


def _explained(error: sqlite3.Error) -> ProviderError:
    name = getattr(error, "sqlite_errorname", "")
    text = "The disk is full; nothing was stored." if name == "SQLITE_FULL" else "The event log cannot be written now."
    return ProviderError(ErrorCode.UNAVAILABLE, text, detail=f"{name}: {error}", retry_after_seconds=1.0)
