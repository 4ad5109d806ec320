"""Each tenant's share of the calls that a process holds at a time.

A tenant never has more than its share inside, so that there is a place for the others; whoever finds none waits in a
bounded queue of its tenant, and places that become free go round the tenants that wait. Without contention a call costs
two look-ups.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from erp.contracts.models.errors import ErrorCode
from erp.errors import ProviderError

WAIT_SECONDS = 10.0


class TenantShares:
    """Places for ``capacity`` calls, of which one tenant has at most ``share``; as many more of each may wait."""

    def __init__(self, capacity: int, share: int | None = None, *, max_waiting: int | None = None) -> None:
        self.capacity = capacity
        self.share = max(1, capacity // 2) if share is None else share
        self.max_waiting = self.share if max_waiting is None else max_waiting
        self._free = capacity
        self._inside: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Whose turn is next comes first."""

    def try_enter(self, tenant: str) -> bool:
        """Enter without waiting; False when the caller has to ``wait_to_enter``."""
        inside = self._inside.get(tenant, 0)
        if self._free <= 0 or inside >= self.share or tenant in self._waiting:
            return False
        self._free -= 1
        self._inside[tenant] = inside + 1
        return True

    async def wait_to_enter(self, tenant: str, seconds: float = WAIT_SECONDS) -> None:
        """Queue for a place.

        Raises:
            ProviderError: ``unavailable`` with a pause when the tenant's queue is full or no place became free in time.
        """
        queue = self._waiting.get(tenant, ())
        if len(queue) >= self.max_waiting:
            raise _refusal("The tenant has as many calls under way and waiting as one tenant may have.")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            async with asyncio.timeout(seconds):
                await place
        except TimeoutError:
            self._give_up(tenant, place)
            raise _refusal("The call waited for its tenant's turn until its time was over.") from None
        except asyncio.CancelledError:
            self._give_up(tenant, place)
            raise

    def _give_up(self, tenant: str, place: asyncio.Future[None]) -> None:
        if place.done() and not place.cancelled():
            self.leave(tenant)
            return
        queue = self._waiting.get(tenant)
        if queue is not None:
            with contextlib.suppress(ValueError):
                queue.remove(place)
            if not queue:
                del self._waiting[tenant]

    def leave(self, tenant: str) -> None:
        """Free the place, and let in whose turn it is."""
        self._free += 1
        left = self._inside[tenant] - 1
        if left:
            self._inside[tenant] = left
        else:
            del self._inside[tenant]
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        for tenant in list(self._waiting):
            if self._free <= 0:
                return
            if self._inside.get(tenant, 0) < self.share:
                self._let_in_one(tenant)

    def _let_in_one(self, tenant: str) -> None:
        queue = self._waiting.pop(tenant)
        while queue:
            place = queue.popleft()
            if not place.done():
                self._free -= 1
                self._inside[tenant] = self._inside.get(tenant, 0) + 1
                place.set_result(None)
                break
        if queue:
            self._waiting[tenant] = queue  # behind the others: each gets one place in turn


def _refusal(message: str) -> ProviderError:
    return ProviderError(ErrorCode.UNAVAILABLE, message, retry_after_seconds=1.0)
