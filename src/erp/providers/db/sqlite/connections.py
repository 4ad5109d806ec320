"""Connections that stop their own statements at a deadline, and what lends them out."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

BUSY_SECONDS = 5.0
INTERRUPT_EVERY_SECONDS = 0.02
OPERATIONS_BETWEEN_LOOKS = 20_000
"""Steps of SQLite's machine between two looks at the clock: well under a millisecond."""


class GuardedConnection(sqlite3.Connection):
    """A connection whose statements end when ``ends_at`` (monotonic clock) has passed."""

    ends_at = math.inf

    def watch(self) -> None:
        """Look at the clock while statements run."""
        self.set_progress_handler(lambda: time.monotonic() > self.ends_at, OPERATIONS_BETWEEN_LOOKS)


def connect(path: Path, mode: str) -> GuardedConnection:
    """Open ``path``; ``mode`` is ``ro``, ``rw`` (must be there) or ``rwc`` (is made)."""
    made = sqlite3.connect(
        f"file:{_quoted(path)}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=GuardedConnection,
    )
    made.watch()
    return made


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


class Lending:
    """Lends each of its connections to one piece of work at a time, in the order of asking."""

    def __init__(self) -> None:
        self._idle: asyncio.Queue[GuardedConnection] = asyncio.Queue()
        self.size = 0
        self.waiting = 0
        self._listener: Callable[[], None] | None = None

    @property
    def in_use(self) -> int:
        """How many connections are lent out."""
        return self.size - self._idle.qsize()

    def add(self, connection: GuardedConnection) -> None:
        """Let ``connection`` be lent from now on."""
        self.size += 1
        self._idle.put_nowait(connection)

    async def take(self, seconds: float | None = None) -> GuardedConnection:
        """Return a connection nobody else has.

        Raises:
            TimeoutError: None became free within ``seconds``.
        """
        idle = self.take_idle()
        if idle is not None:
            return idle
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._idle.get()
        finally:
            self.waiting -= 1

    def take_idle(self) -> GuardedConnection | None:
        """Return a connection nobody else has, or None when there is none at this moment or others wait for it."""
        return None if self.waiting or self._idle.empty() else self._idle.get_nowait()

    def when_given(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once, when a connection was given back that nobody waits for."""
        self._listener = listener

    def give(self, connection: GuardedConnection) -> None:
        """Take ``connection`` back."""
        self._idle.put_nowait(connection)
        if self._listener is not None and not self.waiting:
            listener, self._listener = self._listener, None
            listener()

    @asynccontextmanager
    async def lent(self, seconds: float | None = None) -> AsyncIterator[GuardedConnection]:
        """Lend a connection for the length of a block."""
        connection = await self.take(seconds)
        try:
            yield connection
        finally:
            self.give(connection)
