"""Data keys that a remote key has unwrapped, kept for a while: reads go on when it cannot be reached."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

CAPACITY = 10_000
TTL_SECONDS = 900.0

_Name: TypeAlias = tuple[bytes, bytes]


class DataKeys:
    """At most ``capacity`` keys, the least recently used ones leave first, each for ``ttl_seconds``."""

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        ttl_seconds: float = TTL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = capacity
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._kept: OrderedDict[_Name, tuple[float, bytes]] = OrderedDict()

    def __repr__(self) -> str:
        return f"DataKeys({len(self._kept)} kept)"

    def find(self, place: bytes, wrapped: bytes) -> bytes | None:
        """Return what was kept for this very wrapped key at this very place."""
        name = (wrapped, place)
        found = self._kept.get(name)
        if found is None:
            return None
        until, key = found
        if self._clock() >= until:
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        return key

    def keep(self, place: bytes, wrapped: bytes, key: bytes) -> None:
        """Remember an unwrapped key."""
        self._kept[wrapped, place] = (self._clock() + self._ttl_seconds, key)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def forget(self) -> None:
        """Forget all of them."""
        self._kept.clear()
