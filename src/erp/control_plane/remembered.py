"""A bounded cache of rows that other processes may change."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from erp.control_plane.revisions import Revisions, Topic

K = TypeVar("K")
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Values by key, forgotten at once when this process changes ``topic``, within a second when another does."""

    def __init__(self, revisions: Revisions, topic: Topic, *, capacity: int = 10_000) -> None:
        self._revisions = revisions
        self._capacity = capacity
        self._values: dict[K, V] = {}
        self._generation = 0
        revisions.watch(topic, self.forget)

    def forget(self) -> None:
        """Drop everything, and whatever is being read right now."""
        self._values.clear()
        self._generation += 1

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """Return what is remembered of ``key``, or what ``load`` reads."""
        if time.monotonic() >= self._revisions.trusted_until:
            await self._revisions.refresh()
        try:
            return self._values[key]
        except KeyError:
            return await self._load(key, load)

    async def _load(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        generation = self._generation
        value = await load()
        # A row read before a change must not outlive it.
        if generation == self._generation:
            while len(self._values) >= self._capacity:
                del self._values[next(iter(self._values))]
            self._values[key] = value
        return value
