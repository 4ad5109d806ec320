"""Tells waiting consumers that something may have arrived, from this process or another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

LOOK_SECONDS = 0.05
"""How soon consumers notice what another process has published."""


class Arrivals:
    """One event per topic that somebody waits for, and one look at Redis for all of them."""

    def __init__(self, counters: Callable[[Sequence[str]], Awaitable[list[Any]]]) -> None:
        """``counters``: of each topic a value that changes when something may have become due."""
        self._counters = counters
        self._topics: dict[str, asyncio.Event] = {}
        self._seen: dict[str, Any] = {}
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
            self._watcher = asyncio.create_task(self._watch(), name="bus-redis watcher")
        try:
            async with asyncio.timeout(seconds):
                await arrival.wait()
        except TimeoutError:
            return
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        """Look as long as somebody waits."""
        try:
            with contextlib.suppress(Exception):  # Redis is away: who waits finds out by itself
                while self._waiting:
                    await self._look()
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._watcher = None

    async def _look(self) -> None:
        topics = list(self._topics)
        if not topics:
            return
        for topic, counter in zip(topics, await self._counters(topics), strict=True):
            if self._seen.get(topic) != counter:
                self._seen[topic] = counter
                self.wake(topic)

    async def close(self) -> None:
        """End the look. Safe twice."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
