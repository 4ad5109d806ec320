"""Connections of one peer, lent to one caller at a time.

Drivers have pools of their own; none of those tells how many wait, ends waiting with an answer of the contract, and
lets the caller say whether a connection has to be cleaned. Those of asyncpg cost half as much CPU time again as a
read by key.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from erp.runtime.spi import ErrorCode, ProviderError

C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How many connections there may be, and how long each is kept. Times in seconds."""

    size: int = 10
    wait_seconds: float = 5.0
    idle_seconds: float = 300.0
    life_seconds: float = 3600.0


class Lending(Generic[C]):
    """Opens connections when they are needed; the one given back last is lent first."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        close: Callable[[C], Awaitable[None]],
        is_usable: Callable[[C], bool],
        terms: Terms,
    ) -> None:
        self._connect = connect
        self._close = close
        self._is_usable = is_usable
        self._terms = terms
        self._idle: deque[tuple[C, float]] = deque()
        self._opened_at: dict[int, float] = {}
        self._lent: dict[int, C] = {}
        self._opening = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self.is_closed = False

    @property
    def size(self) -> int:
        """How many connections there are or are being opened."""
        return len(self._idle) + len(self._lent) + self._opening

    @property
    def in_use(self) -> int:
        """How many are lent."""
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """How many callers wait for one."""
        return sum(not one.done() for one in self._waiting)

    def lent_now(self) -> list[C]:
        """Return the connections that somebody has."""
        return list(self._lent.values())

    async def take(self) -> C:
        """Return a connection nobody else has; ``give`` it back.

        Raises:
            ProviderError: ``unavailable`` when none became free in time, or the lending was closed.
        """
        found = None if self._waiting else self._at_once()
        if found is not None:
            return found
        if self.size < self._terms.size and not self._waiting:
            return await self._open()
        return await self._queued()

    def _at_once(self) -> C | None:
        if self.is_closed:
            raise closed()
        while self._idle:
            connection, given_at = self._idle.pop()
            now = time.monotonic()
            is_young = now - self._opened_at[id(connection)] < self._terms.life_seconds
            if is_young and now - given_at < self._terms.idle_seconds and self._is_usable(connection):
                self._lent[id(connection)] = connection
                return connection
            self._dismiss(connection)
        return None

    async def _open(self) -> C:
        self._opening += 1
        try:
            connection = await self._connect()
        finally:
            self._opening -= 1
            self._wake()
        if self.is_closed:
            await self._close(connection)
            raise closed()
        self._opened_at[id(connection)] = time.monotonic()
        self._lent[id(connection)] = connection
        return connection

    async def _queued(self) -> C:
        """Wait for a turn, in the order of coming."""
        ends = time.monotonic() + self._terms.wait_seconds
        enqueue = self._waiting.append
        while True:
            turn = asyncio.get_running_loop().create_future()
            enqueue(turn)
            # Who was woken in vain stays the first.
            enqueue = self._waiting.appendleft
            try:
                async with asyncio.timeout(ends - time.monotonic()):
                    await turn
            except TimeoutError:
                self._pass_on(turn)
                raise _busy(self._terms) from None
            except asyncio.CancelledError:
                self._pass_on(turn)
                raise
            found = self._at_once()
            if found is not None:
                return found
            if self.size < self._terms.size:
                return await self._open()

    def _pass_on(self, turn: asyncio.Future[None]) -> None:
        """Give up a turn; when it has come already, the next one has it."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        else:
            self._wake()

    def give(self, connection: C, *, is_broken: bool = False) -> None:
        """Take ``connection`` back; a broken one is closed."""
        self._lent.pop(id(connection), None)
        if is_broken or self.is_closed or not self._is_usable(connection):
            self._dismiss(connection)
        else:
            self._idle.append((connection, time.monotonic()))
        self._wake()
        while self._idle and time.monotonic() - self._idle[0][1] > self._terms.idle_seconds:
            self._dismiss(self._idle.popleft()[0])

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[C]:
        """Lend a connection for the length of a block."""
        connection = await self.take()
        try:
            yield connection
        finally:
            self.give(connection)

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _dismiss(self, connection: C) -> None:
        self._opened_at.pop(id(connection), None)
        task = asyncio.ensure_future(self._close(connection))
        self._closing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled():
            task.exception()  # what cannot be closed is gone already

    async def close(self) -> None:
        """Close what is idle now, and what is lent when it is given back. Safe twice."""
        self.is_closed = True
        while self._idle:
            self._dismiss(self._idle.pop()[0])
        while self._waiting:
            self._wake()
        if self._closing:
            await asyncio.wait(self._closing)  # goes on when this is cancelled; gather would cancel what has not begun


def _busy(terms: Terms) -> ProviderError:
    message = f"All {terms.size} connections were busy for {terms.wait_seconds:g} s. Try again when calls have ended."
    return ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)


def closed() -> ProviderError:
    """Return the error of a call that comes after ``close``, or before ``open``."""
    return ProviderError(ErrorCode.UNAVAILABLE, "The database is closed.", retry_after_seconds=1.0)
