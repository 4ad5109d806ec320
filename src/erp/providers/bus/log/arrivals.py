"""Tells waiting consumers that something may have arrived, from this process or another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

LOOK_SECONDS = 0.1
"""How soon consumers notice what another process has published."""


class Arrivals:
    """One event per topic that somebody waits for, and one look at the file for all of them."""

    def __init__(self, version: Callable[[], Awaitable[int]]) -> None:
        """``version``: a number that changes when another process has written to the log."""
        self._version = version
        self._topics: dict[str, asyncio.Event] = {}
        self._waiting = 0
        self._watcher: asyncio.Task[None] | None = None

    def upcoming(self, topic: str) -> asyncio.Event:
        """Return what is set at the next arrival; ask for it before looking, so that none is missed."""
        return self._topics.setdefault(topic, asyncio.Event())

    def wake(self, *topics: str) -> None:
        """Say that something may have arrived."""
        for topic in topics:
            arrival = self._topics.pop(topic, None)
            if arrival is not None:
                arrival.set()

    async def wait(self, arrival: asyncio.Event, seconds: float) -> None:
        """Wait for ``arrival``, at most ``seconds``."""
        self._waiting += 1
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="bus-log watcher")
        try:
            async with asyncio.timeout(seconds):
                await arrival.wait()
        except TimeoutError:
            return
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        """Look at the file as long as somebody waits."""
        try:
            with contextlib.suppress(Exception):  # closed meanwhile: who waits finds out by itself
                seen = await self._version()
                while self._waiting:
                    await asyncio.sleep(LOOK_SECONDS)
                    present = await self._version()
                    if present != seen:
                        seen = present
                        self.wake(*self._topics)
        finally:
            self._watcher = None

    async def close(self) -> None:
        """End the look at the file. Safe twice."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
