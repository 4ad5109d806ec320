"""When to look at which order next. Kept in memory only: the truth stands in the tenants' databases."""

from __future__ import annotations

import heapq

Key = tuple[str, str]
"""Tenant and order."""


class Agenda:
    """Orders by the moment they are due (monotonic seconds); each stands in it once, at its earliest."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []

    def __contains__(self, key: Key) -> bool:
        return key in self._due

    def __len__(self) -> int:
        return len(self._due)

    def put(self, key: Key, due: float) -> None:
        """Note an order for ``due``, unless it is due earlier already."""
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))

    def take(self, now: float) -> Key | None:
        """Remove and return the order that has been due for longest; None when none is."""
        due = self.next_due()
        if due is None or due > now:
            return None
        key = heapq.heappop(self._heap)[1]
        del self._due[key]
        return key

    def next_due(self) -> float | None:
        """Return when the next order is due."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
