"""The store behind the memory cache: a bounded dictionary whose entries expire."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from sortedcontainers import SortedList

OVERHEAD_BYTES = 200
"""What an entry costs beside its key, value and tags (measured with tracemalloc)."""
SWEPT_AT_ONCE = 4


class Entry:
    """One value with its lifetimes. Times are monotonic seconds; infinity means never."""

    __slots__ = ("data", "dies_at", "idle_seconds", "idles_at", "size", "tags", "version")

    def __init__(self, data: bytes, version: int, dies_at: float, idle_seconds: float, tags: frozenset[str]) -> None:
        self.data = data
        self.version = version
        self.dies_at = dies_at
        self.idle_seconds = idle_seconds
        self.idles_at = time.monotonic() + idle_seconds
        self.tags = tags
        self.size = 0

    def is_alive(self, now: float) -> bool:
        """Whether the entry may still be read."""
        return now < self.dies_at and now < self.idles_at


class Entries:
    """Entries by key within a number of bytes; the least recently used make room for new ones."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._by_tag: dict[str, set[str]] = {}
        self._sorted: SortedList[str] = SortedList()
        """The keys, so that those with a prefix are beside each other."""
        self.on_change: Callable[[int], None] = lambda _: None
        """Hears by how much ``bytes`` has changed."""

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str) -> Entry | None:
        """Return a live entry and count the access; drop one that has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = time.monotonic()
        if now >= entry.dies_at or now >= entry.idles_at:
            self.remove(key)
            return None
        entry.idles_at = now + entry.idle_seconds
        self._entries.move_to_end(key)
        return entry

    def fits(self, key: str, entry: Entry, most: int) -> bool:
        """Whether an entry could be stored at all, within ``most`` bytes and within its own bound."""
        return self._size(key, entry) <= min(self.max_bytes, most)

    def put(self, key: str, entry: Entry) -> None:
        """Store an entry that fits, evicting expired and then least recently used ones."""
        entry.size = self._size(key, entry)
        before = self._entries.pop(key, None)
        if before is None:
            self._sorted.add(key)
        else:
            self._untag(key, before)
        self._entries[key] = entry
        for tag in entry.tags:
            self._by_tag.setdefault(tag, set()).add(key)
        self._count(entry.size - (before.size if before else 0))
        self.sweep(SWEPT_AT_ONCE)
        while self.bytes > self.max_bytes:
            self.evict()

    def _count(self, change: int) -> None:
        self.bytes += change
        self.on_change(change)

    def evict(self) -> None:
        """Remove the entry that was not used for longest."""
        self.remove(next(iter(self._entries)))

    @staticmethod
    def _size(key: str, entry: Entry) -> int:
        return OVERHEAD_BYTES + len(key) + len(entry.data) + sum(map(len, entry.tags))

    def remove(self, key: str) -> Entry | None:
        """Remove an entry, alive or not."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._sorted.remove(key)
        self._untag(key, entry)
        self._count(-entry.size)
        return entry

    def _untag(self, key: str, entry: Entry) -> None:
        for tag in entry.tags:
            keys = self._by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._by_tag[tag]

    def sweep(self, limit: int) -> None:
        """Drop expired ones among the ``limit`` entries that were not used for longest."""
        now = time.monotonic()
        oldest = [key for key, _ in zip(self._entries, range(limit), strict=False)]
        for key in oldest:
            if not self._entries[key].is_alive(now):
                self.remove(key)

    def tagged(self, tags: Iterable[str]) -> list[str]:
        """Return the keys that carry one of ``tags``."""
        return sorted({key for tag in tags for key in self._by_tag.get(tag, ())})

    def prefixed(self, prefix: str) -> list[str]:
        """Return the keys that start with ``prefix``; looks at those alone."""
        return list(itertools.takewhile(lambda key: key.startswith(prefix), self._sorted.irange(prefix)))

    def drop(self, keys: Iterable[str]) -> int:
        """Remove ``keys``; return how many of them were alive."""
        now = time.monotonic()
        return sum(entry is not None and entry.is_alive(now) for entry in map(self.remove, keys))

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._by_tag.clear()
        self._sorted.clear()
        self._count(-self.bytes)
