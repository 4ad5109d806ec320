"""One bound for the memory of all caches of a layer, shared fairly: who holds most makes room first.

A tenant that writes without end evicts its own entries. Another tenant's are safe as long as it holds less than the
greediest, which is at least the bound divided by the number of tenants.
"""

from __future__ import annotations

import heapq
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from erp.providers.cache.memory.entries import Entries

LEAST_BYTES = 64 * 1024 * 1024
SHARE_OF_MEMORY = 8
"""All caches together take at most this fraction of the machine's memory."""


def bytes_of_this_machine() -> int:
    """Return how much memory all caches of a layer may take here."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = 0
    return max(LEAST_BYTES, memory // SHARE_OF_MEMORY)


class Share:
    """What one tenant holds, over all its connections."""

    __slots__ = ("bytes", "members")

    def __init__(self) -> None:
        self.bytes = 0
        self.members: list[Entries] = []

    def evict(self) -> None:
        """Give up the entry that was not used for longest, of the connection that holds most."""
        max(self.members, key=lambda entries: entries.bytes).evict()


class Budget:
    """The bound of one layer. Every step costs the logarithm of the number of tenants."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._shares: dict[str, Share] = {}
        self._largest: list[tuple[int, str]] = []
        """A heap of (minus bytes, tenant); what is not true any more is passed over."""

    def join(self, tenant: str, entries: Entries) -> None:
        """Count what ``entries`` holds as the tenant's."""
        self._shares.setdefault(tenant, Share()).members.append(entries)
        entries.on_change = lambda change: self._changed(tenant, change)

    def leave(self, tenant: str, entries: Entries) -> None:
        """Count them no more; they are empty."""
        entries.on_change = _nobody_counts
        share = self._shares.get(tenant)
        if share is None or entries not in share.members:
            return
        share.members.remove(entries)
        if not share.members:
            del self._shares[tenant]

    def _changed(self, tenant: str, change: int) -> None:
        share = self._shares[tenant]
        share.bytes += change
        self.bytes += change
        if change > 0:
            heapq.heappush(self._largest, (-share.bytes, tenant))
            if self.bytes > self.max_bytes:
                self._make_room()
            if len(self._largest) > 4 * len(self._shares) + 1024:
                self._rebuild()

    def _make_room(self) -> None:
        while self.bytes > self.max_bytes:
            claimed, tenant = self._largest[0]
            share = self._shares.get(tenant)
            if share is None or share.bytes != -claimed:
                heapq.heappop(self._largest)
                if share is not None and share.bytes:
                    heapq.heappush(self._largest, (-share.bytes, tenant))
                continue
            share.evict()

    def _rebuild(self) -> None:
        self._largest = [(-share.bytes, tenant) for tenant, share in self._shares.items()]
        heapq.heapify(self._largest)


def _nobody_counts(_: int) -> None:
    """What is not of a budget is not counted."""


_budgets: weakref.WeakValueDictionary[Path, Budget] = weakref.WeakValueDictionary()


def budget_of(layer: Path) -> Budget:
    """Return the budget of the layer whose shared folder this is."""
    found = _budgets.get(layer)
    if found is None:
        found = _budgets[layer] = Budget(bytes_of_this_machine())
    return found
