"""Short reads, many to one trip into a thread.

A trip costs more than a read by key. So a thread that has a connection goes on with whatever reads wait, and the
results of several are handed back together.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from erp.providers.db.sqlite.connections import INTERRUPT_EVERY_SECONDS, GuardedConnection, Lending
from erp.providers.db.sqlite.failures import closed, explained

T = TypeVar("T")

SPREAD_SECONDS = 0.001
"""How long a read waits behind others before one more connection is used."""


class _Read:
    """A piece of work, the connection it runs on, and whoever waits for it."""

    __slots__ = ("connection", "failure", "future", "has_ended", "is_dropped", "result", "work")

    def __init__(self, work: Callable[[GuardedConnection], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.connection: GuardedConnection | None = None
        self.result: Any = None
        self.failure: BaseException | None = None
        self.has_ended = False
        self.is_dropped = False


class Reads:
    """Runs reads on the connections of ``readers``, each in the order of asking."""

    def __init__(self, readers: Lending, threads: ThreadPoolExecutor, statement_seconds: float) -> None:
        self._readers = readers
        self._threads = threads
        self._statement_seconds = statement_seconds
        self._waiting: deque[_Read] = deque()
        self._ended: deque[_Read] = deque()
        self._lock = threading.Lock()
        """Held while a read gets its connection, gives it up, or is interrupted: an interrupt must hit no other read."""
        self._is_announced = False
        self._trips = 0
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[[GuardedConnection], T]) -> T:
        """Run ``work`` on a reader; when cancelled, stop it and wait until it has stopped."""
        loop = asyncio.get_running_loop()
        read = _Read(work, loop.create_future())
        self._waiting.append(read)
        if not self._trips:
            self._start(loop)
        elif self._timer is None:
            self._timer = loop.call_later(SPREAD_SECONDS, self._spread, loop)
        try:
            result: T = await read.future
        except asyncio.CancelledError:
            await self._stop(read)
            raise
        return result

    # -- in the loop -----------------------------------------------------------------------------

    def _start(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Begin one more trip, if a connection is idle."""
        connection = self._readers.take_idle()
        if connection is None:
            # Streams or other trips hold all of them; whoever gives one back lets the reads go on.
            self._readers.when_given(lambda: self._start_waiting(loop))
            return False
        self._trips += 1
        try:
            self._threads.submit(self._trip, loop, connection)
        except RuntimeError:
            self.refuse(closed())
            self._returned(loop, connection)
        return True

    def _start_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting:
            self._start(loop)

    def _spread(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiting and self._start(loop):
            self._timer = loop.call_later(SPREAD_SECONDS, self._spread, loop)

    def _returned(self, loop: asyncio.AbstractEventLoop, connection: GuardedConnection) -> None:
        self._trips -= 1
        self._readers.give(connection)
        self._announce()
        if self._waiting and not self._trips:
            self._start(loop)

    def _announce(self) -> None:
        self._is_announced = False
        while self._ended:
            read = self._ended.popleft()
            if read.future.done():
                continue
            if read.failure is None:
                read.future.set_result(read.result)
            else:
                read.future.set_exception(read.failure)

    async def _stop(self, read: _Read) -> None:
        """Interrupt until ``read`` has ended: an interrupt does nothing to a statement that begins after it."""
        with self._lock:
            read.is_dropped = True
            runs = read.connection is not None
        while runs and not read.has_ended:
            with self._lock:
                if read.connection is not None:
                    read.connection.interrupt()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(INTERRUPT_EVERY_SECONDS)

    def refuse(self, failure: BaseException) -> None:
        """End all that wait, with ``failure``."""
        while self._waiting:
            read = self._waiting.popleft()
            if not read.future.done():
                read.future.set_exception(failure)

    # -- in a thread -----------------------------------------------------------------------------

    def _trip(self, loop: asyncio.AbstractEventLoop, connection: GuardedConnection) -> None:
        while self._waiting:
            try:
                read = self._waiting.popleft()
            except IndexError:
                # Another trip took it.
                break
            if self._begin(read, connection):
                self._perform(read, connection)
                self._ended.append(read)
            if self._waiting and not self._is_announced:
                self._is_announced = True
                loop.call_soon_threadsafe(self._announce)
        loop.call_soon_threadsafe(self._returned, loop, connection)

    def _begin(self, read: _Read, connection: GuardedConnection) -> bool:
        with self._lock:
            if read.is_dropped:
                return False
            read.connection = connection
        connection.ends_at = time.monotonic() + self._statement_seconds
        return True

    def _perform(self, read: _Read, connection: GuardedConnection) -> None:
        try:
            read.result = read.work(connection)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            failure = explained(error)
            failure.__cause__ = error
            read.failure = failure
        except Exception as error:  # noqa: BLE001  (whoever waits shall have it; cancellation never reaches this thread)
            read.failure = error
        with self._lock:
            read.connection = None
            read.has_ended = True
