"""Changes, many to one commit.

A commit costs more than most changes: it waits for the disk. So whatever waits when a transaction begins shares it, each
change behind a savepoint of its own, and is answered once all of it is durable. A change that ends the transaction for
the others (``INSERT OR ROLLBACK``, an interrupt, a constraint that is checked at the commit) makes each of them run in a
transaction of its own instead.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from erp.providers.db.sqlite.connections import BUSY_SECONDS, INTERRUPT_EVERY_SECONDS, GuardedConnection, Lending
from erp.providers.db.sqlite.failures import closed, explained
from erp.runtime.spi import ErrorCode, ProviderError

T = TypeVar("T")
Changing = Callable[[GuardedConnection, Callable[[GuardedConnection], Any]], Any]

MOST_AT_ONCE = 64
SHARED_SECONDS = 0.02
"""A transaction that has lasted longer takes no further change along: those it has wait for it."""


class _Change:
    """A piece of work and whoever waits for it."""

    __slots__ = (
        "failure",
        "future",
        "has_begun",
        "has_ended",
        "is_dropped",
        "is_settled",
        "result",
        "stopped",
        "timer",
        "work",
    )

    def __init__(self, work: Callable[[GuardedConnection], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.timer: asyncio.TimerHandle | None = None
        self.stopped: asyncio.Future[None] | None = None
        """Set when it has ended although its caller was cancelled."""
        self.result: Any = None
        self.failure: BaseException | None = None
        self.has_begun = False
        self.has_ended = False
        self.is_dropped = False
        self.is_settled = False
        """Whether it is not to be run again when the transaction it was in is lost: it was stopped itself."""


class Writes:
    """Runs changes on the one connection of ``writers``, in the order of asking."""

    def __init__(
        self, writers: Lending, threads: ThreadPoolExecutor, statement_seconds: float, changing: Changing
    ) -> None:
        """``changing`` runs a piece of work under the rules for changes."""
        self._writers = writers
        self._threads = threads
        self._statement_seconds = statement_seconds
        self._changing = changing
        self._waiting: deque[_Change] = deque()
        self._lock = threading.Lock()
        """Held while a change begins, ends, or is interrupted: an interrupt must hit no other change."""
        self._current: tuple[_Change, GuardedConnection] | None = None
        self._committer: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many changes wait for the next transaction."""
        return len(self._waiting)

    async def run(self, work: Callable[[GuardedConnection], T]) -> T:
        """Run ``work`` and return once it is durable; when cancelled, stop it and wait until it has stopped.

        Raises:
            ProviderError: ``unavailable`` when a transaction or a long change holds the connection.
        """
        loop = asyncio.get_running_loop()
        change = _Change(work, loop.create_future())
        change.timer = loop.call_later(BUSY_SECONDS, self._give_up, change)
        self._waiting.append(change)
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit(), name="db-sqlite committer")
        try:
            result: T = await change.future
        except asyncio.CancelledError:
            await self._stop(change)
            raise
        finally:
            change.timer.cancel()
        return result

    def refuse(self, failure: ProviderError) -> None:
        """End all that wait, with ``failure``."""
        with self._lock:
            refused = [change for change in self._waiting if not change.has_begun]
            self._waiting.clear()
        for change in refused:
            _answer(change, failure)

    # -- in the loop -----------------------------------------------------------------------------

    async def _commit(self) -> None:
        try:
            while self._waiting:
                connection = await self._writers.take()
                changes = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
                try:
                    await self._performed(connection, changes)
                finally:
                    self._writers.give(connection)
                for change in changes:
                    if change.has_ended:
                        _answer(change, change.failure)
        finally:
            self._committer = None

    async def _performed(self, connection: GuardedConnection, changes: list[_Change]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._perform, connection, changes)
        except sqlite3.Error as error:
            for change in changes:
                change.failure, change.has_ended = _explained(error), True
        except RuntimeError:
            # The threads take no more work: the database is being closed.
            for change in changes:
                change.failure, change.has_ended = closed(), True

    def _give_up(self, change: _Change) -> None:
        with self._lock:
            if change.has_begun:
                return
            change.is_dropped = True
        message = "Another transaction or a long change holds the one writer. Try again when it has ended."
        _answer(change, ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0))

    async def _stop(self, change: _Change) -> None:
        """Interrupt until ``change`` has ended: an interrupt does nothing to a statement that begins after it."""
        change.stopped = asyncio.get_running_loop().create_future()
        with self._lock:
            change.is_dropped = True
        while change.has_begun and not change.has_ended:
            with self._lock:
                if self._current is not None and self._current[0] is change:
                    self._current[1].interrupt()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({change.stopped}, timeout=INTERRUPT_EVERY_SECONDS)

    # -- in a thread -----------------------------------------------------------------------------

    def _perform(self, connection: GuardedConnection, changes: list[_Change]) -> None:
        """Run what fits into one transaction; what does not waits again, before all others."""
        done = self._shared(connection, changes) if len(changes) > 1 else None
        if done is None:
            done = len(changes)
            for change in changes:
                if not change.is_settled:
                    self._alone(connection, change)
        for change in changes[:done]:
            change.has_ended = True
        self._waiting.extendleft(reversed(changes[done:]))

    def _shared(self, connection: GuardedConnection, changes: list[_Change]) -> int | None:
        """Run changes in one transaction; return how many are done, or None when it was lost and nothing is."""
        try:
            begun(connection)
        except sqlite3.Error as error:
            for change in changes:
                change.failure = _explained(error)
            return len(changes)
        ends_at = time.monotonic() + SHARED_SECONDS
        done = 0
        try:
            for change in changes:
                self._behind_savepoint(connection, change)
                done += 1
                if not connection.in_transaction:
                    return None
                if time.monotonic() > ends_at:
                    break
            committed(connection)
        except sqlite3.Error:
            rolled_back(connection)
            return None
        return done

    def _behind_savepoint(self, connection: GuardedConnection, change: _Change) -> None:
        connection.execute("SAVEPOINT one_of_many")
        self._run(connection, change)
        if connection.in_transaction:
            if change.failure is not None:
                connection.execute("ROLLBACK TO one_of_many")
            connection.execute("RELEASE one_of_many")

    def _alone(self, connection: GuardedConnection, change: _Change) -> None:
        try:
            begun(connection)
            self._run(connection, change)
            if change.failure is None:
                committed(connection)
        except sqlite3.Error as error:
            change.failure = _explained(error)
        finally:
            rolled_back(connection)

    def _run(self, connection: GuardedConnection, change: _Change) -> None:
        change.result = change.failure = None
        with self._lock:
            if change.is_dropped:
                change.failure = closed()
                return
            change.has_begun = True
            self._current = (change, connection)
        connection.ends_at = time.monotonic() + self._statement_seconds
        try:
            change.result = self._changing(connection, change.work)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            change.failure = _explained(error)
            change.is_settled = getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT"
        except Exception as error:  # noqa: BLE001  (whoever waits shall have it; cancellation never reaches this thread)
            change.failure = error
        finally:
            connection.ends_at = math.inf
            with self._lock:
                self._current = None


def _answer(change: _Change, failure: BaseException | None) -> None:
    if change.stopped is not None and not change.stopped.done():
        change.stopped.set_result(None)
    if change.future.done():
        return
    if failure is None:
        change.future.set_result(change.result)
    else:
        change.future.set_exception(failure)


def _explained(error: sqlite3.Error | UnicodeEncodeError) -> ProviderError:
    failure = explained(error)
    failure.__cause__ = error
    return failure


def begun(connection: GuardedConnection) -> None:
    """Begin a transaction that changes; in SQLite it waits here for those of other processes."""
    if connection.in_transaction:
        # An interrupt can hit a ROLLBACK too.
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")


def committed(connection: GuardedConnection) -> None:
    """Make the transaction durable, however long the disk takes."""
    connection.ends_at = math.inf
    connection.execute("COMMIT")


def rolled_back(connection: GuardedConnection) -> None:
    """Undo the transaction, if there is one and SQLite has not done so itself."""
    connection.ends_at = math.inf
    if connection.in_transaction:
        connection.execute("ROLLBACK")
